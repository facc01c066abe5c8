"""BIND's one connection comes from whom it was announced for, or not at all."""

from __future__ import annotations

import asyncio
import errno
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from mcastsocks.address import Endpoint, from_sockaddr, to_sockaddr
from mcastsocks.server.streams.accept import Awaiter
from tests.server.streams.pairs import run, until

LOOPBACK = IPv4Address("127.0.0.1")
EXPECTED, STRANGER = IPv4Address("127.0.0.2"), IPv4Address("127.0.0.3")


def begin(awaiter: Awaiter, source: IPv4Address | IPv6Address) -> socket.socket:
    """A connection to it, under way."""
    sock = socket.socket(socket.AF_INET if source.version == 4 else socket.AF_INET6)
    sock.setblocking(False)
    sock.bind(to_sockaddr(Endpoint(source, 0)))
    assert sock.connect_ex(to_sockaddr(awaiter.endpoint)) in (0, errno.EINPROGRESS)
    return sock


@pytest.mark.parametrize(("local", "source"), [("127.0.0.1", "127.0.0.2"), ("::1", "::1")])
def test_expected_peer_is_accepted_and_named(local: str, source: str) -> None:
    async def test() -> None:
        awaiter = Awaiter(ip_address(local), {ip_address(source)})
        assert awaiter.endpoint.host == ip_address(local)
        with begin(awaiter, ip_address(source)) as peer:
            sock, endpoint = await awaiter.accept(60)
            with sock:
                assert endpoint == from_sockaddr(peer.getsockname())
                assert sock.getblocking() is False
                await asyncio.get_running_loop().sock_sendall(peer, b"hello")
                assert await asyncio.get_running_loop().sock_recv(sock, 10) == b"hello"

    run(test())


def test_strangers_are_closed_at_once_and_counted() -> None:
    async def test() -> None:
        awaiter = Awaiter(LOOPBACK, {EXPECTED})
        accepting = asyncio.create_task(awaiter.accept(60))
        for number in range(1, 4):
            with begin(awaiter, STRANGER) as stranger:
                await until(lambda: awaiter.strangers == number)  # noqa: B023 - done within the turn
                assert await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
        with begin(awaiter, EXPECTED):
            sock, peer = await accepting
            sock.close()
        assert (peer.host, awaiter.strangers) == (EXPECTED, 3)

    run(test())


def test_nobody_is_accepted_after_the_first() -> None:
    async def test() -> None:
        awaiter = Awaiter(LOOPBACK, {EXPECTED})
        with begin(awaiter, EXPECTED):
            sock, _ = await awaiter.accept(60)
            sock.close()
            with socket.socket() as late, pytest.raises(ConnectionRefusedError):
                late.connect(to_sockaddr(awaiter.endpoint))
        awaiter.close()

    run(test())


def test_peer_that_does_not_come_is_given_up() -> None:
    async def test() -> None:
        with pytest.raises(TimeoutError):
            await Awaiter(LOOPBACK, {EXPECTED}).accept(0.01)

    run(test())


def test_cancelled_wait_listens_no_more() -> None:
    async def test() -> None:
        awaiter = Awaiter(LOOPBACK, {EXPECTED})
        accepting = asyncio.create_task(awaiter.accept(60))
        await asyncio.sleep(0)
        accepting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await accepting

    run(test())


def test_peer_that_came_as_the_wait_was_cancelled_is_closed() -> None:
    async def test() -> None:
        awaiter = Awaiter(LOOPBACK, {EXPECTED})
        accepting = asyncio.create_task(awaiter.accept(60))
        await asyncio.sleep(0)
        with begin(awaiter, EXPECTED) as peer:
            asyncio.get_running_loop().call_soon(accepting.cancel)
            with pytest.raises(asyncio.CancelledError):
                await accepting
            with pytest.raises(ConnectionResetError):
                await asyncio.get_running_loop().sock_recv(peer, 1)

    run(test())


def test_host_without_room_for_a_connection_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            raise OSError(errno.EMFILE, "too many open files")

    async def test() -> None:
        with monkeypatch.context() as kernel:
            kernel.setattr(socket, "socket", Exhausted)
            awaiter = Awaiter(LOOPBACK, {EXPECTED})
        with begin(awaiter, EXPECTED), pytest.raises(OSError, match="too many"):
            await awaiter.accept(60)

    run(test())


def test_address_that_is_not_ours_is_an_error() -> None:
    with pytest.raises(OSError, match="assign") as caught:
        Awaiter(IPv4Address("192.0.2.1"), {EXPECTED})
    assert caught.value.errno == errno.EADDRNOTAVAIL
