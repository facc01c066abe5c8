"""What CONNECT, BIND and UDP ASSOCIATE need around a relay on loopback: rules, remotes, requests and replies."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest

from mcastsocks.server import resolver
from tests.server.loopback import Raw, Running, block, running, until
from tests.server.loopback import run as run_dialogue

CONNECT, BIND, ASSOCIATE = 1, 2, 3
NOBODY = ("0.0.0.0", 0)

RULES = """
[[rules]]
name = "no hands on 9"
allow = false
ports = 9
[[rules]]
name = "not there"
allow = false
to = ["127.0.0.66", "::66"]
[[rules]]
name = "loopback"
allow = true
do = ["connect", "bind", "udp"]
to = ["127.0.0.0/8", "::1"]
"""

Destination = tuple[str, int]

NAMES: dict[str, list[str]] = {
    "both.example": ["127.0.0.66", "127.0.0.1"],
    "denied.example": ["127.0.0.66"],
    "here.example": ["127.0.0.1"],
    "zero.example": ["0.0.0.0"],
}


def look_up(name: str) -> list[IPv4Address | IPv6Address] | OSError:
    """Instead of the system's resolver: at once, and no network needed."""
    found = NAMES.get(name)
    return [ip_address(each) for each in found] if found else OSError(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "_look_up", look_up)


def asking(command: int, to: Destination, flag: int = 0) -> bytes:
    return bytes((5, command, flag)) + block6(to)


def replying(code: int, bound: Destination = NOBODY, flag: int = 0) -> str:
    return (bytes((5, code, flag)) + block6(bound)).hex()


def block6(endpoint: Destination) -> bytes:
    """A block of any kind; that of loopback knows IPv4 and names."""
    host, port = endpoint
    return b"\4" + ip_address(host).packed + port.to_bytes(2) if ":" in host else block(endpoint)


async def greeted(relay: Running, **options: Any) -> Raw:
    """A client that may ask now."""
    raw = await relay.connect(enter=False, **options)
    assert await raw.ask("050100", 2) == "0500"
    return raw


async def refused(relay: Running, octets: bytes, answer: str, **record: object) -> None:
    """That is answered so, closed, and recorded so."""
    async with await greeted(relay) as raw:
        assert await raw.ask(octets.hex(), len(answer) // 2) == answer
        assert await raw.is_closed()
    await relay.record("refused", **record)


class Remote:
    """A TCP server that accepts when asked to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.address: Destination = sock.getsockname()[:2]

    async def accept(self) -> tuple[Raw, Destination]:
        sock, peer = await asyncio.get_running_loop().sock_accept(self.sock)
        return Raw(*await asyncio.open_connection(sock=sock)), peer[:2]

    @property
    def is_unvisited(self) -> bool:
        try:
            self.sock.accept()[0].close()
        except BlockingIOError:
            return True
        return False


@asynccontextmanager
async def listening(host: str = "127.0.0.1", backlog: int = 8) -> AsyncIterator[Remote]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        sock.listen(backlog)
        sock.setblocking(False)
        yield Remote(sock)


def reset(raw: Raw) -> None:
    """Not an end but a reset."""
    sock = raw._writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw._writer.transport.abort()


def closed_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


Afterwards = Callable[[], Coroutine[Any, Any, None]]


def serve(
    test: Callable[[Running], Coroutine[Any, Any, Afterwards | None]], rules: str = RULES, **options: Any
) -> None:
    """Run a test's coroutine beside a relay that leaves no descriptor, task or defect behind.

    What the coroutine returns is run when the relay has stopped, for tests of just that.
    """

    async def dialogue() -> None:
        before = descriptors()
        async with running(rules, **options) as relay:
            afterwards = await test(relay)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        if afterwards is not None:
            await afterwards()
        assert not relay.records("defect")
        own = len(relay.relay.config.inside.listen)
        assert relay.records("counters")[-1]["udp_sockets"] == own, "those of the enhanced mode"
        await until(lambda: descriptors() == before)

    run_dialogue(dialogue())
