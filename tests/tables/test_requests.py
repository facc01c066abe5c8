"""UDP RELEASE and SET TTL, whose replies echo what they were asked."""

from dataclasses import replace

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.errors import LocalError, WireError
from mcastsocks.tables import requests
from mcastsocks.tables.associations import Association, AssociationTable
from mcastsocks.tables.changes import ChangeEntry, Done, Failed, RemoveEntry, Traffic
from mcastsocks.wire.control import ControlReply, ControlRequest, parse_message
from mcastsocks.wire.replies import ReplyCode
from tests.tables.desk import (
    GROUP,
    HOST,
    MAX_TTL,
    NONE,
    ROOMY,
    Desk,
    M,
    R,
    S,
    U,
    binding,
    channel,
    kinds,
    releasing,
    setting_ttl,
)
from tests.tables.test_bind import OneAid
from tests.vectors import octets

NOBODYS = 0x01020304


def golden(name: str) -> ControlRequest:
    parsed = parse_message(octets(name))
    assert parsed is not None
    assert isinstance(parsed[0], ControlRequest)
    return parsed[0]


def desk_of_the_vectors() -> Desk:
    """With the association 01020304, which receives from and sends to a group."""
    desk = Desk()
    desk.table = AssociationTable(ROOMY, OneAid(NOBODYS))
    desk.opened(binding(R | S | M, ttl=1))
    return desk


# --- RELEASE ---


def test_release_is_answered_in_the_golden_octets() -> None:
    asked = golden("UDP RELEASE both directions")
    desk = desk_of_the_vectors()
    assert desk.ask(asked).encode() == octets("reply: released")
    assert desk.ask(asked).encode() == octets("reply: RELEASE of an unknown AID echoes it")


def test_short_form_of_release_is_the_same_request() -> None:
    desk = desk_of_the_vectors()
    assert desk.ask(golden("UDP RELEASE short form, SIZE 13")) == ControlReply(0x00, 18, NOBODYS, 3)
    assert len(desk.table) == 0


@pytest.mark.parametrize(
    ("held", "asked", "code", "kept"),
    [
        (R | S, R, 0x00, S),
        (R | S, S, 0x00, R),
        (R | S, R | S, 0x00, NONE),
        (R, R, 0x00, NONE),
        (S, S, 0x00, NONE),
        (R, R | S, 0x00, NONE),  # both named, one held
        (S, R | S, 0x00, NONE),
        (R, S, 0x13, R),
        (S, R, 0x13, S),
        (R | S, NONE, 0x01, R | S),
        (R, NONE, 0x01, R),
    ],
)
@pytest.mark.parametrize("kind", [M, U])
@pytest.mark.parametrize("more", [0, U | M, 0x4080], ids=hex)
def test_release_gives_up_the_directions_named_and_echoes_its_flags(
    held: int, asked: int, code: int, kept: int, kind: int, more: int
) -> None:
    desk = Desk()
    association = desk.opened(binding(held | kind, GROUP if kind == M else HOST, ttl=1))
    reply = desk.ask(releasing(association.aid, asked | more))
    assert reply == ControlReply(code, 0x0304, association.aid, asked | more)
    if kept:
        entry = desk.plane.entries[association.aid]
        assert association.directions == kept
        assert (entry.receives, entry.sends) == (bool(kept & R), bool(kept & S))
    else:
        assert (len(desk.table), desk.plane.entries, desk.plane.receivers) == (0, {}, {})


@pytest.mark.parametrize(
    ("kept", "changes"),
    [
        (S, ["RemoveReceiver", "ChangeEntry"]),
        (R, ["ChangeEntry"]),
        (NONE, ["RemoveReceiver", "RemoveEntry"]),
        (R | S, ["ChangeEntry"]),
    ],
)
def test_receiver_is_removed_exactly_when_its_direction_ends(kept: int, changes: list[str]) -> None:
    association = Desk().opened(binding(R | S | M, ttl=1))
    assert kinds(requests.changes_to_keep(association, association.directions & kept)) == changes


