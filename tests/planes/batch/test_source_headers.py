"""Headers that name remotes, as they stand in memory."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from mcastsocks.address import SockAddr
from mcastsocks.planes.batch import source_headers
from mcastsocks.planes.batch.sockaddrs import words_of
from mcastsocks.planes.batch.source_headers import SourceHeaders

FOUR: SockAddr = ("192.0.2.7", 4004)
SIX: SockAddr = ("2001:db8::7", 4004, 0, 0)
LINK: SockAddr = ("fe80::7", 4004, 0, 3)


def octets_of(headers: SourceHeaders, *sources: SockAddr) -> list[str]:
    rows = np.array([headers.row_of(words_of(source).tobytes()) for source in sources])
    addresses, octets = headers.heads(rows)
    return [ctypes.string_at(int(at), int(size)).hex() for at, size in zip(addresses, octets, strict=True)]


def test_golden_octets() -> None:
    assert octets_of(SourceHeaders(), FOUR, SIX, LINK, FOUR) == [
        "00000001c00002070fa4",
        "0000000420010db80000000000000000000000070fa4",
        "00000004fe8000000000000000000000000000070fa4",
        "00000001c00002070fa4",
    ]


def test_a_remote_has_one_row_until_all_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_headers, "_ROWS", 3)
    headers, four, six = SourceHeaders(), words_of(FOUR).tobytes(), words_of(SIX).tobytes()
    assert [headers.row_of(each) for each in (four, six, four)] == [1, 2, 1]
    assert headers.is_full
    headers.clear()
    assert octets_of(headers, SIX) == ["0000000420010db80000000000000000000000070fa4"]
    assert not headers.is_full
