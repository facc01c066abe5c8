"""Stand-ins for what would need a privilege, a network or a wait."""

import errno as errnos
from collections.abc import Sequence
from ipaddress import ip_address

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes.counters import Counters
from mcastsocks.planes.interface import Interface, Through
from mcastsocks.tables.changes import (
    AddEntry,
    Change,
    ChangeEntry,
    Done,
    Entry,
    Failed,
    RemoveEntry,
    Result,
    Terms,
    Traffic,
)
from mcastsocks.tables.filters import ANY_SOURCE, SourceFilter, union


class RecordingPlane:
    """A plane that moves nothing, for tests of those who give it changes.

    It keeps what a real one would, notes all changes in order, and insists on their sense: an AssertionError for
    one that a real plane could not follow. `fail` lets the next change of a kind fail, `fail_join` the next one that
    makes a receiver.
    """

    name = "recording"

    def __init__(self) -> None:
        self.changes: list[Change] = []
        """Those that took place, in order."""
        self.entries: dict[int, Entry] = {}
        self.terms: dict[int, Terms] = {}
        self.receivers: dict[Endpoint, list[int]] = {}
        """AIDs by group, oldest first; a group is here as long as a membership is held with the kernel."""
        self.memberships: list[tuple[str, Endpoint]] = []
        """Every ("join", group) and ("leave", group), in order."""
        self.moved: dict[int, Traffic] = {}
        self.taken: list[tuple[int, int, bytes]] = []
        """Channel, AID and data of every datagram that came over a control channel."""
        self.diverted: dict[int, Through] = {}
        """Where what clients send on associations with an upstream would go."""
        self.given: list[tuple[int, bytes, Endpoint | None]] = []
        """AID, data and sender of every datagram that came through an upstream."""
        self.inside: list[Endpoint] = []
        self.caught_up: list[Endpoint] = []
        self.closed = False
        self._failures: dict[type[Change], Failed] = {}
        self._failing_join: Failed | None = None
        self._outside: dict[tuple[int, SockAddr | None, int], Endpoint] = {}

    def fail(self, kind: type[Change], errno: int = errnos.ENOBUFS, why: str = "made to fail") -> None:
        """Let the next change of this kind fail, once."""
        self._failures[kind] = Failed(errno, why)

    def fail_join(self, errno: int = errnos.ENOBUFS, why: str = "made to fail") -> None:
        """Let the next change fail that makes an association a receiver of a group, once."""
        self._failing_join = Failed(errno, why)

    def admitted(self, group: Endpoint) -> SourceFilter:
        """The sources that the kernel has to let in for all receivers of a group."""
        return union(self.terms[aid].sources for aid in self.receivers[group])

    # What every plane can do (mcastsocks.planes.interface)

    def open_inside(self, endpoint: Endpoint, zone: int = 0) -> None:
        if endpoint not in self.inside:
            self.inside.append(endpoint)

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        results: list[Result] = []
        for change in changes:
            self._insist_on_sense(change)
            failure = self._failures.pop(type(change), None) or self._failure_to_join(change)
            if failure is not None:
                return [*results, failure]
            results.append(self._apply(change))
            self.changes.append(change)
        return results

    def take(self, channel: int, aid: int, data: bytes) -> None:
        assert not self.closed, "a datagram for a closed plane"
        self.taken.append((channel, aid, data))

    def divert(self, aid: int, through: Through) -> None:
        assert self.terms[aid].upstream, f"entry {aid:08x} has no upstream"
        self.diverted[aid] = through

    def give(self, aid: int, data: bytes, source: Endpoint | None) -> None:
        assert self.terms[aid].upstream, f"entry {aid:08x} has no upstream"
        self.given.append((aid, data, source))

    def renew(self, via: str, interface: Interface) -> int:
        return 0

    def renew_inside(self, interface: Interface) -> int:
        return 0

    def catch_up(self, inside: Endpoint) -> None:
        self.caught_up.append(inside)

    def traffic(self, aid: int) -> Traffic | None:
        return self.moved.get(aid)

    def associate_traffic(self, channel: int) -> Traffic | None:
        return None

    def counters(self) -> Counters:
        return Counters()

    def descriptors(self) -> int:
        return len(self.inside) + len(self._outside) + len(self.receivers)

    def close(self) -> None:
        self.closed = True

    # What makes no sense

    def _insist_on_sense(self, change: Change) -> None:
        assert not self.closed, f"{change} for a closed plane"
        match change:
            case AddEntry(entry, terms):
                assert entry.aid, "AID 0 is no association"
                assert entry.aid not in self.entries, f"entry {entry.aid:08x} added twice"
                self._insist_on_terms(entry, terms)
            case ChangeEntry(aid, terms):
                self._insist_on_terms(self._known(aid), terms)
            case RemoveEntry(aid):
                self._known(aid)

    def _insist_on_terms(self, entry: Entry, terms: Terms) -> None:
        address = entry.remote.address
        assert terms.sends or terms.receives, f"entry {entry.aid:08x} without a direction"
        if address.is_multicast:
            assert entry.remote.port, "a group without a port"
            assert not terms.sends or 1 <= terms.ttl <= 255, f"TTL {terms.ttl}"
        else:
            assert terms.ttl == 0, "a TTL for a host"
            assert terms.sources == ANY_SOURCE, "a source filter for a host"
            assert entry.remote.port or not terms.sends, "no port to send to"
        if entry.mm:
            assert address.is_multicast, "MM-mode for a host"
            assert entry.client is not None, "MM-mode over the control channel"
            assert (terms.sources, terms.reports_source) == (ANY_SOURCE, False), "MM-mode has no header"
        assert all(source.version == address.version for source in terms.sources.sources), "sources of another family"

    def _known(self, aid: int) -> Entry:
        assert aid in self.entries, f"no entry {aid:08x}"
        return self.entries[aid]

    # One change

    def _failure_to_join(self, change: Change) -> Failed | None:
        if not isinstance(change, AddEntry | ChangeEntry):
            return None
        entry = change.entry if isinstance(change, AddEntry) else self._known(change.aid)
        if not _is_receiver(entry, change.terms) or entry.aid in self.receivers.get(entry.remote, ()):
            return None
        failure, self._failing_join = self._failing_join, None
        return failure

    def _apply(self, change: Change) -> Done:
        match change:
            case AddEntry(entry, terms):
                self.moved[entry.aid] = Traffic()
                self.entries[entry.aid] = entry
                return self._become(entry, terms)
            case ChangeEntry(aid, terms):
                return self._become(self.entries[aid], terms)
            case RemoveEntry(aid):
                del self.terms[aid]
                self._stop_receiving(self.entries.pop(aid))
                self.diverted.pop(aid, None)
                return Done(traffic=self.moved.pop(aid))
        raise AssertionError(f"{change} for those who know associations alone")

    def _become(self, entry: Entry, terms: Terms) -> Done:
        self.terms[entry.aid] = terms
        if _is_receiver(entry, terms):
            self._receive(entry)
        else:
            self._stop_receiving(entry)
        return Done(self._outside_of(entry, terms))

    def _receive(self, entry: Entry) -> None:
        if entry.remote not in self.receivers:
            self.memberships.append(("join", entry.remote))
        receivers = self.receivers.setdefault(entry.remote, [])
        if entry.aid not in receivers:
            receivers.append(entry.aid)

    def _stop_receiving(self, entry: Entry) -> None:
        receivers = self.receivers.get(entry.remote, [])
        if entry.aid in receivers:
            receivers.remove(entry.aid)
            if not receivers:
                del self.receivers[entry.remote]
                self.memberships.append(("leave", entry.remote))

    def _outside_of(self, entry: Entry, terms: Terms) -> Endpoint | None:
        """One endpoint for each channel, client and IP version; none for what only receives a group."""
        if terms.upstream or (entry.remote.is_group and not terms.sends):
            return None
        version = entry.remote.address.version
        host = ip_address("203.0.113.1" if version == 4 else "2001:db8:1::1")
        key = (entry.channel, entry.client, version)
        return self._outside.setdefault(key, Endpoint(host, 50_123 + len(self._outside)))


def _is_receiver(entry: Entry, terms: Terms) -> bool:
    return terms.receives and entry.remote.is_group and not terms.upstream