@pytest.mark.parametrize(("flags", "remote"), [(S | M, GROUP), (R | S | U, HOST)])
def test_who_is_no_receiver_is_not_removed_as_one(flags: int, remote: Endpoint) -> None:
    association = Desk().opened(binding(flags, remote, ttl=1))
    assert requests.changes_to_keep(association, NONE) == (RemoveEntry(association.aid),)


@pytest.mark.parametrize(
    ("aid", "flags", "code"),
    [(NOBODYS, R | S, 0x10), (0, R | S, 0x10), (NOBODYS, NONE, 0x01), (0, NONE, 0x01)],
)
def test_release_without_directions_is_wrong_before_its_aid_is_looked_up(aid: int, flags: int, code: int) -> None:
    assert Desk().ask(releasing(aid, flags)) == ControlReply(code, 0x0304, aid, flags)


def test_release_of_another_connections_association_is_a_bad_aid() -> None:
    desk = Desk()
    association = desk.opened(binding())
    reply = desk.ask(releasing(association.aid), by=channel(2))
    assert (reply.code, reply.aid, association.directions) == (0x10, association.aid, R)


def test_addresses_of_a_release_are_not_looked_at() -> None:
    desk = Desk()
    association = desk.opened(binding())
    faulty = replace(releasing(association.aid), fault=WireError("unknown address type", 0x08))
    assert desk.ask(faulty).code == 0x00


def test_released_direction_can_be_added_again() -> None:
    desk = Desk()
    association = desk.opened(binding(R | S | M, ttl=5))
    desk.ask(releasing(association.aid, R))
    assert desk.ask(binding(R | M, aid=association.aid)).code == 0x00
    assert desk.plane.memberships == [("join", GROUP), ("leave", GROUP), ("join", GROUP)]
    assert (association.directions, association.ttl) == (R | S, 5)


def test_ended_association_has_a_bad_aid_for_every_command() -> None:
    desk = Desk()
    association = desk.opened(binding(R | S | M, ttl=1))
    desk.ask(releasing(association.aid))
    for request in (
        binding(aid=association.aid),
        releasing(association.aid),
        setting_ttl(association.aid, 1),
    ):
        assert desk.ask(request).code == 0x10


def concluded(kept: int, *results: Done | Failed) -> tuple[Desk, Association, Traffic | None]:
    desk = Desk()
    association = desk.opened(binding(R | S | M, ttl=1))
    directions = association.directions & kept
    return desk, association, requests.conclude_release(desk.table, association, directions, results)


def test_what_an_association_moved_is_told_when_it_ends_and_not_before() -> None:
    moved = Traffic(to_remote_datagrams=3)
    desk, association, traffic = concluded(NONE, Done(), Done(traffic=moved))
    assert (len(desk.table), traffic) == (0, moved)
    desk, association, traffic = concluded(S, Done(), Done())
    assert (len(desk.table), association.directions, traffic) == (1, S, None)


@pytest.mark.parametrize("results", [(Done(), Failed(0, "no such entry")), (Failed(0, "why"),), (Done(), Done())])
def test_a_plane_that_does_not_know_an_association_is_our_error(results: tuple[Done | Failed, ...]) -> None:
    with pytest.raises(LocalError, match="did not know association"):
        concluded(NONE, *results)


def test_closed_channel_leaves_nothing_behind() -> None:
    desk, bob = Desk(), channel(2, "192.0.2.20", "bob")
    for flags, remote in ((R | M, GROUP), (S | M, GROUP), (R | S | U, HOST), (R | U, HOST)):
        desk.opened(binding(flags, remote, ttl=1))
    kept = desk.opened(binding(local=None), bob)
    desk.close(channel())
    assert (len(desk.table), list(desk.plane.entries), desk.plane.receivers) == (1, [kept.aid], {GROUP: [kept.aid]})
    desk.close(bob)
    assert (len(desk.table), desk.plane.entries, desk.plane.receivers) == (0, {}, {})


# --- SET TTL ---


@pytest.mark.parametrize(("limit", "name"), [(63, "reply: TTL set"), (62, "reply: TTL not allowed, AID echoed")])
def test_set_ttl_is_answered_in_the_golden_octets(limit: int, name: str) -> None:
    desk = Desk()
    desk.table = AssociationTable(ROOMY, OneAid(NOBODYS))
    desk.max_ttl = limit
    desk.opened(binding(S | M, ttl=1))
    assert desk.ask(golden("SET TTL 63")).encode() == octets(name)


