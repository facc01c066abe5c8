"""What a granted UDP BIND says and does, how directions are added, and what remains when a plane fails."""

import errno
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.tables.aids import AidPool
from mcastsocks.tables.associations import AssociationTable
from mcastsocks.tables.changes import AddEntry, Change, ChangeEntry, Entry, Terms
from mcastsocks.wire.control import ControlReply, ControlRequest, parse_message
from mcastsocks.wire.options import Option, reason
from mcastsocks.wire.replies import ReplyCode
from tests.tables.desk import (
    ENC,
    EXT,
    GROUP,
    GROUP_V6,
    HOST,
    LOCAL,
    MAX_TTL,
    MM,
    MU,
    NAME,
    PEER,
    RELAY,
    REPORT,
    ROOMY,
    Desk,
    M,
    R,
    S,
    U,
    at,
    binding,
    channel,
    conforms,
    excluding,
    including,
    kinds,
)
from tests.vectors import octets


class OneAid(AidPool):
    """Draws the AID of the vectors."""

    def __init__(self, aid: int) -> None:
        super().__init__(1, Random(0))
        self.aid = aid

    def draw(self) -> int:
        return self.aid


def test_the_recording_plane_is_a_plane() -> None:
    assert conforms(Desk().plane).name == "recording"


# --- success ---


def test_bind_is_granted_in_the_golden_octets() -> None:
    desk = Desk()
    desk.table = AssociationTable(ROOMY, OneAid(0xDEADBEEF))
    parsed = parse_message(octets("UDP BIND unicast both ways"))
    assert parsed is not None
    assert isinstance(parsed[0], ControlRequest)
    assert desk.ask(parsed[0]).encode() == octets("UDP BIND reply")


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (R | M, R | M | MU),
        (R | M | MU, R | M | MU),
        (R | M | MU | MM, R | M | MU),  # both bits: no preference
        (R | M | U, R | M | MU),  # UDP-UNICAST as a wish for MU-mode
        (R | M | U | MM, R | M | MU),  # a wish for each, so none
        (R | S | M, R | S | M | MU),
        (S | M, S | M | MU),
        (R | U, R | U),
        (R | S | U, R | S | U),
    ],
)
def test_flags_of_a_success_are_what_was_granted(asked: int, granted: int) -> None:
    reply = Desk().ask(binding(asked, GROUP if asked & M else HOST, ttl=1))
    assert (reply.code, reply.flags) == (ReplyCode.SUCCEEDED, granted)


@pytest.mark.parametrize(
    ("flags", "remote", "replied"),
    [
        (R | M, GROUP, GROUP),
        (S | M, GROUP, GROUP),
        (R | M, GROUP_V6, GROUP_V6),
        (R | M, NAME, GROUP),
        (R | M, at("::ffff:239.1.2.3", 5004), GROUP),
        (R | S | U, HOST, at("203.0.113.1", 50_123)),
        (R | U, HOST, at("203.0.113.1", 50_123)),
        (S | U, at("2001:db8::53", 53), at("2001:db8:1::1", 50_123)),  # of another family than LOCAL
    ],
)
def test_success_names_where_to_send_and_who_sends_outside(flags: int, remote: Endpoint, replied: Endpoint) -> None:
    reply = Desk().ask(binding(flags, remote, ttl=1))
    assert reply.aid
    assert reply == ControlReply(0, 0x0102, reply.aid, reply.flags, local=RELAY, remote=replied)


@pytest.mark.parametrize(
    ("local", "peer", "client"),
    [
        (LOCAL, PEER, (PEER, 5004)),
        (None, PEER, (PEER, 0)),  # to be learnt
        (at(PEER, 0), PEER, (PEER, 0)),
        (at("0.0.0.0", 0), PEER, (PEER, 0)),
        (at("0.0.0.0", 5004), PEER, (PEER, 5004)),
        (at(f"::ffff:{PEER}", 5004), PEER, (PEER, 5004)),
        (at("fe80::10", 5004), "fe80::10", ("fe80::10", 5004, 0, 7)),  # with the zone of the connection
        (None, "fe80::10", ("fe80::10", 0, 0, 7)),
    ],
)
def test_plane_is_told_where_the_client_is(local: Endpoint | None, peer: str, client: tuple[Any, ...]) -> None:
    desk, by = Desk(), channel(9, peer)
    association = desk.opened(binding(R | S | U, HOST, local=local), by)
    expected = Entry(association.aid, 9, by.inside, client, HOST)
    assert desk.plane.changes == [AddEntry(expected, Terms(sends=True, receives=True))]


