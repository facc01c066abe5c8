"""Random traffic of every kind for a plane's bench, the same for the same seed whatever the plane."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict
from ipaddress import ip_address

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr
from mcastsocks.tables.changes import (
    AddAssociate,
    AddEntry,
    Associate,
    Change,
    ChangeEntry,
    Done,
    Entry,
    RemoveAssociate,
    RemoveEntry,
    Result,
    Route,
    Terms,
)
from mcastsocks.tables.filters import ANY_SOURCE, SourceFilter
from mcastsocks.wire.block import encode_block
from mcastsocks.wire.datagram import HEADER
from tests.planes.bench import Bench
from tests.planes.stage import Stage
from tests.planes.witness import Observed, Witness

IGNORED = "127.0.0.6"
"""Another relay on the border."""

_CHANNEL = 77
_SENDERS = ("127.0.0.1", "127.0.0.4", "127.0.0.5", IGNORED)


class Traffic(Stage):
    """Clients, remotes, groups and strangers on loopback, and what they do."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self._inside_6 = Endpoint(ip_address("::1"), bench.inside.port)
        bench.plane.open_inside(self._inside_6)
        self._door = bench.free_endpoint()
        super().__init__(bench, seed, Witness(bench, (bench.inside, self._inside_6), (self._door,)))
        self._clients = self._witness.open("client", ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2", "::1", "::1"))
        self._remotes = self._witness.open("remote", ("127.0.0.1", "127.0.0.1", "127.0.0.3", "::1", "::1"))
        self._senders = self._witness.open("sender", _SENDERS)
        self._groups = [bench.group(f"239.255.66.{number}") for number in (1, 2)]
        self._members = [bench.member(group) for group in self._groups]
        for number, member in enumerate(self._members):
            self._witness.watch(member, f"member {number}")
        self._associate = self._witness.open("associate", ("127.0.0.1",))[0]
        associate = Associate(_CHANNEL, self._door, self._associate.getsockname())
        assert isinstance(bench.apply(AddAssociate(associate)), Done)
        self._entries: dict[int, Entry] = {}
        self._terms: dict[int, Terms] = {}
        self._outsides: dict[int, SockAddr] = {}
        self._ever: list[int] = []

    async def run(self, steps: int) -> Observed:
        """Do something so many times, then release everything."""
        for _ in range(3):
            self._open_association()
        ways = (
            *(self._from_clients, self._from_remotes, self._from_senders, self._over_the_channel),
            self._from_associate,
        )
        changes = (self._open_association, self._change, self._release)
        before: Callable[[], None] | None = None
        for _ in range(steps):
            step = self._random.choices((*ways, *changes), (6, 5, 4, 2, 3, 2, 2, 1))[0]
            # Otherwise a change happens to what still waits; of a group, some of that is drained in the midst of it.
            if step in ways or before == self._from_senders or self._random.random() < 0.7:
                await self._settle()
            step()
            before = step
        await self._settle()
        for aid in list(self._entries):
            self._end(aid)
        self._end_associate()
        await self._settle()
        counters = self._bench.plane.counters().as_dict()
        self._witness.observed.counters = {
            name: count for name, count in counters.items() if not name.startswith("icmp.")
        }
        self._witness.observed.settle()
        return self._witness.observed

    def sink(self, channel: int, aid: int, body: bytes) -> Sequence[int]:
        """Of the control channels. It drops by what a datagram holds, so that their order does not matter."""
        whence, data = self._witness.split_source(body) if self._terms[aid].reports_source else ("", body)
        self._witness.observed.unordered["channel", channel, aid].append((whence, data))
        return [aid] if sum(data[:4]) % 7 == 0 else []

    # Associations

    def _open_association(self) -> None:
        if len(self._entries) >= 24:
            self._release()
        choose, kind = self._random.choice, self._random.choice(("unicast", "unicast", "group", "group", "mm"))
        client = choose(self._clients)
        sockaddr: SockAddr | None = client.getsockname()
        encapsulated = kind != "mm" and self._random.random() < 0.12
        learns = self._random.random() < 0.2
        if learns and sockaddr is not None:
            sockaddr = (sockaddr[0], 0, *sockaddr[2:])
        remote = choose(self._groups) if kind != "unicast" else from_sockaddr(choose(self._remotes).getsockname())
        if kind == "unicast" and self._random.random() < 0.15:
            remote = Endpoint(remote.host, 0)
        channel, inside = self._random.randint(1, 3), self._inside_6 if ":" in client.getsockname()[0] else None
        if kind == "mm":
            sockaddr, inside = choose(self._clients[:4]).getsockname(), None
        entry = self._bench.addition(None if encapsulated else sockaddr, remote, channel, inside, mm=kind == "mm").entry
        terms = self._vary(entry)
        self._ever.append(entry.aid)
        done = self._apply(AddEntry(entry, terms))
        if isinstance(done, Done):
            self._entries[entry.aid], self._terms[entry.aid] = entry, terms
            self._note_outside(entry, done)

    def _vary(self, entry: Entry) -> Terms:
        """Other directions, TTL, sources, reports and marks; as the tables would allow."""
        random = self._random
        sends, receives = random.choice(((True, True), (True, True), (True, False), (False, True)))
        if entry.remote.port == 0:
            sends, receives = False, True
        terms = Terms(
            sends=sends,
            receives=receives,
            send_dscp=random.choice((None, None, 0, 46)),
            receive_dscp=random.choice((None, None, 0, 10)),
            via="shared" if entry.aid % 3 == 0 and not entry.remote.is_group else "",
        )
        if not entry.remote.is_group:
            return terms._replace(reports_source=random.random() < 0.2)
        terms = terms._replace(ttl=random.choice((1, 1, 7)))
        if entry.mm:
            return terms
        return terms._replace(reports_source=random.random() < 0.3, sources=self._some_sources())

    def _some_sources(self) -> SourceFilter:
        hosts = frozenset(map(ip_address, self._random.sample(_SENDERS, self._random.randint(1, 3))))
        return self._random.choice(
            (ANY_SOURCE, ANY_SOURCE, SourceFilter(True, hosts), SourceFilter(False, hosts)),
        )

    def _change(self) -> None:
        if not self._entries:
            return
        entry = self._entries[self._random.choice(list(self._entries))]
        terms = self._vary(entry)
        done = self._apply(ChangeEntry(entry.aid, terms))
        if isinstance(done, Done):
            self._terms[entry.aid] = terms
            self._note_outside(entry, done)

    def _release(self) -> None:
        if self._entries:
            self._end(self._random.choice(list(self._entries)))

    def _end(self, aid: int) -> None:
        traffic = self._bench.plane.traffic(aid)
        assert traffic is not None
        done = self._apply(RemoveEntry(aid))
        assert isinstance(done, Done)
        assert done.traffic == traffic
        moved = asdict(traffic)
        self._witness.observed.traffic[aid] = {name: value for name, value in moved.items() if "error" not in name}
        del self._entries[aid]
        self._outsides.pop(aid, None)  # its port may be somebody else's soon

    def _end_associate(self) -> None:
        done = self._apply(RemoveAssociate(_CHANNEL))
        assert isinstance(done, Done)
        assert done.traffic is not None
        self._witness.observed.traffic[0] = asdict(done.traffic)

    def ask(self, channel: int, destination: Endpoint) -> None:
        """Of the UDP ASSOCIATE: everything is allowed but one remote."""
        refused = destination == from_sockaddr(self._remotes[1].getsockname())
        done = self._apply(Route(channel, destination, None if refused else destination, refused="not-allowed"))
        if isinstance(done, Done) and done.outside is not None:
            outside = (str(done.outside.host), done.outside.port)
            self._outsides[-done.outside.address.version] = outside
            self._witness.names[outside] = "outside of the associate"

    def _apply(self, change: Change) -> Result:
        result = self._bench.apply(change)
        told = "done" if isinstance(result, Done) else errno.errorcode.get(result.errno, str(result))
        self._witness.observed.results.append(told)
        return result

    def _note_outside(self, entry: Entry, done: Done) -> None:
        if done.outside is None:
            return
        self._outsides[entry.aid] = (str(done.outside.host), done.outside.port)
        who = entry.client if entry.client is None else self._witness.names.get(entry.client, entry.client[0])
        self._witness.names[self._outsides[entry.aid]] = f"outside of {who} on {entry.channel}"

    # Datagrams

    def _from_clients(self) -> None:
        """To the relay, right and wrong."""
        client = self._random.choice(self._clients)  # of one socket of the relay's, as it may read another's first
        aids = [self._some_aid(client.family) for _ in range(self._random.choice((1, 1, 2, 5)))]
        for _ in range(self._burst()):
            aid = self._random.choice(aids)
            if self._random.random() < 0.85 and (rightful := self._clients_of(aid)):
                client = self._random.choice(rightful)
            self._send_to_relay(client, self._datagram(client, aid))
        if self._random.random() < 0.3:
            self._send_fragments(client, self._random.choice(aids))
        if self._random.random() < 0.3 and (rightful := self._clients_of(aids[0])):
            header = HEADER.pack(0, 0, self._random.randrange(1 << 16), aids[0])
            run = b"".join(header + self._witness.payload(rightful[0], f"{aids[0]}", 100) for _ in range(20))
            self._send_to_relay(rightful[0], run + header + b"end", segment=108)

    def _clients_of(self, aid: int) -> list[socket.socket]:
        """Who may use it; more than one while its port is to be learnt."""
        entry = self._entries.get(aid)
        if entry is None or entry.client is None:
            return []
        wanted = entry.client
        return [
            each
            for each in self._clients
            if each.getsockname()[0] == wanted[0] and wanted[1] in (0, each.getsockname()[1])
        ]

    def _datagram(self, client: socket.socket, aid: int) -> bytes:
        """Mostly right."""
        random, rsv, frag = self._random, 0, 0
        flaw = random.random()
        if flaw < 0.05:
            return random.randbytes(random.randint(0, 7))
        if flaw < 0.10:
            rsv = random.randint(1, 255)
        elif flaw < 0.14:
            frag = random.choice((0x80, 0x81, random.randint(1, 255)))
        elif flaw < 0.17:
            aid = random.choice((0, 1, 0xFFFFFFFF, aid ^ 1 << 31, aid ^ 0x10))
        dgid = random.choice((0, 0, random.randrange(1 << 16)))
        return HEADER.pack(rsv, frag, dgid, aid) + self._witness.payload(client, f"{aid}", self._size(65_499))

    def _send_fragments(self, client: socket.socket, aid: int) -> None:
        data = self._witness.payload(client, f"{aid}", self._random.choice((4, 40, 900)))
        dgid = self._random.randrange(1 << 16)
        count = self._random.randint(1, min(6, len(data)))
        width = -(-len(data) // count)
        pieces = [data[start : start + width] for start in range(0, len(data), width)]
        framed = [
            HEADER.pack(0, number | (0x80 if number == len(pieces) else 0), dgid, aid) + piece
            for number, piece in enumerate(pieces, 1)
        ]
        self._random.shuffle(framed)
        if self._random.random() < 0.3:
            framed.insert(0, framed[0])
        if self._random.random() < 0.2:
            framed.pop()
        for piece in framed:
            self._send_to_relay(client, piece)

    def _send_to_relay(self, client: socket.socket, octets: bytes, segment: int = 0) -> None:
        six = client.family == socket.AF_INET6
        inside = self._inside_6 if six else self._bench.inside
        self._send(client, octets, (str(inside.host), inside.port), segment)

    def _from_associate(self) -> None:
        """Each names its destination (RFC 1928 §7), some wrongly."""
        remotes = self._random.choices(self._remotes, k=3)
        for _ in range(self._burst()):
            remote, flaw = self._random.choice(remotes), self._random.random()
            client = self._clients[0] if flaw < 0.05 else self._associate
            head = bytes((0, 0, 1)) if 0.05 < flaw < 0.1 else bytes((0, flaw < 0.15, 0))
            data = self._witness.payload(client, self._witness.names[remote.getsockname()], self._size(65_000))
            octets = head + encode_block(from_sockaddr(remote.getsockname())) + data
            octets = octets[: self._random.randint(0, 9)] if 0.15 < flaw < 0.2 else octets
            self._send(client, octets, (str(self._door.host), self._door.port))

    def _from_remotes(self) -> None:
        """To outside sockets: answers, and what nobody asked for."""
        if not self._outsides:
            return
        outsides = [self._outsides[aid] for aid in self._random.choices(list(self._outsides), k=3)]
        for _ in range(self._burst()):
            self._answer(self._random.choice(outsides), self._size(65_507))
        if self._random.random() < 0.4:
            self._answer(outsides[0], 150, times=25)

    def _answer(self, outside: SockAddr, octets: int, times: int = 1) -> None:
        """One datagram, or a run of them."""
        six = ":" in outside[0]
        able = [each for each in (*self._remotes, self._senders[1]) if (each.family == socket.AF_INET6) == six]
        remote = self._random.choice(able)
        data = b"".join(self._witness.payload(remote, self._witness.names[outside], octets) for _ in range(times))
        self._send(remote, data if times == 1 else data + b"end", outside, octets if times > 1 else 0)

    def _from_senders(self) -> None:
        """To groups: from outside, and from inside without a header (MM-mode)."""
        group = self._random.choice(self._groups)
        among = [*self._senders, *self._clients[:2]]
        senders = self._random.choices(among, k=self._random.choice((1, 1, 3)))
        for _ in range(self._burst()):
            sender = self._random.choice(senders)
            data = self._witness.payload(sender, str(group.host), self._size(9_000))
            self._send(sender, data, (str(group.host), group.port))
        if self._random.random() < 0.3:
            run = b"".join(self._witness.payload(senders[0], str(group.host), 200) for _ in range(20))
            self._send(senders[0], run + b"end", (str(group.host), group.port), segment=200)

    def _over_the_channel(self) -> None:
        for _ in range(self._random.choice((1, 4))):
            aid = self._some_aid()
            entry = self._entries.get(aid)
            channel = entry.channel if entry is not None and self._random.random() < 0.9 else 9
            self._bench.plane.take(channel, aid, self._witness.payload(None, f"{aid}", self._size(65_528)))

    def _some_aid(self, family: int = 0) -> int:
        """As a rule one that lives, of those whose clients are of that family."""
        live = [aid for aid, entry in self._entries.items() if family in (0, _family_of(entry.inside))]
        ended = [aid for aid in self._ever if aid not in self._entries] or [1]
        return self._random.choice(live if live and self._random.random() < 0.95 else ended)


def _family_of(endpoint: Endpoint) -> int:
    return socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
