"""Associations by AID, who holds how many, and the limits on both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from mcastsocks.address import Endpoint, IPAddress, SockAddr
from mcastsocks.tables.aids import AidPool
from mcastsocks.tables.changes import Terms
from mcastsocks.tables.ledger import Ledger, OwnLedger
from mcastsocks.tables.tally import Counts, CountsByAccount, Tally
from mcastsocks.wire.control import Flags


@dataclass(frozen=True, slots=True)
class Channel:
    """One control channel, as far as its associations need to know it.

    `account` is what limits count by: the user, or the client's address where nobody logs in. `relay` is LOCAL of
    the replies: where the client sends its datagrams. `hosts` are further addresses that this user may have its
    datagrams at. `siblings` are the ports at the address of `inside` where other workers take datagrams.
    """

    number: int
    account: str
    peer: IPAddress
    peer_sockaddr: SockAddr
    inside: Endpoint
    relay: Endpoint
    hosts: frozenset[IPAddress] = frozenset()
    siblings: range = range(0)

    def is_own(self, endpoint: Endpoint) -> bool:
        """Whether the relay itself takes datagrams there."""
        return endpoint == self.inside or (endpoint.host == self.inside.host and endpoint.port in self.siblings)

    def may_be_at(self, address: IPAddress) -> bool:
        """Whether LOCAL may name this address: nobody aims a stream at a third party."""
        return address.is_unspecified or address == self.peer or address in self.hosts


class Grant(NamedTuple):
    """What the rules, by name, made of what was asked: terms and the highest TTL; one for all that agree in it.

    `upstream` is the name of the other relay that an association goes through; empty: directly.
    """

    terms: Terms = Terms()
    rules: tuple[str, ...] = ()
    max_ttl: int = 0
    upstream: str = ""

    @property
    def directions(self) -> int:
        return self.terms.receives * Flags.RECEIVE_FROM | self.terms.sends * Flags.SEND_TO

    def keeping(self, directions: int) -> Grant:
        """No others than these directions."""
        receives, sends = bool(directions & Flags.RECEIVE_FROM), bool(directions & Flags.SEND_TO)
        return shared(self._replace(terms=self.terms._replace(receives=receives, sends=sends)))

    def with_ttl(self, ttl: int) -> Grant:
        return shared(self._replace(terms=self.terms._replace(ttl=ttl)))


NOTHING = Grant()


@lru_cache(maxsize=4096)
def shared(grant: Grant) -> Grant:
    """The one that stands for all equal to it."""
    return grant


@dataclass(slots=True)
class Association:
    """A client's way to one remote or group; lives as long as it holds a direction (mcast §4.3)."""

    aid: int
    channel: Channel
    local: Endpoint | None  # as requested; None when unused
    remote: Endpoint  # as requested: may hold a name
    target: Endpoint  # where its datagrams go: always an address
    opened_at: float
    transport: int  # UDP-UNICAST, TCP-ENCAPSULATED, UDP-MULTICAST and the mode
    grant: Grant = NOTHING
    outside: Endpoint | None = None

    @property
    def terms(self) -> Terms:
        return self.grant.terms

    @property
    def directions(self) -> int:
        return self.grant.directions

    @property
    def is_group(self) -> bool:
        return self.target.is_group

    @property
    def is_encapsulated(self) -> bool:
        return bool(self.transport & Flags.TCP_ENCAPSULATED)

    @property
    def is_mm(self) -> bool:
        return bool(self.transport & Flags.MM_MODE)


@dataclass(frozen=True, slots=True)
class TableLimits:
    associations: int
    associations_per_user: int
    groups: int
    groups_per_user: int
    group_associations_per_user: int = 1 << 32
    local_endpoints_per_user: int = 1 << 32


