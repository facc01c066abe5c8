"""The clients' TCP side: a control channel with many associations, or UDP ASSOCIATEs, by raw sockets.

Everything is encoded before the clock runs, so that opening associations measures the relay and not this.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from benchmarks.errors import BenchmarkError
from benchmarks.lab import Host
from benchmarks.paths import Address
from mcastsocks.address import Endpoint
from mcastsocks.wire.block import encode_block, parse_block
from mcastsocks.wire.control import ControlReply, ControlRequest, Flags, UdpCommand, parse_message
from mcastsocks.wire.replies import meaning

UNICAST = Flags.RECEIVE_FROM | Flags.SEND_TO | Flags.UDP_UNICAST
GROUP_RECEIVER = Flags.RECEIVE_FROM | Flags.UDP_MULTICAST | Flags.MU_MODE

_GREETING, _NO_LOGIN = b"\x05\x01\x00", b"\x05\x00"
_ENHANCED = b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00"
_ASSOCIATE = b"\x05\x03\x00"
_REPLY_HEAD = 4  # VER REP FLAG ATYP
_HEADER = struct.Struct("!BBHI")  # RSV FRAG DGID AID
_SOCKS_HEADER = b"\x00\x00\x00"  # RSV FRAG
_BLOCK_OCTETS = {4: 7, 6: 19}
_TAKE_OCTETS = 1 << 16
_MOST = 65_535  # a TID each


@dataclass(frozen=True, slots=True)
class Opened:
    """An association: its AID, where its datagrams go inside, and the relay's end outside."""

    aid: int
    inside: Address
    outside: Address

    @property
    def header(self) -> bytes:
        return _HEADER.pack(0, 0, 0, self.aid)


@dataclass(frozen=True, slots=True)
class Channel:
    """A control channel with its associations, and how long opening them took."""

    associations: list[Opened]
    seconds: float


@contextmanager
def channel(
    host: Host, relay: Address, locals_: Sequence[Address], remotes: Sequence[Address], flags: int = UNICAST
) -> Iterator[Channel]:
    """Open an association for each pair, all requests at once; they end with the block. Raises BenchmarkError."""
    if len(locals_) > _MOST:
        raise BenchmarkError(f"one channel is asked for at most {_MOST} associations")
    requests = b"".join(
        ControlRequest(UdpCommand.BIND, tid, 0, flags, 0, _endpoint(local), _endpoint(remote)).encode()
        for tid, (local, remote) in enumerate(zip(locals_, remotes, strict=True))
    )
    with _connected(host, relay, locals_[0][0]) as sock:
        sock.sendall(_ENHANCED)
        _reply(sock, "enhanced mode")
        begun = time.perf_counter()
        sender = threading.Thread(target=sock.sendall, args=(requests,))
        sender.start()
        replies = _replies(sock, len(locals_))
        seconds = time.perf_counter() - begun
        sender.join()
        yield Channel([_opened(reply, relay) for reply in replies], seconds)


@contextmanager
def associates(host: Host, relay: Address, clients: Sequence[Address]) -> Iterator[list[Address]]:
    """A UDP ASSOCIATE with a connection of its own for each client endpoint; where each sends its datagrams."""
    with ExitStack() as stack:
        yield [_associate(stack.enter_context(_connected(host, relay, client[0])), relay, client) for client in clients]


def socks_header(destination: Address) -> bytes:
    """RFC 1928 §7."""
    return _SOCKS_HEADER + encode_block(_endpoint(destination))


def socks_header_octets(version: int) -> int:
    return len(_SOCKS_HEADER) + _BLOCK_OCTETS[version]


def _associate(sock: socket.socket, relay: Address, client: Address) -> Address:
    unspecified = "0.0.0.0" if ip_address(client[0]).version == 4 else "::"
    sock.sendall(_ASSOCIATE + encode_block(_endpoint((unspecified, client[1]))))
    bound = _reply(sock, "UDP ASSOCIATE")
    return _address(bound, relay)


def _connected(host: Host, relay: Address, local: str) -> socket.socket:
    """Logged in with no authentication."""
    sock = host.socket(ip_address(local).version, socket.SOCK_STREAM)
    try:
        sock.connect(relay)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(_GREETING)
        if (answer := _exactly(sock, 2)) != _NO_LOGIN:
            raise BenchmarkError(f"the relay answers the greeting with {answer.hex()}")
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise BenchmarkError(f"the relay at {relay[0]} port {relay[1]}: {error}") from None
        raise
    return sock


def _reply(sock: socket.socket, what: str) -> Endpoint | None:
    head = _exactly(sock, _REPLY_HEAD)
    if head[1]:
        raise BenchmarkError(f"{what}: {meaning(head[1])}")
    block = head[3:] + _exactly(sock, _BLOCK_OCTETS[6 if head[3] == 4 else 4] - 1)
    return None if not any(block[1:]) else parse_block(block)[0]


def _replies(sock: socket.socket, count: int) -> list[ControlReply]:
    """In the order of their TIDs."""
    found: dict[int, ControlReply] = {}
    buffer = bytearray()
    while len(found) < count:
        if not (octets := sock.recv(_TAKE_OCTETS)):
            raise BenchmarkError(f"the relay ended the control channel after {len(found)} of {count} replies")
        buffer += octets
        taken = 0
        while (parsed := parse_message(memoryview(buffer)[taken:])) is not None:
            reply, used = parsed
            assert isinstance(reply, ControlReply)
            found[reply.tid] = reply
            taken += used
        buffer = buffer[taken:]
    return [found[tid] for tid in range(count)]


def _opened(reply: ControlReply, relay: Address) -> Opened:
    if reply.code:
        raise BenchmarkError(f"an association was refused: {meaning(reply.code)}")
    return Opened(reply.aid, _address(reply.local, relay), _address(reply.remote, relay))


def _address(endpoint: Endpoint | None, relay: Address) -> Address:
    """An unspecified address is the relay's own."""
    if endpoint is None:
        return relay
    return (relay[0] if endpoint.address.is_unspecified else str(endpoint.host)), endpoint.port


def _endpoint(address: Address) -> Endpoint:
    return Endpoint(ip_address(address[0]), address[1])


def _exactly(sock: socket.socket, octets: int) -> bytes:
    found = b""
    while len(found) < octets:
        if not (more := sock.recv(octets - len(found))):
            raise BenchmarkError("the relay closed the connection")
        found += more
    return found
