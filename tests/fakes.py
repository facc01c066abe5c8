"""Stand-ins for what would need a privilege, a network or a wait."""

import errno as errnos
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes.counters import Counters
from mcastsocks.tables.changes import (
    AddEntry,
    AddReceiver,
    Change,
    ChangeEntry,
    Done,
    Entry,
    Failed,
    RemoveEntry,
    RemoveReceiver,
    Result,
    Traffic,
)


class RecordingPlane:
    """A plane that moves nothing, for tests of those who give it changes.

    It keeps what a real one would, notes all changes in order, and insists on their sense: an AssertionError for
    one that a real plane could not follow. `fail` lets the next change of a kind fail.
    """

    name = "recording"

    def __init__(self) -> None:
        self.changes: list[Change] = []
        """Those that took place, in order."""
        self.entries: dict[int, Entry] = {}
        self.receivers: dict[Endpoint, list[int]] = {}
        """AIDs by group, oldest first; a group is here as long as a membership is held with the kernel."""
        self.memberships: list[tuple[str, Endpoint]] = []
        """Every ("join", group) and ("leave", group), in order."""
        self.moved: dict[int, Traffic] = {}
        self.inside: list[Endpoint] = []
        self.closed = False
        self._failures: dict[type[Change], Failed] = {}
        self._outside: dict[tuple[int, SockAddr, int], Endpoint] = {}

    def fail(self, kind: type[Change], errno: int = errnos.ENOBUFS, why: str = "made to fail") -> None:
        """Let the next change of this kind fail, once."""
        self._failures[kind] = Failed(errno, why)

    # What every plane can do (mcastsocks.planes.interface)

    def open_inside(self, endpoint: Endpoint, zone: int = 0) -> None:
        if endpoint not in self.inside:
            self.inside.append(endpoint)

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        results: list[Result] = []
        for change in changes:
            failure = self._failures.pop(type(change), None)
            if failure is not None:
                return [*results, failure]
            results.append(self._apply(change))
            self.changes.append(change)
        return results

    def traffic(self, aid: int) -> Traffic | None:
        return self.moved.get(aid)

    def counters(self) -> Counters:
        return Counters()

    def descriptors(self) -> int:
        return len(self.inside) + len(self._outside) + len(self.receivers)

    def close(self) -> None:
        self.closed = True

    # One change

    def _apply(self, change: Change) -> Done:
        assert not self.closed, f"{change} for a closed plane"
        match change:
            case AddEntry(entry):
                return self._add(entry)
            case ChangeEntry(aid, sends, receives, ttl):
                entry = replace(self._known(aid), sends=sends, receives=receives, ttl=ttl)
                self.entries[aid] = entry
                return Done(self._outside_of(entry))
            case RemoveEntry(aid):
                entry = self._known(aid)
                assert aid not in self.receivers.get(entry.remote, ()), f"entry {aid:08x} removed, still a receiver"
                del self.entries[aid]
                return Done(traffic=self.moved.pop(aid))
            case AddReceiver(aid):
                return self._add_receiver(aid, self._known(aid).remote)
            case RemoveReceiver(aid):
                return self._remove_receiver(aid, self._known(aid).remote)

    def _known(self, aid: int) -> Entry:
        assert aid in self.entries, f"no entry {aid:08x}"
        return self.entries[aid]

    def _add(self, entry: Entry) -> Done:
        assert entry.aid not in self.entries, f"entry {entry.aid:08x} added twice"
        assert entry.aid, "AID 0 is no association"
        self.entries[entry.aid] = entry
        self.moved[entry.aid] = Traffic()
        return Done(self._outside_of(entry))

    def _outside_of(self, entry: Entry) -> Endpoint | None:
        """One endpoint for each channel, client and IP version; none for what only receives a group."""
        if entry.remote.is_group and not entry.sends:
            return None
        version = entry.remote.address.version
        host = ip_address("203.0.113.1" if version == 4 else "2001:db8:1::1")
        key = (entry.channel, entry.client, version)
        return self._outside.setdefault(key, Endpoint(host, 50_123 + len(self._outside)))

    def _add_receiver(self, aid: int, group: Endpoint) -> Done:
        assert group.is_group, f"{group} is no group"
        if group not in self.receivers:
            self.memberships.append(("join", group))
        receivers = self.receivers.setdefault(group, [])
        assert aid not in receivers, f"receiver {aid:08x} added twice"
        receivers.append(aid)
        return Done()

    def _remove_receiver(self, aid: int, group: Endpoint) -> Done:
        assert aid in self.receivers.get(group, ()), f"{aid:08x} is no receiver of {group}"
        self.receivers[group].remove(aid)
        if not self.receivers[group]:
            del self.receivers[group]
            self.memberships.append(("leave", group))
        return Done()