def test_one_change_says_all_of_a_new_association() -> None:
    desk = Desk()
    association = desk.opened(binding(R | S | M, ttl=16))
    entry = Entry(association.aid, 1, RELAY, (PEER, 5004), GROUP)
    assert desk.plane.changes == [AddEntry(entry, Terms(sends=True, receives=True, ttl=16))]


@pytest.mark.parametrize(
    ("flags", "remote", "joined"),
    [(R | M, GROUP, True), (R | S | M, GROUP, True), (S | M, GROUP, False), (R | U, HOST, False)],
)
def test_only_who_receives_a_group_is_a_receiver(flags: int, remote: Endpoint, joined: bool) -> None:
    desk = Desk()
    association = desk.opened(binding(flags, remote, ttl=1))
    assert desk.plane.receivers == ({remote: [association.aid]} if joined else {})


def test_second_receiver_keeps_one_kernel_membership() -> None:
    desk, bob = Desk(), channel(2, "192.0.2.20", "bob")
    first = desk.opened(binding())
    second = desk.opened(binding(remote=NAME, local=None), bob)
    assert desk.plane.receivers == {GROUP: [first.aid, second.aid]}
    assert desk.plane.memberships == [("join", GROUP)]
    desk.close(channel())
    assert desk.plane.memberships == [("join", GROUP)]
    desk.close(bob)
    assert desk.plane.memberships == [("join", GROUP), ("leave", GROUP)]


def test_same_group_may_be_bound_twice_on_one_channel() -> None:
    desk = Desk()
    first, second = desk.opened(binding()), desk.opened(binding(local=at(PEER, 5005)))
    assert first.aid != second.aid
    assert desk.plane.receivers == {GROUP: [first.aid, second.aid]}


def test_association_remembers_what_was_asked_and_where_it_goes() -> None:
    desk = Desk()
    desk.now = 12.5
    association = desk.opened(binding(R | S | M, NAME, ttl=3))
    assert (association.local, association.remote, association.target) == (LOCAL, NAME, GROUP)
    assert (association.opened_at, association.terms.ttl, association.grant.max_ttl) == (12.5, 3, MAX_TTL)
    assert association.grant.rules == ("rules[0]",)


def test_rules_that_granted_something_are_noted_once_each() -> None:
    desk = Desk()
    association = desk.opened(binding(R | M))
    desk.rule = "rules[3]"
    desk.ask(binding(S | M, aid=association.aid, ttl=1))
    desk.ask(binding(R | S | M, aid=association.aid, ttl=1))
    assert association.grant.rules == ("rules[0]", "rules[3]")


# --- adding a direction ---


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        (R | M, S | M),
        (R | M, R | S | M),
        (R | M, R | M),
        (S | M, R | M),
        (S | M, R | S | M),
        (S | M, S | M),
        (R | S | M, R | S | M),
        (R | U, S | U),
        (S | U, R | U),
        (R | S | U, R | U),
        (R | ENC, S | ENC),
        (S | M | ENC, R | M | ENC),
    ],
)
def test_direction_is_added_to_those_held(held: int, asked: int) -> None:
    desk = Desk()
    remote = GROUP if held & M else HOST
    association = desk.opened(binding(held, remote, ttl=7))
    desk.plane.changes.clear()
    reply = desk.ask(binding(asked, remote, aid=association.aid, ttl=9))

    assert (reply.code, reply.aid, reply.local) == (0x00, association.aid, RELAY)
    assert reply.remote == (GROUP if held & M else at("203.0.113.1", 50_123))
    assert reply.flags & (R | S) == asked & (R | S)
    assert kinds(desk.plane.changes) == ["ChangeEntry"]
    assert association.directions == (held | asked) & (R | S)
    assert desk.plane.terms[association.aid] == association.terms
    receives_group = bool(held & M and (held | asked) & R)
    assert desk.plane.receivers == ({GROUP: [association.aid]} if receives_group else {})
    assert desk.plane.memberships == [("join", GROUP)] * receives_group
    assert len(desk.table) == 1


