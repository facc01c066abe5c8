"""A relay's name with several addresses: the first that answers, or all the reasons."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from mcastsocks.client import ConnectionLost, connect
from mcastsocks.client.dial import dial


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """What every name resolves to."""
    found: list[tuple[str, int]] = []

    async def getaddrinfo(loop: object, host: str, port: int, **hints: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", sockaddr) for sockaddr in found]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        found.append(nobody_listens.getsockname())
        yield found


def test_the_next_address_is_tried(addresses: list[tuple[str, int]]) -> None:
    async def talk() -> Any:
        with await dial("fw.example", 1080) as sock:
            return sock.getpeername()

    with socket.create_server(("127.0.0.2", 0)) as relay:
        addresses.append(relay.getsockname())
        assert asyncio.run(talk()) == relay.getsockname()


def test_every_address_and_its_reason_are_named_in_one_line(addresses: list[tuple[str, int]]) -> None:
    addresses.append(("255.255.255.255", 1080))

    async def talk() -> None:
        async with connect("socks5://fw.example"):
            pass

    with pytest.raises(ConnectionLost) as lost:
        asyncio.run(talk())
    why = "127.0.0.1: Connection refused; 255.255.255.255: Network is unreachable"
    assert str(lost.value) == f"cannot reach socks5://fw.example:1080: {why}"


def test_the_only_address_needs_no_name(addresses: list[tuple[str, int]]) -> None:
    with pytest.raises(ConnectionRefusedError) as refused:
        asyncio.run(dial("fw.example", 1080))
    assert refused.value.errno == errno.ECONNREFUSED
