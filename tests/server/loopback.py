"""A real relay in the test's own event loop, on loopback; raw clients that write octets; records in memory."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from argon2 import PasswordHasher

from mcastsocks import settings
from mcastsocks.rules.users import User, Users
from mcastsocks.server.config import Config, Loaded
from mcastsocks.server.records import Records
from mcastsocks.server.relay import Relay

PATIENCE_S = 10
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
GROUP = "239.255.77.1"

ENTER = "050400 01 00000000 0000"
ENTERED = "010000 01 00000000 0000"
RECEIVE, SEND, BOTH, UNICAST, MULTICAST, MU = 0x01, 0x02, 0x03, 0x04, 0x10, 0x20
BIND, RELEASE, SET_TTL = 5, 6, 7

RULES = """
[[rules]]
name = "no hands on 9"
allow = false
ports = 9
[[rules]]
name = "loopback"
allow = true
do = ["udp"]
to = ["127.0.0.0/8"]
[[rules]]
name = "hear"
allow = true
do = ["receive-group"]
groups = ["239.255.0.0/16"]
[[rules]]
name = "speak"
allow = true
do = ["send-group"]
groups = ["239.255.77.0/24"]
max_ttl = 4
"""


def run(work: Coroutine[Any, Any, None]) -> None:
    """The test's event loop; nothing takes longer than our patience."""

    async def patient() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await work

    asyncio.run(patient())


async def until(condition: Callable[[], object]) -> None:
    """Let everybody run until it holds; what holds it up is bounded by run."""
    while not condition():  # noqa: ASYNC110  (it changes in kernel and threads, which tell nobody)
        await asyncio.sleep(0)


def free_port() -> int:
    """A port that TCP and UDP of loopback both have free."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                return int(tcp.getsockname()[1])


class Lines(io.StringIO):
    """What a Records writes, as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, Any]] = []

    def write(self, text: str) -> int:
        self.records.append(json.loads(text))
        return len(text)


@dataclass
class Running:
    relay: Relay
    port: int
    lines: Lines

    def records(self, event: str, **fields: object) -> list[dict[str, Any]]:
        return [
            record
            for record in list(self.lines.records)
            if record["event"] == event and record.items() >= fields.items()
        ]

    async def record(self, event: str, **fields: object) -> dict[str, Any]:
        """The first such record, when it is there."""
        await until(lambda: self.records(event, **fields))
        return self.records(event, **fields)[0]

    def url(self, user: str = "") -> str:
        return f"socks5://{user}{'@' if user else ''}127.0.0.1:{self.port}"

    async def connect(
        self,
        *,
        enter: bool = True,
        user: tuple[str, str] | None = None,
        client: str = "127.0.0.1",
        host: str = "127.0.0.1",
    ) -> Raw:
        raw = Raw(*await asyncio.open_connection(host, self.port, local_addr=(client, 0)))
        if enter:
            method = "02" if user else "00"
            assert await raw.ask(f"0501{method}", 2) == f"05{method}"
            if user:
                assert await raw.login(*user) == "0100"
            assert await raw.ask(ENTER, 10) == ENTERED.replace(" ", "")
        return raw


@contextlib.asynccontextmanager
async def running(
    rules: str = RULES,
    *,
    limits: str = "",
    methods: str = '"none"',
    passwords: Mapping[str, str] | None = None,
    listen: Sequence[str] = ("127.0.0.1",),
    socks: str = "",
) -> AsyncIterator[Running]:
    """A relay on a free port of loopback, its users with these passwords; stopped at the end."""
    port = free_port()
    loaded = configuration(port, rules, limits, methods, passwords or {}, listen, socks)
    lines = Lines()
    relay = Relay(loaded, Records("json", lines))
    try:
        relay.start()
        yield Running(relay, port, lines)
    finally:
        await relay.stop()


