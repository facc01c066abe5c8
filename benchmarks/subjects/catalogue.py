"""Which subjects take part in a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.subjects.limits import CLoop, Direct
from benchmarks.subjects.ours import Ours
from benchmarks.subjects.peers import FORWARDERS, PEERS, Peer, named
from benchmarks.subjects.subject import Subject


@dataclass(frozen=True, slots=True)
class Choice:
    """Planes of this relay by name, peers by name and command, and, if not empty, only subjects of these names."""

    planes: Sequence[str]
    peers: dict[str, str]
    only: frozenset[str] = frozenset()

    def relays(self) -> list[Subject]:
        """All that relays unicast, with the limits."""
        return self._chosen(Direct(), CLoop(checked=False), CLoop(checked=True), *self._socks())

    def socks_relays(self) -> list[Subject]:
        return self._chosen(*self._socks())

    def forwarders(self) -> list[Subject]:
        """All that copies groups, with the bench's limit."""
        ours = [Ours(plane) for plane in self.planes]
        return self._chosen(Direct(), *ours, *FORWARDERS.values())

    def _socks(self) -> list[Ours | Peer]:
        ours = [Ours(plane, rfc1928=rfc1928) for rfc1928 in (False, True) for plane in self.planes]
        known = [peer for name, peer in PEERS.items() if name not in self.peers]
        return [*ours, *known, *(named(name, command) for name, command in self.peers.items())]

    def _chosen(self, *subjects: Subject) -> list[Subject]:
        return [subject for subject in subjects if not self.only or subject.name in self.only]