@pytest.mark.parametrize(
    ("ttl", "code", "then"),
    [(0, 0x15, 7), (1, 0x00, 1), (MAX_TTL, 0x00, MAX_TTL), (MAX_TTL + 1, 0x15, 7), (255, 0x15, 7)],
)
def test_ttl_is_set_up_to_the_rules_limit(ttl: int, code: int, then: int) -> None:
    desk = Desk()
    association = desk.opened(binding(R | S | M, ttl=7))
    assert desk.ask(setting_ttl(association.aid, ttl)) == ControlReply(code, 0x0506, association.aid)
    assert (association.ttl, desk.plane.entries[association.aid].ttl) == (then, then)
    assert kinds(desk.plane.changes) == ["AddEntry", "AddReceiver"] + ["ChangeEntry"] * (code == 0)


@pytest.mark.parametrize("ttl", [0, 1, 255])
@pytest.mark.parametrize(("flags", "remote"), [(R | M, GROUP), (S | U, HOST), (R | S | U, HOST)])
def test_ttl_needs_a_direction_that_sends_to_a_group(flags: int, remote: Endpoint, ttl: int) -> None:
    desk = Desk()
    association = desk.opened(binding(flags, remote))
    assert desk.ask(setting_ttl(association.aid, ttl)) == ControlReply(0x13, 0x0506, association.aid)
    assert association.ttl == 0


def test_ttl_goes_with_the_send_direction() -> None:
    desk = Desk()
    association = desk.opened(binding(R | S | M, ttl=1))
    desk.ask(releasing(association.aid, S))
    assert desk.ask(setting_ttl(association.aid, 1)).code == 0x13


@pytest.mark.parametrize("ttl", [0, 1, 255])
def test_unknown_aid_comes_before_the_ttl(ttl: int) -> None:
    desk = Desk()
    assert desk.ask(setting_ttl(NOBODYS, ttl)) == ControlReply(0x10, 0x0506, NOBODYS)
    association = desk.opened(binding(S | M, ttl=1))
    assert desk.ask(setting_ttl(association.aid, ttl), by=channel(2)).code == 0x10
    assert association.ttl == 1


def test_flags_of_set_ttl_are_ignored_and_not_echoed() -> None:
    desk = Desk()
    association = desk.opened(binding(S | M, ttl=1))
    assert desk.ask(replace(setting_ttl(association.aid, 2), flags=0xFFFF)).flags == 0


def test_limit_of_the_ttl_is_that_of_the_rule_that_last_granted_sending() -> None:
    desk = Desk()
    association = desk.opened(binding(S | M, ttl=1))
    desk.max_ttl = 64
    assert desk.ask(setting_ttl(association.aid, 64)).code == 0x15
    desk.ask(binding(S | M, aid=association.aid, ttl=1))
    assert desk.ask(setting_ttl(association.aid, 64)).code == 0x00
    desk.max_ttl = 255
    desk.ask(binding(R | M, aid=association.aid))  # judged by a limit that is not for sending
    assert desk.ask(setting_ttl(association.aid, 65)).code == 0x15


# --- the rest ---


@pytest.mark.parametrize("command", [0x00, 0x01, 0x04, 0x08, 0xFF])
def test_unknown_command_is_not_supported(command: int) -> None:
    desk = Desk()
    assert desk.ask(replace(binding(R | S | M), command=command)) == ControlReply(0x07, 0x0102)
    assert desk.plane.changes == []


def test_every_refusal_says_why() -> None:
    refusal = requests.refuse(binding(), ReplyCode.HOST_UNREACHABLE, "no such name")
    assert (refusal.why, refusal.reply) == ("no such name", ControlReply(0x04, 0x0102))
    assert requests.unknown_command(replace(binding(), command=0x42)).why == "unknown command X'42'"


def test_changes_say_what_the_association_holds() -> None:
    association = Desk().opened(binding(S | M, ttl=9))
    assert requests.change_of(association) == ChangeEntry(association.aid, sends=True, receives=False, ttl=9)