def configuration(
    port: int,
    rules: str,
    limits: str,
    methods: str,
    passwords: Mapping[str, str],
    listen: Sequence[str] = ("127.0.0.1",),
    socks: str = "",
) -> Loaded:
    text = f"""\
[inside]
listen = {[f"{address}:{port}" for address in listen]}
[outside]
interface = "lo"
[auth]
methods = [{methods}]
users = "users.toml"
[socks]
{socks}
[limits]
{limits}
{rules}
"""
    users = Users(users={name: User(password=CHEAP.hash(password)) for name, password in passwords.items()})
    return Loaded(settings.parse(text, Config, "relay.toml"), users, "relay.toml", text)


@dataclass
class Answer:
    """A control reply."""

    code: int
    flags: int
    ttl: int
    tid: int
    aid: int
    blocks: bytes

    @property
    def relay(self) -> tuple[str, int]:
        """LOCAL, an IPv4 block: where to send datagrams."""
        return str(ip_address(self.blocks[1:5])), int.from_bytes(self.blocks[5:7])


def block(remote: tuple[str, int] | None) -> bytes:
    if remote is None:
        return bytes(7)
    host, port = remote
    try:
        octets = b"\1" + ip_address(host).packed
    except ValueError:
        octets = bytes((3, len(host))) + host.encode()
    return octets + port.to_bytes(2)


def request(
    command: int,
    flags: int = 0,
    remote: tuple[str, int] | None = None,
    *,
    tid: int = 1,
    aid: int = 0,
    ttl: int = 0,
    local: tuple[str, int] | None = None,
) -> bytes:
    blocks = block(local) + block(remote)
    return struct.pack("!BHBHBHI", 1, 13 + len(blocks), command, flags, ttl, tid, aid) + blocks


class Raw:
    """A client that writes octets. Closes itself at the end of `with`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def __aenter__(self) -> Raw:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def write(self, octets: bytes) -> None:
        self._writer.write(octets)

    async def read(self, count: int) -> str:
        return (await self._reader.readexactly(count)).hex()

    async def ask(self, octets: str, count: int) -> str:
        """Write octets and read so many, both in hex digits."""
        self.write(bytes.fromhex(octets))
        return await self.read(count)

    async def login(self, user: str, password: str) -> str:
        name, secret = user.encode(), password.encode()
        return await self.ask((bytes((1, len(name))) + name + bytes((len(secret),)) + secret).hex(), 2)

    def write_now(self, octets: bytes) -> None:
        """Past the event loop: the kernel has them when this returns."""
        os.write(self._writer.get_extra_info("socket").fileno(), octets)

    def finish(self) -> None:
        """Nothing more will be written; what comes is still read."""
        self._writer.write_eof()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._writer.get_extra_info("sockname")[:2]
        return host, port

    def hang_up(self) -> None:
        """At once, whatever the event loop is at."""
        self._writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def is_closed(self) -> bool:
        """The relay closes, and has nothing more to say; True for its reset too."""
        try:
            return await self._reader.read() == b""
        except ConnectionError:
            return True

    async def answer(self) -> Answer:
        head = await self._reader.readexactly(3)
        assert head[0] == 2
        rest = await self._reader.readexactly(int.from_bytes(head[1:]) - 3)
        code, flags, ttl, tid, aid = struct.unpack("!BHBHI", rest[:10])
        return Answer(code, flags, ttl, tid, aid, rest[10:])

    async def control(self, command: int, flags: int = 0, remote: tuple[str, int] | None = None, **more: Any) -> Answer:
        self.write(request(command, flags, remote, **more))
        return await self.answer()

    async def bind(self, flags: int, remote: tuple[str, int] | None, **more: Any) -> Answer:
        return await self.control(BIND, flags, remote, **more)


class Udp(asyncio.DatagramProtocol):
    """A UDP socket; `received` holds what came and from where."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.put_nowait((data, addr))

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, group: tuple[str, int] | None = None) -> AsyncIterator[Udp]:
        """On a free port of loopback, or a member of a group there."""
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(group or ("127.0.0.1", 0))
        loopback = socket.inet_aton("127.0.0.1")
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
        if group:
            member = socket.inet_aton(group[0]) + loopback
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(cls, sock=sock)
        protocol.transport = transport
        protocol.address = sock.getsockname()
        try:
            yield protocol
        finally:
            transport.close()

    transport: asyncio.DatagramTransport
    address: tuple[str, int]

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        self.transport.sendto(data, to)