class AssociationTable:
    """All associations of one process; its limits hold for all that the ledger counts."""

    def __init__(self, limits: TableLimits, aids: AidPool | None = None, ledger: Ledger | None = None) -> None:
        self.limits = limits
        self.ledger = ledger or OwnLedger()
        self._aids = aids or AidPool(limits.associations)
        self._count = 0
        self._by_channel: dict[int, dict[int, Association]] = {}
        self._held: Counts[str] = self.ledger.tally("associations")
        self._shared: dict[Endpoint, Endpoint] = {}  # one local endpoint for all associations that name it
        self._locals: Tally[tuple[int, Endpoint | None]] = Tally()
        self._locals_held: Counts[str] = self.ledger.tally("local endpoints")
        self._groups: Counts[Endpoint] = self.ledger.tally("groups")
        self._groups_held: CountsByAccount[str, Endpoint] = self.ledger.tallies("groups of accounts")

    def __len__(self) -> int:
        return self._count

    @property
    def slot_bits(self) -> int:
        """How many of an AID's lowest bits tell all associations apart."""
        return self._aids.slot_bits

    def get(self, aid: int, channel: Channel) -> Association | None:
        """The association of this AID, if it belongs to this channel."""
        return self._by_channel.get(channel.number, {}).get(aid)

    def of_channel(self, channel: Channel) -> Iterator[Association]:
        """The channel's associations, oldest first; safe against closing them on the way."""
        return iter(list(self._by_channel.get(channel.number, {}).values()))

    def full_for(self, channel: Channel, local: Endpoint | None, target: Endpoint) -> str | None:
        """Which limit an additional association would break, in words; None while there is room.

        It holds until the end of the ledger's turn.
        """
        limits, account = self.limits, channel.account
        if self._held.total >= limits.associations:
            return f"the relay is full: {limits.associations} associations"
        if self._held[account] >= limits.associations_per_user:
            return f"{account} holds {limits.associations_per_user} associations, the limit for one user"
        most = limits.local_endpoints_per_user
        if (channel.number, local) not in self._locals and self._locals_held[account] >= most:
            return f"{account} uses {most} local endpoints, the limit for one user"
        if not target.is_group:
            return None
        if not self._groups[target] and len(self._groups) >= limits.groups:
            return f"the relay is full: {limits.groups} groups"
        held = self._groups_held.count(account, target)
        if not held and self._groups_held.different(account) >= limits.groups_per_user:
            return f"{account} uses {limits.groups_per_user} groups, the limit for one user"
        if held >= limits.group_associations_per_user:
            return f"{account} has {held} associations with {target}, the limit for one user"
        return None

    def open(
        self,
        channel: Channel,
        local: Endpoint | None,
        remote: Endpoint,
        target: Endpoint,
        now: float,
        transport: int = Flags.UDP_UNICAST,
    ) -> Association:
        """A new association without a direction. Ask full_for first."""
        if local is not None:
            local = self._shared.setdefault(local, local)
        association = Association(self._aids.draw(), channel, local, remote, target, now, transport)
        self._count += 1
        self._by_channel.setdefault(channel.number, {})[association.aid] = association
        self._held.add(channel.account)
        if (channel.number, local) not in self._locals:
            self._locals_held.add(channel.account)
        self._locals.add((channel.number, local))
        if target.is_group:
            self._groups.add(target)
            self._groups_held.add(channel.account, target)
        return association

    def close(self, association: Association) -> None:
        """Forget an association; its AID rests."""
        channel, target = association.channel, association.target
        siblings = self._by_channel[channel.number]
        del siblings[association.aid]
        self._count -= 1
        if not siblings:
            del self._by_channel[channel.number]
        self._aids.give_back(association.aid)
        self._held.remove(channel.account)
        self._locals.remove((channel.number, association.local))
        if (channel.number, association.local) not in self._locals:
            self._locals_held.remove(channel.account)
            if association.local is not None:
                self._shared.pop(association.local, None)
        if target.is_group:
            self._groups.remove(target)
            self._groups_held.remove(channel.account, target)
