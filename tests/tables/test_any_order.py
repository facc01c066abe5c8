"""Requests in any order, by several clients, to a plane that sometimes fails: what is held is what was granted."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mcastsocks.address import Endpoint, IPAddress
from mcastsocks.tables.associations import Channel, TableLimits
from mcastsocks.tables.changes import AddEntry
from mcastsocks.tables.filters import ANY_SOURCE, SourceFilter, union
from mcastsocks.wire.control import ControlRequest
from mcastsocks.wire.options import Option, OptionType, sources, sources_of
from tests.tables.desk import (
    ENC,
    GROUP,
    GROUP_V6,
    HOST,
    MAX_TTL,
    NAME,
    NONE,
    REPORT,
    Desk,
    M,
    R,
    S,
    U,
    at,
    binding,
    channel,
    releasing,
    setting_ttl,
)

Filtering = tuple[OptionType, list[tuple[IPAddress, IPAddress]]] | None
"""The kind of list, and its sources by family."""

CHANNELS = [channel(1), channel(2), channel(3, "192.0.2.20", "bob")]
LIMITS = TableLimits(associations=6, associations_per_user=4, groups=2, groups_per_user=2)
TARGETS = {HOST: HOST, GROUP: GROUP, GROUP_V6: GROUP_V6, NAME: GROUP, at("239.1.2.3", 5005): at("239.1.2.3", 5005)}

channels = st.sampled_from(CHANNELS)
directions = st.sampled_from((R, S, R | S))
ttls = st.sampled_from((1, 16, MAX_TTL, 0, MAX_TTL + 1, 255))
choices = st.integers(0, 11)
senders = st.sampled_from((1, 2, 3)).map(
    lambda last: (ip_address(f"198.51.100.{last}"), ip_address(f"2001:db8::{last}"))
)
filters = st.none() | st.tuples(
    st.sampled_from((OptionType.SOURCE_INCLUDE, OptionType.SOURCE_EXCLUDE)), st.lists(senders, min_size=1, max_size=2)
)
strangers = st.sampled_from((None, None, None, *CHANNELS))  # None: whoever holds the association


@dataclass
class Held:
    """What a client believes to hold."""

    by: Channel
    local: Endpoint | None
    remote: Endpoint
    directions: int
    ttl: int
    encapsulated: bool = False
    reports_source: bool = False
    filter: Option | None = None

    @property
    def sources(self) -> SourceFilter:
        if self.filter is None:
            return ANY_SOURCE
        return SourceFilter(self.filter.kind == OptionType.SOURCE_INCLUDE, sources_of(self.filter))

    def take_over(self, asked: Held) -> None:
        """What a granted request changes: each direction brings its own."""
        self.directions |= asked.directions
        if asked.directions & S:
            self.ttl = asked.ttl
        if asked.directions & R:
            self.reports_source, self.filter = asked.reports_source, asked.filter

    @property
    def target(self) -> Endpoint:
        return TARGETS[self.remote]

    @property
    def is_group(self) -> bool:
        return self.target.is_group


def holding(number: int) -> Callable[[Any], bool]:
    """A precondition that keeps rules from wasting their turn on an empty table."""
    return lambda machine: len(machine.held) >= number


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(LIMITS)
        self.held: dict[int, Held] = {}
        self.gone = 0x01020304  # an AID that nobody has, later the one that ended last
        self.failing: str | None = None

    # What clients do

    @rule(
        by=channels,
        remote=st.sampled_from(list(TARGETS)),
        wanted=directions,
        ttl=ttls,
        port=st.sampled_from((None, 0, 5004)),
        encapsulated=st.booleans(),
        reports=st.booleans(),
        filtering=filters,
    )
    def open(
        self,
        by: Channel,
        remote: Endpoint,
        wanted: int,
        ttl: int,
        port: int | None,
        encapsulated: bool,
        reports: bool,
        filtering: Filtering,
    ) -> None:
        local = None if port is None else Endpoint(by.peer, port)
        asked = _asked(Held(by, local, remote, wanted, 0, encapsulated), wanted, ttl, reports, filtering)
        expected = self._expected_of_bind(asked, ttl, new=True)
        reply = self.desk.ask(self._binding(asked, ttl), by)
        assert reply.code == expected
        assert (reply.aid == 0) == (reply.code != 0)
        if reply.code == 0:
            assert reply.aid not in self.held
            self.held[reply.aid] = asked

    @precondition(holding(1))
    @rule(
        choice=choices,
        stranger=strangers,
        wanted=directions,
        ttl=ttls,
        unused=st.booleans(),
        other_kind=st.sampled_from((False, False, False, True)),
        reports=st.booleans(),
        filtering=filters,
    )
    def add_a_direction(
        self,
        choice: int,
        stranger: Channel | None,
        wanted: int,
        ttl: int,
        unused: bool,
        other_kind: bool,
        reports: bool,
        filtering: Filtering,
    ) -> None:
        aid, held, by = self._choose(choice, stranger)
        asked = _asked(held or Held(by, None, HOST, wanted, 0), wanted, ttl, reports, filtering)
        asked.encapsulated ^= other_kind
        request = replace(self._binding(asked, ttl), aid=aid)
        if unused:
            request = replace(request, local=None, remote=None)
        if held is None or held.by != by:
            expected = 0x10
        elif other_kind:
            expected = 0x13
        else:
            receives_already = bool(held.directions & R)
            expected = self._expected_of_bind(asked, ttl, new=False, receives_already=receives_already)
        reply = self.desk.ask(request, by)
        assert reply.code == expected
        if held is not None and reply.code == 0:
            held.take_over(asked)

    @precondition(holding(1))
    @rule(choice=choices, stranger=strangers, given_up=st.sampled_from((R, S, R | S, NONE)))
    def release(self, choice: int, stranger: Channel | None, given_up: int) -> None:
        aid, held, by = self._choose(choice, stranger)
        if not given_up:
            expected = 0x01
        elif held is None or held.by != by:
            expected = 0x10
        else:
            expected = 0x00 if held.directions & given_up else 0x13
        reply = self.desk.ask(releasing(aid, given_up), by)
        assert (reply.code, reply.aid, reply.flags) == (expected, aid, given_up)
        if held is not None and reply.code == 0:
            held.directions &= ~given_up
            if not held.directions:
                del self.held[aid]
                self.gone = aid

    @precondition(holding(1))
    @rule(choice=choices, stranger=strangers, ttl=ttls)
    def set_ttl(self, choice: int, stranger: Channel | None, ttl: int) -> None:
        aid, held, by = self._choose(choice, stranger)
        if held is None or held.by != by:
            expected = 0x10
        elif not (held.is_group and held.directions & S):
            expected = 0x13
        else:
            expected = 0x00 if 1 <= ttl <= MAX_TTL else 0x15
        reply = self.desk.ask(setting_ttl(aid, ttl), by)
        assert (reply.code, reply.aid, reply.flags) == (expected, aid, 0)
        if held is not None and reply.code == 0:
            held.ttl = ttl

    @precondition(holding(3))
    @rule(by=channels)
    def hang_up(self, by: Channel) -> None:
        self.desk.close(by)
        self.held = {aid: held for aid, held in self.held.items() if held.by != by}

    @precondition(holding(2))
    @rule(what=st.sampled_from(("add", "join")))
    def let_the_plane_fail(self, what: str) -> None:
        if self.failing is not None:
            return
        self.failing = what
        if what == "add":
            self.desk.plane.fail(AddEntry, errno.ENOBUFS)
        else:
            self.desk.plane.fail_join(errno.ENOBUFS)

    # What must hold

    @invariant()
    def table_holds_what_was_granted(self) -> None:
        assert len(self.desk.table) == len(self.held)
        for by in CHANNELS:
            known = {association.aid: association for association in self.desk.table.of_channel(by)}
            assert list(known) == [aid for aid, held in self.held.items() if held.by == by], "oldest first"
            for aid, association in known.items():
                held = self.held[aid]
                assert (association.directions, association.target) == (held.directions, held.target)
                terms = association.terms
                assert (terms.ttl, association.is_encapsulated) == (held.ttl, held.encapsulated)
                assert (terms.sources, terms.reports_source) == (held.sources, held.reports_source)

    @invariant()
    def plane_does_what_the_table_holds(self) -> None:
        entries, known = self.desk.plane.entries, self.desk.plane.terms
        assert sorted(entries) == sorted(self.held)
        for aid, held in self.held.items():
            entry, terms = entries[aid], known[aid]
            assert (terms.receives, terms.sends) == (bool(held.directions & R), bool(held.directions & S))
            assert (entry.remote, terms.ttl, entry.client is None) == (held.target, held.ttl, held.encapsulated)
            assert (terms.sources, terms.reports_source) == (held.sources, held.reports_source)

    @invariant()
    def groups_have_exactly_their_receivers_and_one_membership_each(self) -> None:
        receiving = {aid: held.target for aid, held in self.held.items() if held.is_group and held.directions & R}
        plane = self.desk.plane
        assert {aid: group for group, aids in plane.receivers.items() for aid in aids} == receiving
        for group in set(receiving.values()):
            wanted = [self.held[aid].sources for aid in receiving if receiving[aid] == group]
            assert plane.admitted(group) == union(wanted)
        joined = [group for what, group in plane.memberships if what == "join"]
        for what, group in plane.memberships:
            if what == "leave":
                joined.remove(group)
        assert sorted(map(str, joined)) == sorted(map(str, set(receiving.values())))

    def teardown(self) -> None:
        for by in CHANNELS:
            self.desk.close(by)
        plane = self.desk.plane
        assert (len(self.desk.table), plane.entries, plane.receivers, plane.moved) == (0, {}, {}, {})
        for by in CHANNELS:
            for target in TARGETS.values():
                assert self.desk.table.full_for(by, None, target) is None

    # The model

    def _choose(self, choice: int, stranger: Channel | None) -> tuple[int, Held | None, Channel]:
        """One of the AIDs held, or one that is not, and who asks for it."""
        aid = [*self.held, self.gone][choice % (len(self.held) + 1)]
        held = self.held.get(aid)
        return aid, held, stranger or (held.by if held else CHANNELS[0])

    def _binding(self, asked: Held, ttl: int) -> ControlRequest:
        kind: int = M if asked.is_group else NONE
        kind |= ENC if asked.encapsulated else NONE if asked.is_group else U
        kind |= REPORT if asked.reports_source else NONE
        options = [asked.filter] if asked.filter is not None else []
        return binding(asked.directions | kind, asked.remote, *options, ttl=ttl, local=asked.local)

    def _expected_of_bind(self, asked: Held, ttl: int, *, new: bool, receives_already: bool = False) -> int:
        """The answer; what the plane was told to fail is used up by a BIND that reaches it."""
        if asked.is_group and asked.directions & S and not 1 <= ttl <= MAX_TTL:
            return 0x15
        if new and self._full(asked.by, asked.target):
            return 0x01
        joins = asked.is_group and asked.directions & R and not receives_already
        if (self.failing == "add" and new) or (self.failing == "join" and joins):
            self.failing = None
            return 0x01
        return 0x00

    def _full(self, by: Channel, target: Endpoint) -> bool:
        mine = [held for held in self.held.values() if held.by.account == by.account]
        if len(self.held) >= LIMITS.associations or len(mine) >= LIMITS.associations_per_user:
            return True
        if not target.is_group:
            return False
        groups = {held.target for held in self.held.values() if held.is_group}
        my_groups = {held.target for held in mine if held.is_group}
        return (target not in groups and len(groups) >= LIMITS.groups) or (
            target not in my_groups and len(my_groups) >= LIMITS.groups_per_user
        )


def _asked(held: Held, wanted: int, ttl: int, reports: bool, filtering: Filtering) -> Held:
    """A request to hold `wanted` as well; reports and filters as far as they go with it."""
    receives_group = held.is_group and wanted & R
    option = None
    if filtering is not None and receives_group:
        kind, pairs = filtering
        option = sources(kind, [pair[held.target.address.version == 6] for pair in pairs])
    return replace(
        held,
        directions=wanted,
        ttl=ttl if wanted & S and held.is_group else 0,
        reports_source=reports and bool(wanted & R),
        filter=option,
    )


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
