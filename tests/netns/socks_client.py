"""Clients of RFC 1928's own commands that know the protocol from tests.scapy_layers alone, in their namespace."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

from tests import scapy_layers as layers
from tests.netns.client import Refused
from tests.netns.lab import CLIENT, INSIDE, PORT, Host
from tests.netns.relay import PASSWORDS

RULES = """
[[rules]]
name = "desk may go out"
allow = true
users = ["@desk"]
do = ["udp", "connect", "bind"]
"""

Address = tuple[str, int]
ANY: Address = ("0.0.0.0", 0)
HEADER_OCTETS = {4: 10, 6: 22}
"""Of a datagram that names an address."""


class SocksClient:
    """One connection that has logged in; what it is for comes with its request."""

    def __init__(self, host: Host, user: str = "alice", *, address: str | None = None, version: int = 4) -> None:
        self.address = address or CLIENT[version]
        self.tcp = host.open_socket(version, socket.SOCK_STREAM)
        try:
            self.tcp.bind((self.address, 0))
            self.tcp.connect((INSIDE[version], PORT))
            self._log_in(user)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.tcp.close()

    def __enter__(self) -> SocksClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def request(self, command: str, destination: Address, flag: int = 0) -> Any:
        """The relay's first reply. Raises Refused."""
        self.tcp.sendall(bytes(layers.Request(CMD=command, FLAG=flag, DST=destination)))
        return self.read_reply()

    def connect(self, destination: Address) -> Address:
        """The address that the remote sees."""
        bound: Address = self.request("CONNECT", destination).BND.pair
        return bound

    def bind(self, expected: Address) -> Address:
        """The address that the expected peer may connect to."""
        bound: Address = self.request("BIND", expected).BND.pair
        return bound

    def read_reply(self) -> Any:
        """Raises Refused, once the relay has closed the connection as it must."""
        head = self.read(4)
        octets = head + self.read({1: 4, 4: 16}[head[3]] + 2)
        reply = layers.Reply(octets)
        assert reply.VER == 5
        if reply.REP:
            assert not self.tcp.recv(1), "a failure is the last word"
            raise Refused(int(reply.REP))
        return reply

    def read(self, octets: int) -> bytes:
        return read_exactly(self.tcp, octets)

    def _log_in(self, user: str) -> None:
        self.tcp.sendall(bytes(layers.Greeting(METHODS=[2])))
        assert self.read(2) == bytes.fromhex("0502")
        self.tcp.sendall(bytes(layers.UserpassRequest(UNAME=user, PASSWD=PASSWORDS[user])))
        assert self.read(2) == bytes.fromhex("0100")


class Associate:
    """A UDP ASSOCIATE and the socket that its client sends from; `announced` stands in the request."""

    def __init__(
        self,
        host: Host,
        *,
        announced: Address | None = ANY,
        flag: int = 0,
        address: str | None = None,
        version: int = 4,
    ) -> None:
        """`announced` None: the socket's own endpoint."""
        with ExitStack() as stack:
            self.control = stack.enter_context(SocksClient(host, address=address, version=version))
            self.udp = stack.enter_context(host.udp(self.control.address))
            self.local: Address = self.udp.getsockname()[:2]
            reply = self.control.request("UDP ASSOCIATE", announced or self.local, flag)
            self.relay: Address = reply.BND.pair
            self.flag = int(reply.FLAG)
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Associate:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def send(self, destination: Address, data: bytes, frag: int = 0) -> None:
        self.udp.sendto(datagram(destination, data, frag), self.relay)

    def send_octets(self, octets: bytes) -> None:
        self.udp.sendto(octets, self.relay)

    def receive(self) -> tuple[Address, bytes]:
        """Source and data of the next datagram, which must be whole and come from the relay."""
        source, frag, data = self.receive_piece()
        assert frag == 0
        return source, data

    def receive_piece(self) -> tuple[Address, int, bytes]:
        """The same for what may be a fragment: source, FRAG, data."""
        octets, sender = self.udp.recvfrom(70_000)
        assert sender[:2] == self.relay
        received = layers.Rfc1928Datagram(octets)
        assert received.RSV == 0
        return received.DST.pair, int(received.FRAG), bytes(received.DATA)

    def receives_nothing(self) -> bool:
        """Nothing is waiting now. Ask after something later has been seen to arrive."""
        return receives_nothing(self.udp)


def datagram(destination: Address, data: bytes, frag: int = 0) -> bytes:
    return bytes(layers.Rfc1928Datagram(FRAG=frag, DST=destination, DATA=data))


def receives_nothing(sock: socket.socket) -> bool:
    """Nothing is waiting now."""
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        sock.recv(70_000)
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(timeout)
    return False


def read_exactly(sock: socket.socket, octets: int) -> bytes:
    """Raises EOFError when the stream ends before."""
    data = bytearray()
    while len(data) < octets:
        more = sock.recv(octets - len(data))
        if not more:
            raise EOFError(f"the stream ended after {len(data)} of {octets} octets")
        data += more
    return bytes(data)
