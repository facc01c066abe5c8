"""UDP RELEASE and SET TTL, whose replies echo what they were asked."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.errors import LocalError, WireError
from mcastsocks.tables import requests
from mcastsocks.tables.associations import Association, AssociationTable
from mcastsocks.tables.changes import ChangeEntry, Done, Entry, Failed, RemoveEntry, Terms, Traffic
from mcastsocks.tables.filters import ANY_SOURCE, SourceFilter
from mcastsocks.wire.control import ControlReply, ControlRequest, parse_message
from mcastsocks.wire.options import Option, reason
from mcastsocks.wire.replies import ReplyCode, meaning
from tests.tables.desk import (
    ENC,
    EXT,
    GROUP,
    HOST,
    MAX_TTL,
    NONE,
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
    excluding,
    including,
    kinds,
    releasing,
    setting_ttl,
)
from tests.tables.test_bind import OneAid
from tests.vectors import octets

NOBODYS = 0x01020304
SOURCE = ip_address("198.51.100.9")


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
        terms = desk.plane.terms[association.aid]
        assert association.directions == kept
        assert (terms.receives, terms.sends) == (bool(kept & R), bool(kept & S))
    else:
        assert (len(desk.table), desk.plane.entries, desk.plane.receivers) == (0, {}, {})


@pytest.mark.parametrize("kept", [R, S, R | S])
def test_what_is_kept_is_told_to_the_plane_with_all_that_belongs_to_it(kept: int) -> None:
    desk = Desk()
    association = desk.opened(binding(R | S | M | REPORT, GROUP, including("198.51.100.9"), ttl=5))
    held = desk.plane.terms[association.aid]
    expected = held._replace(receives=bool(kept & R), sends=bool(kept & S))
    assert requests.change_to_keep(association, kept) == ChangeEntry(association.aid, expected)
    assert association.directions == R | S, "nothing is given up before the plane has"


@pytest.mark.parametrize(("flags", "remote"), [(R | S | M, GROUP), (S | M, GROUP), (R | S | U, HOST)])
def test_what_keeps_nothing_is_removed(flags: int, remote: Endpoint) -> None:
    association = Desk().opened(binding(flags, remote, ttl=1))
    assert requests.change_to_keep(association, NONE) == RemoveEntry(association.aid)


@pytest.mark.parametrize(("given_up", "receivers"), [(R, []), (S, [GROUP]), (R | S, [])])
def test_group_is_left_exactly_when_its_last_receiver_gives_up_receiving(
    given_up: int, receivers: list[Endpoint]
) -> None:
    desk = Desk()
    association = desk.opened(binding(R | S | M, ttl=1))
    desk.ask(releasing(association.aid, given_up))
    assert list(desk.plane.receivers) == receivers
    assert (("leave", GROUP) in desk.plane.memberships) == (not receivers)


def test_who_stays_is_still_sent_what_another_filter_let_in_for_both() -> None:
    desk = Desk()
    any_source = desk.opened(binding())
    one_source = desk.opened(binding(R | M, GROUP, including("198.51.100.9"), local=at(PEER, 5005)))
    assert desk.plane.admitted(GROUP) == ANY_SOURCE
    desk.ask(releasing(any_source.aid))
    assert desk.plane.admitted(GROUP) == one_source.terms.sources == SourceFilter(True, frozenset((SOURCE,)))
    assert desk.plane.memberships == [("join", GROUP)]


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
    assert (association.directions, association.terms.ttl) == (R | S, 5)


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
    desk, association, traffic = concluded(NONE, Done(traffic=moved))
    assert (len(desk.table), traffic) == (0, moved)
    desk, association, traffic = concluded(S, Done())
    assert (len(desk.table), association.directions, traffic) == (1, S, None)


@pytest.mark.parametrize("result", [Failed(0, "no such entry"), Done()])
def test_a_plane_that_does_not_know_an_association_is_our_error(result: Done | Failed) -> None:
    with pytest.raises(LocalError, match="did not know association"):
        concluded(NONE, result)


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
    assert (association.terms.ttl, desk.plane.terms[association.aid].ttl) == (then, then)
    assert kinds(desk.plane.changes) == ["AddEntry"] + ["ChangeEntry"] * (code == 0)


@pytest.mark.parametrize("ttl", [0, 1, 255])
@pytest.mark.parametrize(("flags", "remote"), [(R | M, GROUP), (S | U, HOST), (R | S | U, HOST)])
def test_ttl_needs_a_direction_that_sends_to_a_group(flags: int, remote: Endpoint, ttl: int) -> None:
    desk = Desk()
    association = desk.opened(binding(flags, remote))
    assert desk.ask(setting_ttl(association.aid, ttl)) == ControlReply(0x13, 0x0506, association.aid)
    assert association.terms.ttl == 0


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
    assert association.terms.ttl == 1


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
    assert [desk.ask(setting_ttl(association.aid, ttl)).code for ttl in (64, 65)] == [0x00, 0x15]


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


@pytest.mark.parametrize("code", [0x01, 0x02, 0x04, 0x09, 0x11, 0x13])
def test_refused_bind_gets_its_reason_exactly_when_the_client_knows_of_options(code: int) -> None:
    plain, extended = binding(R | M), binding(R | M | EXT)
    refused = ReplyCode(code)
    assert requests.refuse(plain, refused, "no rule\nfits", R).reply == ControlReply(code, 0x0102, flags=R)
    told = ControlReply(code, 0x0102, flags=R | EXT, options=(reason(f"{meaning(code)}: no rule fits"),))
    assert requests.refuse(extended, refused, "no rule\nfits", R).reply == told


@pytest.mark.parametrize("request_", [releasing(NOBODYS, R | EXT), replace(setting_ttl(NOBODYS, 1), flags=EXT)])
def test_refused_release_and_set_ttl_give_reasons_to_who_knows_of_options(request_: ControlRequest) -> None:
    reply, plain = Desk().ask(request_), Desk().ask(replace(request_, flags=request_.flags & ~EXT))
    assert (reply.code, reply.aid, plain.aid) == (0x10, NOBODYS, NOBODYS)
    assert reply.options == (reason(f"bad association id: no association {NOBODYS:08x} on this channel"),)
    assert reply.flags == plain.flags | EXT
    assert plain.options == ()


def test_a_reason_that_no_message_would_hold_is_cut() -> None:
    refusal = requests.refuse(binding(R | M | EXT), ReplyCode.NOT_ALLOWED, "é" * 40_000)
    parsed = parse_message(refusal.reply.encode())
    assert parsed is not None
    assert isinstance(parsed[0], ControlReply)
    assert parsed[0].options == refusal.reply.options
    assert len(refusal.why) == 40_000


@pytest.mark.parametrize(
    ("asked", "options", "differs"),
    [
        (R | S | M, (), {}),
        (S | M, (), {"receives": False}),
        (R | S | M | REPORT, (), {"reports_source": True}),
        (R | S | M, (including("198.51.100.9"),), {"sources": SourceFilter(True, frozenset((SOURCE,)))}),
        (R | S | M, (excluding("198.51.100.9"),), {"sources": SourceFilter(False, frozenset((SOURCE,)))}),
    ],
)
def test_terms_say_all_that_was_granted(asked: int, options: tuple[Option, ...], differs: dict[str, Any]) -> None:
    association = Desk().opened(binding(asked, GROUP, *options, ttl=9))
    assert association.terms == Terms(sends=True, receives=True, ttl=9)._replace(**differs)


@pytest.mark.parametrize(("asked", "client"), [(R | S | M, (PEER, 5004)), (R | S | M | ENC, None)])
def test_entry_says_where_the_association_is(asked: int, client: SockAddr | None) -> None:
    association = Desk().opened(binding(asked, GROUP, ttl=9))
    assert requests.entry_of(association) == Entry(association.aid, 1, RELAY, client, GROUP)


def test_mode_of_the_association_is_in_its_entry() -> None:
    desk = Desk()
    desk.modes = ("mm",)
    assert requests.entry_of(desk.opened(binding())).mm
    desk.modes = ("mu",)
    assert not requests.entry_of(desk.opened(binding())).mm
