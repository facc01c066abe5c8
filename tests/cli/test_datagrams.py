"""What join passes on to a player."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mcastsocks.address import parse_group
from mcastsocks.cli import targets
from mcastsocks.cli.datagrams import _Receiver
from mcastsocks.cli.targets import Format
from mcastsocks.client import RelayUrl
from mcastsocks.errors import RelayError

GROUP = parse_group("239.1.2.3:5004")


@contextmanager
def receiver(player: str) -> Iterator[_Receiver]:
    joining = _Receiver(RelayUrl("fw.example"), [GROUP], Format.raw, targets.player(player), None)
    assert joining._sock is not None
    with joining._sock:
        yield joining


def test_data_reaches_the_player_as_it_is() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as player:
        player.bind(("127.0.0.1", 0))
        player.settimeout(10)
        with receiver(f"udp://127.0.0.1:{player.getsockname()[1]}") as joining:
            for data in (b"one", b"", b"two\n"):
                joining._write(GROUP, data)
                assert player.recv(100) == data


def test_player_that_nothing_can_be_sent_to_is_an_error_with_its_reason() -> None:
    with (
        receiver("udp://255.255.255.255:5004") as joining,  # broadcast: not without asking for it
        pytest.raises(RelayError, match=r"^--to: nothing can be sent there: Permission denied$"),
    ):
        joining._write(GROUP, b"data")
