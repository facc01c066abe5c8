"""A client that knows the protocol from tests.scapy_layers alone, in its namespace."""

from __future__ import annotations

import socket
from typing import Any

from tests import scapy_layers as layers
from tests.netns.lab import CLIENT, INSIDE, PORT, Host
from tests.netns.relay import PASSWORDS

RECEIVE, SEND, UNICAST, MULTICAST, MU, MM = 0x01, 0x02, 0x04, 0x10, 0x20, 0x40
BOTH = RECEIVE | SEND


class Refused(Exception):
    """A negotiation or request that the relay refused; `code` is what it answered."""

    def __init__(self, code: int, flags: int = 0) -> None:
        super().__init__(f"X'{code:02x}', FLAGS {flags:04x}")
        self.code, self.flags = code, flags


class RawClient:
    """A control channel and one UDP socket, both from the same address."""

    def __init__(
        self, host: Host, user: str = "alice", *, address: str | None = None, version: int = 4, enter: bool = True
    ) -> None:
        self.address = address or CLIENT[version]
        self.version = version
        self.host = host
        self.relay = (INSIDE[version], PORT)
        self.tcp = host.open_socket(version, socket.SOCK_STREAM)
        self.udp = host.udp(self.address)
        self._tid = 0
        try:
            self.tcp.bind((self.address, 0))
            self.tcp.connect(self.relay)
            self._log_in(user)
            if enter:
                self.enter()
        except BaseException:
            self.close()
            raise

    @property
    def local(self) -> tuple[str, int]:
        host, port, *_ = self.udp.getsockname()
        return host, port

    def close(self) -> None:
        self.tcp.close()
        self.udp.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def enter(self) -> None:
        """Make the connection a control channel. Raises Refused."""
        self.tcp.sendall(bytes(layers.Request(CMD=4)))
        reply = layers.Reply(self.read(10))
        if reply.REP:
            raise Refused(int(reply.REP))
        assert reply.VER == 1

    def list_features(self, flag: int = 1) -> dict[tuple[int, int], bytes]:
        """Values by tag and subtag; each stands in the list once."""
        self.tcp.sendall(bytes(layers.Request(CMD="LIST-FEATURES", FLAG=flag)))
        reply = layers.Reply(self.read(10))
        assert (reply.VER, reply.REP, reply.FLAG, reply.BND.pair) == (5, 0, flag, ("0.0.0.0", 0))
        octets = b""
        while (head := self.read(3))[0] != 0xFF:
            octets += head + self.read(head[2])
        entries = layers.FeatureList(octets + head).ENTRIES
        listed = {(each.TAG, each.SUBTAG): bytes(each.VALUE) for each in entries}
        assert head == bytes.fromhex("ff0000")
        assert len(listed) == len(entries)
        return listed

    def request(self, command: int, flags: int = 0, *, aid: int = 0, ttl: int = 0, **blocks: Any) -> Any:
        """The reply to a control request, whatever it says; blocks are LOCAL and REMOTE."""
        self._tid += 1
        message = layers.ControlRequest(UDPCMD=command, FLAGS=flags, RSVD=ttl, TID=self._tid, AID=aid, **blocks)
        self.tcp.sendall(bytes(message))
        reply = self.read_reply()
        assert (reply.TID, reply.RSVD) == (self._tid, 0)
        return reply

    def read_reply(self) -> Any:
        head = self.read(3)
        return layers.ControlReply(head + self.read(int.from_bytes(head[1:3]) - 3))

    def bind(
        self, flags: int, remote: tuple[str, int], *, aid: int = 0, ttl: int = 0, local: tuple[str, int] | None = None
    ) -> Any:
        """The reply to a UDP BIND. Raises Refused."""
        reply = self.request(5, flags, aid=aid, ttl=ttl, LOCAL=local or self.local, REMOTE=remote)
        if reply.REPLY:
            assert bytes(reply)[9:] == bytes(18), "everything behind TID is zero"
            raise Refused(int(reply.REPLY), int(reply.FLAGS))
        return reply

    def join(self, group: tuple[str, int], **options: Any) -> int:
        """The AID of a new receiver."""
        return int(self.bind(RECEIVE | MULTICAST | MU, group, **options).AID)

    def send_to_group(self, group: tuple[str, int], ttl: int = 1, **options: Any) -> int:
        """The AID of a new sender."""
        return int(self.bind(SEND | MULTICAST | MU, group, ttl=ttl, **options).AID)

    def associate(self, remote: tuple[str, int], flags: int = BOTH, **options: Any) -> int:
        return int(self.bind(flags | UNICAST, remote, **options).AID)

    def release(self, aid: int, flags: int = BOTH) -> int:
        return int(self.request(6, flags, aid=aid).REPLY)

    def send(self, aid: int, data: bytes) -> None:
        self.udp.sendto(bytes(layers.datagram(aid, data)), self.relay)

    def receive(self) -> tuple[int, bytes]:
        """AID and data of the next datagram, which must come from the relay."""
        octets, source = self.udp.recvfrom(65_535)
        assert source[:2] == self.relay
        datagram = layers.Datagram(octets)
        assert (datagram.RSV, datagram.FRAG, datagram.DGID) == (0, 0, 0)
        return datagram.AID, bytes(datagram.DATA)

    def receives_nothing(self) -> bool:
        """Nothing is waiting now. Ask after something later has been seen to arrive."""
        self.udp.setblocking(False)
        try:
            self.udp.recv(65_535)
        except BlockingIOError:
            return True
        finally:
            self.udp.settimeout(10)
        return False

    def read(self, octets: int) -> bytes:
        data = b""
        while len(data) < octets:
            more = self.tcp.recv(octets - len(data))
            if not more:
                raise EOFError("the relay closed the channel")
            data += more
        return data

    def is_closed(self) -> bool:
        """The relay ends the channel, now or soon."""
        try:
            return not self.tcp.recv(1)
        except ConnectionResetError:
            return True

    def _log_in(self, user: str) -> None:
        self.tcp.sendall(bytes(layers.Greeting(METHODS=[0, 2])))
        if (method := self.read(2)[1]) != 2:
            raise Refused(method)
        self.tcp.sendall(bytes(layers.UserpassRequest(UNAME=user, PASSWD=PASSWORDS.get(user, "wrong"))))
        if status := self.read(2)[1]:
            raise Refused(status)
