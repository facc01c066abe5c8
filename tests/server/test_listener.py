"""A listener outlives whatever happens to one connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.server import listener
from mcastsocks.server.listener import Listener
from tests.server.loopback import free_port, run, until


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[Endpoint, list[socket.socket]]]:
    """Where, and what was accepted there."""
    accepted: list[socket.socket] = []
    listening = Listener(Endpoint(ip_address("127.0.0.1"), free_port()), 60, accepted.append)
    task = asyncio.create_task(listening.run())
    try:
        yield listening.endpoint, accepted
        assert not task.done()
    finally:
        listening.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for sock in accepted:
            sock.close()


def connected(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection((str(endpoint.host), endpoint.port))


def test_connection_that_is_gone_when_it_is_looked_at_ends_no_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[socket.socket] = []

    def gone(sock: socket.socket, seconds: int) -> None:
        seen.append(sock)
        if len(seen) == 1:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(listener, "detect_dead_peer", gone)

    async def dialogue() -> None:
        async with listening() as (endpoint, accepted):
            with connected(endpoint) as first, connected(endpoint) as second:
                await until(lambda: accepted)
                assert accepted[0].getpeername() == second.getsockname()
                assert seen[0].fileno() == -1
                assert first.recv(1) == b""

    run(dialogue())


@pytest.mark.parametrize("errno", [24, 12, 103], ids=["no descriptors", "no memory", "gone"])
def test_connection_that_cannot_be_accepted_ends_no_listener(monkeypatch: pytest.MonkeyPatch, errno: int) -> None:
    monkeypatch.setattr(listener, "_PAUSE_S", 0)

    async def dialogue() -> None:
        loop = asyncio.get_running_loop()
        accept, errors = loop.sock_accept, [OSError(errno, "not now"), OSError(errno, "not now")]

        async def failing(sock: socket.socket) -> tuple[socket.socket, object]:
            if errors:
                raise errors.pop()
            return await accept(sock)

        monkeypatch.setattr(loop, "sock_accept", failing)
        async with listening() as (endpoint, accepted):
            with connected(endpoint) as client:
                await until(lambda: accepted)
                assert accepted[0].getpeername() == client.getsockname()
                assert not errors

    run(dialogue())