@pytest.mark.parametrize(("asked", "ttl", "expected"), [(S | M, 9, 9), (R | S | M, 9, 9), (R | M, 9, 7), (R | M, 0, 7)])
def test_a_bind_to_send_replaces_the_ttl_and_one_to_receive_does_not(asked: int, ttl: int, expected: int) -> None:
    desk = Desk()
    association = desk.opened(binding(S | M, ttl=7))
    assert desk.ask(binding(asked, aid=association.aid, ttl=ttl)).code == 0x00
    assert (association.terms.ttl, desk.plane.terms[association.aid].ttl) == (expected, expected)


@pytest.mark.parametrize("unused", [None, at("0.0.0.0", 0), at("::", 0), at("::ffff:0.0.0.0", 0)])
@pytest.mark.parametrize(
    ("held", "asked", "local", "remote"),
    [(R | M, S | M, LOCAL, GROUP), (R | M, S | M, None, NAME), (R | U, S | U, at(PEER, 0), HOST)],
)
def test_both_blocks_unused_stand_for_the_addresses_held(
    unused: Endpoint | None, held: int, asked: int, local: Endpoint | None, remote: Endpoint
) -> None:
    desk = Desk()
    association = desk.opened(binding(held, remote, local=local))
    reply = desk.ask(binding(asked, unused, aid=association.aid, ttl=1, local=unused))
    assert (reply.code, reply.aid, association.directions) == (0x00, association.aid, R | S)


@pytest.mark.parametrize(("local", "remote", "code"), [(None, GROUP, 0x13), (LOCAL, None, 0x09)])
def test_one_block_unused_stands_for_nothing(local: Endpoint | None, remote: Endpoint | None, code: int) -> None:
    desk = Desk()
    association = desk.opened(binding())
    assert desk.ask(binding(S | M, remote, aid=association.aid, ttl=1, local=local)).code == code


def test_both_blocks_unused_are_no_addresses_for_a_new_association() -> None:
    assert Desk().ask(binding(remote=None, local=None)).code == 0x09


def test_checks_see_the_addresses_that_unused_blocks_stand_for() -> None:
    desk = Desk()
    any_port = desk.opened(binding(R | U, at("198.51.100.7", 0)))
    assert desk.ask(binding(S | U, None, aid=any_port.aid, local=None)).code == 0x09
    assert desk.ask(binding(S | M, None, aid=any_port.aid, ttl=1, local=None)).code == 0x09
    host = desk.opened(binding(R | U, HOST))
    assert desk.ask(binding(S | M, None, aid=host.aid, ttl=1, local=None)).code == 0x14


@pytest.mark.parametrize(
    ("local", "remote"),
    [
        (LOCAL, at("239.1.2.3", 5005)),
        (LOCAL, at("239.1.2.4", 5004)),
        (LOCAL, at("ff15::1234", 5004)),
        (LOCAL, NAME),
        (at(PEER, 5005), GROUP),
        (at(PEER, 0), GROUP),
        (None, GROUP),
    ],
)
def test_other_addresses_are_a_bad_context(local: Endpoint | None, remote: Endpoint) -> None:
    desk = Desk()
    association = desk.opened(binding())
    reply = desk.ask(binding(S | M, remote, aid=association.aid, ttl=1, local=local))
    assert (reply.code, association.directions) == (0x13, R)


def test_a_name_is_compared_as_first_requested_and_not_resolved_again() -> None:
    desk = Desk()
    association = desk.opened(binding(R | M, NAME))
    desk.names["group.example"] = at("239.99.99.99", 0).address
    assert desk.ask(binding(S | M, NAME, aid=association.aid, ttl=1)).remote == GROUP
    assert desk.ask(binding(S | M, GROUP, aid=association.aid, ttl=1)).code == 0x13
    assert desk.ask(binding(S | M, at("GROUP.example", 5004), aid=association.aid, ttl=1)).code == 0x13


@pytest.mark.parametrize(("first", "second"), [("::ffff:239.1.2.3", "239.1.2.3"), ("239.1.2.3", "::ffff:239.1.2.3")])
def test_v4_mapped_addresses_are_the_same_in_every_comparison(first: str, second: str) -> None:
    desk = Desk()
    association = desk.opened(binding(R | M, at(first, 5004), local=at(f"::ffff:{PEER}", 5004)))
    assert association.target == GROUP
    assert desk.ask(binding(S | M, at(second, 5004), aid=association.aid, ttl=1)).code == 0x00


