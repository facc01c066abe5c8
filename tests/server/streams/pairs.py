"""TCP connections on loopback, and a pump between two of them."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

from mcastsocks.server.streams.pipes import PipePool
from mcastsocks.server.streams.pump import Ending, Octets, Pumps

WAIT_S = 20.0
NEVER_IDLE_S = 600.0


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def run(test: Coroutine[Any, Any, None]) -> None:
    """A test's coroutine, which must leave no descriptor behind."""

    async def limited() -> None:
        before = descriptors()
        async with asyncio.timeout(WAIT_S):
            await test
        assert descriptors() == before

    asyncio.run(limited())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - sockets and counters ring no bell
            await asyncio.sleep(0)


def pair(buffer_octets: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Two ends of one connection, non-blocking; with small kernel buffers if asked for."""
    with socket.socket() as listener:
        if buffer_octets is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_octets)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_octets)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.socket()
        if buffer_octets is not None:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_octets)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_octets)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


class Line:
    """`client` and `remote` are the programs at both ends; between them the pump under test."""

    def __init__(self, pool: PipePool, early: bytes, idle_s: float, buffer_octets: int | None) -> None:
        self.pool, self.octets = pool, Octets()
        self.client, inside = pair(buffer_octets)
        outside, self.remote = pair(buffer_octets)
        self.inside, self.outside = inside, outside
        self.pumping: asyncio.Task[Ending] = asyncio.create_task(
            Pumps(pool).pump(inside, outside, early=early, idle_s=idle_s, octets=self.octets)
        )

    async def ending(self) -> Ending:
        async with asyncio.timeout(WAIT_S):
            return await self.pumping


@asynccontextmanager
async def line(
    *,
    most_pipes: int = 4,
    shared: PipePool | None = None,
    early: bytes = b"",
    idle_s: float = NEVER_IDLE_S,
    buffer_octets: int | None = None,
) -> AsyncIterator[Line]:
    """With pipes of its own, unless `shared` are given. It must leave none in use."""
    pool = shared or PipePool(most_pipes)
    made = Line(pool, early, idle_s, buffer_octets)
    try:
        yield made
    finally:
        made.pumping.cancel()
        await asyncio.gather(made.pumping, return_exceptions=True)
        assert (made.inside.fileno(), made.outside.fileno()) == (-1, -1)
        made.client.close()
        made.remote.close()
        if shared is None:
            assert pool.in_use == 0
            pool.close()
            assert pool.made == 0


async def send_random(sock: socket.socket, octets: int, seed: int) -> str:
    """Random octets in random chunks, then the end of the stream; their hash."""
    loop, dice, digest = asyncio.get_running_loop(), random.Random(seed), sha256()
    while octets:
        chunk = dice.randbytes(min(octets, dice.choice((1, 100, 1460, 65_536, 300_000))))
        await loop.sock_sendall(sock, chunk)
        digest.update(chunk)
        octets -= len(chunk)
    sock.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


async def receive_slowly(sock: socket.socket, seed: int) -> str:
    """Everything up to the end of the stream, in random pieces with pauses; its hash."""
    loop, dice, digest = asyncio.get_running_loop(), random.Random(seed), sha256()
    while octets := await loop.sock_recv(sock, dice.choice((1, 3000, 65_536, 1_000_000))):
        digest.update(octets)
        for _ in range(dice.choice((0, 0, 0, 20))):
            await asyncio.sleep(0)
    return digest.hexdigest()


async def receive_all(sock: socket.socket) -> bytes:
    loop, received = asyncio.get_running_loop(), bytearray()
    while octets := await loop.sock_recv(sock, 1 << 20):
        received += octets
    return bytes(received)


async def received(sock: socket.socket, octets: int) -> bytes:
    """So many octets exactly."""
    got = bytearray()
    while len(got) < octets:
        got += await asyncio.get_running_loop().sock_recv(sock, octets - len(got))
    return bytes(got)


async def drop(sock: socket.socket, octets: int) -> None:
    """Receive so many and forget them."""
    while octets:
        octets -= len(await asyncio.get_running_loop().sock_recv(sock, min(octets, 1 << 20)))


def reset(sock: socket.socket) -> None:
    """Close with a reset and no end of stream."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
    sock.close()


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes nothing more; how much that was."""
    sent, octets = 0, bytes(1 << 16)
    try:
        while True:
            sent += sock.send(octets)
    except BlockingIOError:
        return sent
