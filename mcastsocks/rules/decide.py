"""Compiled rules, and the one question they answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mcastsocks.address import IPAddress
from mcastsocks.rules.model import GROUP_ACTIONS, Action, IPNetwork, PortRange, Rule
from mcastsocks.rules.networks import Networks
from mcastsocks.rules.protected import Protected, never_crosses

DEFAULT = "default"
"""The rule that denies what no other rule speaks of."""


@dataclass(frozen=True, slots=True)
class Query:
    """May this user, from here, do this to that address and port?

    `name` is what the client asked for when it asked by name; `address` is always one that it resolved to. Port 0
    means any port of that address.
    """

    user: str | None
    client: IPAddress
    action: Action
    address: IPAddress
    port: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer, the rule that gave it, that rule's limits, and where and how it sends."""

    allowed: bool
    rule: str
    reason: str
    max_ttl: int = 0
    modes: tuple[str, ...] = ("mu",)
    via: str = ""
    dscp: int | None = None
    upstream: str = ""
    require: str = ""


@dataclass(frozen=True, slots=True)
class _Compiled:
    verdict: Verdict
    users: frozenset[str] | None
    clients: Networks | None
    actions: frozenset[Action] | None
    groups: Networks | None
    destinations: Networks | None
    names: frozenset[str]
    suffixes: tuple[str, ...]
    ports: tuple[PortRange, ...] | None

    def could_allow(self, user: str | None, client: IPAddress, actions: frozenset[Action]) -> bool:
        return (
            self.verdict.allowed
            and (self.actions is None or not self.actions.isdisjoint(actions))
            and (self.users is None or user in self.users)
            and (self.clients is None or client in self.clients)
        )

    def matches(self, query: Query, protected: Sequence[IPNetwork]) -> bool:
        if self.actions is not None and query.action not in self.actions:
            return False
        if self.users is not None and query.user not in self.users:
            return False
        if self.clients is not None and query.client not in self.clients:
            return False
        if self.ports is not None and not self._covers(query.port, self.ports):
            return False
        is_group = query.action in GROUP_ACTIONS
        return self._reaches(query, self.groups if is_group else self.destinations, is_group, protected)

    def _covers(self, port: int, ranges: Iterable[PortRange]) -> bool:
        """Any port (0) is allowed only by a rule for all of them, and denied by a rule for one of them."""
        if port == 0:
            return not self.verdict.allowed or (1, 65_535) in ranges
        return any(low <= port <= high for low, high in ranges)

    def _reaches(self, query: Query, networks: Networks | None, is_group: bool, protected: Sequence[IPNetwork]) -> bool:
        if self.verdict.allowed and protected:
            return any(
                query.address in network and all(_inside(network, wider) for wider in protected)
                for network in networks or ()
            )
        if networks is None:
            return True
        return query.address in networks or (not is_group and self._names(query.name))

    def _names(self, name: str | None) -> bool:
        if name is None:
            return False
        name = name.lower().rstrip(".")
        return name in self.names or name.endswith(self.suffixes)


class Ruleset:
    """Rules in the order they were written: the first that matches decides, and the default is to deny."""

    def __init__(
        self,
        rules: Iterable[Rule],
        teams: Mapping[str, Iterable[str]] | None = None,
        protected: Protected | None = None,
        via: str = "",
    ) -> None:
        """`via` is the outside that rules take which name none."""
        self.rules = tuple(rules)
        self._protected = protected or Protected()
        self._compiled = [_compile(rule, teams or {}, via) for rule in self.rules]

    def protect(self, protected: Protected) -> None:
        """Other ranges from now on: this host's addresses have changed."""
        self._protected = protected

    def may_ever(self, user: str | None, client: IPAddress, actions: frozenset[Action]) -> bool:
        """Whether any rule allows this user, from here, one of the actions at all."""
        return any(rule.could_allow(user, client, actions) for rule in self._compiled)

    def decide(self, query: Query) -> Verdict:
        if never_crosses(query.address):
            return Verdict(False, DEFAULT, f"{query.address} never crosses: its scope is one interface")
        protected = list(self._protected.ranges_of(query.address))
        for rule in self._compiled:
            if rule.matches(query, protected):
                return rule.verdict
        what = f"no rule allows {query.action} {query.address} port {query.port}"
        if protected:
            what += f" ({protected[0]} is protected: a rule must name it or a part of it)"
        return Verdict(False, DEFAULT, what)


def _compile(rule: Rule, teams: Mapping[str, Iterable[str]], via: str) -> _Compiled:
    users: set[str] = set()
    for user in rule.users or ():
        users.update(teams.get(user[1:], ()) if user.startswith("@") else (user,))
    destinations = rule.to or ()
    names = [item for item in destinations if isinstance(item, str)]
    reason = f"allowed by rule {rule.name!r}" if rule.allow else f"rule {rule.name!r} denies it"
    return _Compiled(
        Verdict(
            rule.allow,
            rule.name,
            reason,
            rule.max_ttl,
            tuple(rule.modes),
            rule.via or via,
            rule.dscp,
            rule.upstream or "",
            rule.require or "",
        ),
        frozenset(users) if rule.users is not None else None,
        Networks(rule.clients) if rule.clients is not None else None,
        frozenset(rule.do) if rule.do is not None else None,
        Networks(rule.groups) if rule.groups is not None else None,
        Networks(item for item in destinations if not isinstance(item, str)) if rule.to is not None else None,
        frozenset(name for name in names if not name.startswith("*.")),
        tuple(name[1:] for name in names if name.startswith("*.")),
        tuple(rule.ports) if rule.ports is not None else None,
    )


def _inside(network: IPNetwork, wider: IPNetwork) -> bool:
    return network.version == wider.version and network.subnet_of(wider)  # type: ignore[arg-type]