def test_added_direction_is_not_held_up_by_limits_on_new_associations() -> None:
    desk = Desk(replace(ROOMY, associations=1, groups=1))
    association = desk.opened(binding())
    assert desk.ask(binding()).code == 0x01
    assert desk.ask(binding(S | M, aid=association.aid, ttl=1)).code == 0x00


# --- a plane that fails ---


def state(desk: Desk) -> tuple[Any, ...]:
    """All that a failure must leave as it was."""
    held = [replace(association) for association in desk.table.of_channel(channel())]
    receivers = {group: list(aids) for group, aids in desk.plane.receivers.items()}
    return held, dict(desk.plane.entries), receivers, list(desk.plane.memberships), list(desk.plane.changes)


def test_a_failed_join_opens_nothing_and_is_a_general_failure() -> None:
    desk = Desk()
    before = state(desk)
    desk.plane.fail_join(errno.ENETUNREACH)
    assert desk.ask(binding()) == ControlReply(0x01, 0x0102)
    assert (len(desk.table), state(desk)) == (0, before)
    assert desk.ask(binding()).code == 0x00


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENETUNREACH, 0x03),
        (errno.EHOSTUNREACH, 0x04),
        (errno.EAFNOSUPPORT, 0x08),
        (errno.EMFILE, 0x01),
        (0, 0x01),
    ],
)
@pytest.mark.parametrize("transport", [U, ENC])
def test_a_host_that_cannot_be_reached_is_told_by_its_code(number: int, code: int, transport: int) -> None:
    desk = Desk()
    desk.plane.fail(AddEntry, number)
    assert desk.ask(binding(R | S | transport, HOST)) == ControlReply(code, 0x0102)
    assert (len(desk.table), desk.plane.changes, desk.plane.entries) == (0, [], {})


def test_reason_of_a_plane_that_failed_is_told_to_who_knows_of_options() -> None:
    desk = Desk()
    desk.plane.fail_join(errno.ENOBUFS, "the kernel's limit: igmp_max_memberships")
    reply = desk.ask(binding(R | M | EXT))
    assert reply.options == (reason("general failure: the kernel's limit: igmp_max_memberships"),)
    assert (reply.code, reply.aid, reply.flags) == (0x01, 0, EXT)


def fail_change(desk: Desk) -> None:
    desk.plane.fail(ChangeEntry)


def fail_join(desk: Desk) -> None:
    desk.plane.fail_join()


@pytest.mark.parametrize(
    ("fail", "held", "asked", "options"),
    [
        (fail_change, R | M, S | M, ()),
        (fail_change, S | M, R | S | M, ()),
        (fail_change, R | S | M, R | S | M | REPORT, (excluding("198.51.100.9"),)),
        (fail_change, R | U, S | U, ()),
        (fail_join, S | M, R | M, ()),
        (fail_join, S | M, R | S | M | REPORT, (including("198.51.100.9"),)),
    ],
)
def test_what_cannot_be_changed_leaves_everything_as_it_was(
    fail: Callable[[Desk], None], held: int, asked: int, options: tuple[Option, ...]
) -> None:
    desk = Desk()
    remote = GROUP if held & M else HOST
    association = desk.opened(binding(held, remote, ttl=7))
    desk.rule = "rules[3]"
    desk.max_ttl = 99
    before = state(desk)
    request = binding(asked, remote, *options, aid=association.aid, ttl=9)
    fail(desk)
    reply = desk.ask(request)
    assert replace(reply, options=()) == ControlReply(0x01, 0x0102, flags=EXT if options else 0)
    assert state(desk) == before
    assert desk.ask(request).code == 0x00
    assert state(desk) != before


@pytest.mark.parametrize("kind", [AddEntry, ChangeEntry])
def test_success_takes_one_change(kind: type[Change]) -> None:
    desk = Desk()
    association = desk.opened(binding())
    if kind is ChangeEntry:
        desk.plane.changes.clear()
        assert desk.ask(binding(S | M, aid=association.aid, ttl=1)).code == 0x00
    assert kinds(desk.plane.changes) == [kind.__name__]
