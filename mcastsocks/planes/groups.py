"""Groups: who receives them from outside, and who sends to them from inside in MM-mode."""

from __future__ import annotations

from dataclasses import dataclass, field

from mcastsocks.address import Endpoint
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.interface import Outside
from mcastsocks.planes.membership import Membership
from mcastsocks.tables.filters import SourceFilter
from mcastsocks.tables.tally import Tally


@dataclass(slots=True)
class Group:
    """A group that somebody receives: `receivers` by copies, `listeners` where it is multicast inside (MM-mode).

    `name` is the name of the outside, and the group.
    """

    name: tuple[str, Endpoint]
    membership: Membership
    outside: Outside
    receivers: list[Forwarding] = field(default_factory=list)
    listeners: list[Forwarding] = field(default_factory=list)
    _sources: dict[int, SourceFilter] = field(default_factory=dict)
    _filters: Tally[SourceFilter] = field(default_factory=Tally)

    def filters_with(self, aid: int, wanted: SourceFilter | None) -> set[SourceFilter]:
        """The different filters there would be if this receiver had another one, or left (None)."""
        filters, held = set(self._filters), self._sources.get(aid)
        if held is not None and self._filters[held] == 1:
            filters.discard(held)
        return filters if wanted is None else filters | {wanted}

    def note(self, forwarding: Forwarding, wanted: SourceFilter | None) -> None:
        """It has."""
        aid, places = forwarding.entry.aid, self.listeners if forwarding.entry.mm else self.receivers
        held = self._sources.pop(aid, None)
        if held is not None:
            self._filters.remove(held)
        if wanted is not None:
            self._sources[aid] = wanted
            self._filters.add(wanted)
        if wanted is not None and held is None:
            places.append(forwarding)
        elif wanted is None and held is not None:
            places.remove(forwarding)


@dataclass(slots=True)
class InsideGroup:
    """A group that clients in MM-mode send to, joined on the inside interface."""

    membership: Membership
    senders: list[Forwarding] = field(default_factory=list)

    def sender(self, host: str, port: int) -> Forwarding | None:
        """Whoever may send from there; the only proof in MM-mode is the source address (mcast §6)."""
        for forwarding in self.senders:
            client = forwarding.entry.client
            if client is not None and client[0] == host and client[1] in (0, port):
                return forwarding
        return None
