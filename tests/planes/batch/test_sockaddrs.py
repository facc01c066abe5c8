"""Addresses as words."""

from __future__ import annotations

import errno

import pytest

from mcastsocks.address import SockAddr
from mcastsocks.planes.batch.sockaddrs import PORT_MASK, Destinations, sockaddr_of, words_of

ADDRESSES: list[SockAddr] = [
    ("192.0.2.1", 5004),
    ("0.0.0.0", 0),
    ("2001:db8::1", 5004, 0, 0),
    ("fe80::1", 65535, 0, 3),
    ("2001:db8::1", 5004, 7, 0),
]


@pytest.mark.parametrize("sockaddr", ADDRESSES)
def test_round_trip(sockaddr: SockAddr) -> None:
    assert sockaddr_of(words_of(sockaddr)) == sockaddr


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2)),
        (("192.0.2.1", 1), ("192.0.2.2", 1)),
        (("fe80::1", 1, 0, 2), ("fe80::1", 1, 0, 3)),
        (("2001:db8::1", 1, 0, 0), ("2001:db8::2", 1, 0, 0)),
    ],
)
def test_different_addresses_are_different_words(one: SockAddr, other: SockAddr) -> None:
    assert (words_of(one) != words_of(other)).any()


def test_port_mask_covers_the_port_alone() -> None:
    one, other = words_of(("192.0.2.1", 0)), words_of(("192.0.2.1", 0xFFFF))
    assert one[0] | PORT_MASK == other[0]


def test_name_is_no_address() -> None:
    with pytest.raises(OSError, match="illegal"):
        words_of(("name.example", 1))


def test_refusal_is_remembered_until_the_row_is_set_again() -> None:
    table = Destinations(4, 2)
    table.set(0, ("192.0.2.1", 1))
    table.note_refusal(0, 1400, errno.EMSGSIZE)
    assert table.largest_segment.tolist() == [1399, 0xFFFF]
    table.note_refusal(0, 1000, errno.EIO)
    assert table.largest_segment.tolist() == [0, 0xFFFF]
    table.set(0, ("192.0.2.1", 1))
    assert table.largest_segment.tolist() == [0xFFFF, 0xFFFF]
