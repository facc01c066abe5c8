"""Groups: who receives them from outside, and who sends to them from inside in MM-mode."""

from __future__ import annotations

from dataclasses import dataclass, field

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.interface import ALONE, Claim, Claims, Outside
from mcastsocks.planes.membership import Membership
from mcastsocks.tables.filters import SourceFilter
from mcastsocks.tables.tally import Tally


@dataclass(slots=True)
class Group:
    """A group that somebody receives: `receivers` by copies, `listeners` where it is multicast inside (MM-mode).

    `name` is the name of the outside, and the group. `claims` are on multicasting it inside.
    """

    name: tuple[str, Endpoint]
    membership: Membership
    outside: Outside
    claims: Claims = ALONE
    receivers: list[Forwarding] = field(default_factory=list)
    listeners: list[Forwarding] = field(default_factory=list)
    _sources: dict[int, SourceFilter] = field(default_factory=dict)
    _filters: Tally[SourceFilter] = field(default_factory=Tally)
    _claim: Claim | None = None

    def goes_inside(self, source: SockAddr) -> bool:
        """Whether this worker multicasts what comes from there; what was heard inside already, nobody does."""
        if self._claim is None or not self._claim.is_ours:
            return False
        return not self.claims.is_others("heard inside", self.name, source)

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
        if self.listeners and self._claim is None:
            self._claim = self.claims.claim("multicasts inside", self.name)
        elif not self.listeners:
            self._give_up_claim()

    def close(self) -> None:
        """Nobody receives it any more; what waits in its sockets still goes where it went."""
        self.membership.close()
        self._give_up_claim()

    def _give_up_claim(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None


@dataclass(slots=True)
class InsideGroup:
    """A group that clients in MM-mode send to, joined on the inside interface. `claims` are on taking it from there."""

    name: Endpoint
    membership: Membership
    claims: Claims = ALONE
    senders: list[Forwarding] = field(default_factory=list)
    _claims: dict[int, tuple[Claim, Claim]] = field(default_factory=dict)

    def sender(self, host: str, port: int) -> Forwarding | None:
        """Whoever may send from there; the only proof in MM-mode is the source address (mcast §6)."""
        for forwarding in self.senders:
            client = forwarding.entry.client
            if client is not None and client[0] == host and client[1] in (0, port):
                return forwarding
        return None

    def is_ours(self, sender: Forwarding) -> bool:
        """Whether this worker takes what the sender sent. Who may send from any port of a host goes before others."""
        claim, _ = self._claims[sender.entry.aid]
        host, port = _at(sender)
        return claim.is_ours and not (port and self.claims.is_others("takes inside", self.name, host, 0))

    def add(self, sender: Forwarding) -> None:
        """Other workers are told who is heard inside, and what that will be seen as outside."""
        taking = self.claims.claim("takes inside", self.name, *_at(sender))
        outside = self.claims.claim("heard inside", (sender.terms.via, self.name), sender.seen_as)
        self._claims[sender.entry.aid] = taking, outside
        self.senders.append(sender)

    def remove(self, sender: Forwarding) -> None:
        self.senders.remove(sender)
        for claim in self._claims.pop(sender.entry.aid):
            claim.close()


def _at(sender: Forwarding) -> tuple[str, int]:
    client = sender.entry.client
    assert client is not None, "MM-mode is not for control channels"
    return client[0], client[1]
