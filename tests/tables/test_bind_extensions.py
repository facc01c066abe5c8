"""What a UDP BIND may ask beyond the drafts (spec/extensions.md), and datagrams over the control channel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.tables.associations import AssociationTable
from mcastsocks.tables.changes import AddEntry, Entry, Terms
from mcastsocks.tables.filters import ANY_SOURCE, SourceFilter
from mcastsocks.wire.control import ControlReply, ControlRequest, parse_message
from mcastsocks.wire.options import Option, OptionType, reason, resolved
from mcastsocks.wire.replies import ReplyCode
from tests.tables.desk import (
    ENC,
    EXT,
    GROUP,
    GROUP_V6,
    HOST,
    LOCAL,
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
    excluding,
    including,
    releasing,
)
from tests.tables.test_bind import OneAid
from tests.vectors import octets

SENDER, OTHER_SENDER = "198.51.100.9", "198.51.100.10"
SSM, SSM_V6 = at("232.1.2.3", 5004), at("ff3e::1234", 5004)
AID = 0x01020304


def golden(name: str) -> ControlRequest:
    parsed = parse_message(octets(name))
    assert parsed is not None
    assert isinstance(parsed[0], ControlRequest)
    return parsed[0]


def desk_of_the_vectors() -> Desk:
    desk = Desk()
    desk.table = AssociationTable(ROOMY, OneAid(AID))
    return desk


def only(*sources: str) -> SourceFilter:
    return SourceFilter(True, frozenset(map(ip_address, sources)))


def all_but(*sources: str) -> SourceFilter:
    return SourceFilter(False, frozenset(map(ip_address, sources)))


# --- EXTENDED itself ---


def test_no_option_is_legal_and_granted_as_if_nothing_had_been_asked() -> None:
    desk = desk_of_the_vectors()
    reply = desk.ask(golden("extension: EXTENDED with no option"))
    assert reply == ControlReply(0x00, 31, AID, R | M | MU, RELAY, GROUP)
    assert desk.plane.terms[AID].sources == ANY_SOURCE


def test_protection_is_not_granted() -> None:
    desk = Desk()
    reply = desk.ask(golden("extension: protection asked"))
    assert (reply.code, reply.flags, desk.plane.changes) == (0x01, R | S | U | EXT, [])


def test_reason_of_a_refusal_is_written_as_in_the_golden_octets() -> None:
    """The words differ from the vector's; where they stand does not."""
    desk = Desk()
    desk.denied |= R
    request = replace(binding(R | M | EXT), tid=33)
    expected = octets("extension: reason of a refusal")
    reply = desk.ask(request)
    assert reply.options == (reason("multicast receive not allowed by ruleset: no rule allows it"),)
    assert replace(reply, options=(reason("no rule fits"),)).encode() == expected


@pytest.mark.parametrize(
    ("request_", "denied", "code"),
    [
        (binding(M), 0, 0x01),
        (binding(R | M, aid=AID), 0, 0x10),
        (binding(R | M, at("239.1.2.3", 0)), 0, 0x09),
        (binding(R | M, HOST), 0, 0x14),
        (binding(R | U, HOST, local=at("198.51.100.99", 1)), 0, 0x02),
        (binding(R | M, at("nowhere.example", 1)), 0, 0x04),
        (binding(R | M), R, 0x11),
        (binding(S | M, ttl=1), S, 0x12),
        (binding(S | M), 0, 0x15),
    ],
)
def test_every_refusal_has_a_reason_for_who_knows_of_options_and_for_nobody_else(
    request_: ControlRequest, denied: int, code: int
) -> None:
    desk = Desk()
    desk.denied |= denied
    plain = desk.ask(request_)
    extended = desk.ask(replace(request_, flags=request_.flags | EXT))
    assert (plain.code, plain.options, plain.flags & EXT) == (code, (), 0)
    assert extended == replace(plain, flags=plain.flags | EXT, options=extended.options)
    (told,) = extended.options
    assert told.kind == OptionType.REASON
    assert len(told.value.decode()) > 10


# --- RESOLVED ---


@pytest.mark.parametrize(
    ("flags", "name", "address"),
    [(R | M, "group.example", GROUP), (S | U, "host.example", HOST), (S | ENC, "host.example", HOST)],
)
def test_address_that_a_name_stands_for_is_told_to_who_knows_of_options(
    flags: int, name: str, address: Endpoint
) -> None:
    plain = Desk().ask(binding(flags, at(name, 5004)))
    extended = Desk().ask(binding(flags | EXT, at(name, 5004)))
    assert (plain.code, plain.options, plain.flags & EXT) == (0x00, (), 0)
    assert (extended.code, extended.options) == (0x00, (resolved(address.address),))
    assert extended.flags & EXT


def test_address_of_a_name_is_told_again_with_each_direction_and_by_ipv6() -> None:
    desk = Desk()
    desk.names["group.example"] = GROUP_V6.address
    first = desk.ask(binding(R | M | EXT, NAME))
    del desk.names["group.example"]
    again = desk.ask(binding(S | M | EXT, None, aid=first.aid, ttl=1, local=None))
    assert first.options == again.options == (resolved(GROUP_V6.address),)


@pytest.mark.parametrize(("flags", "remote"), [(R | M, GROUP), (R | U, HOST)])
def test_address_that_was_asked_for_is_no_news(flags: int, remote: Endpoint) -> None:
    reply = Desk().ask(binding(flags | EXT, remote))
    assert (reply.code, reply.options, reply.flags & EXT) == (0x00, (), 0)


# --- REPORT-SOURCE ---


def test_report_of_sources_is_granted_as_in_the_golden_request() -> None:
    desk = desk_of_the_vectors()
    reply = desk.ask(golden("extension: report sources"))
    assert reply == ControlReply(0x00, 21, AID, R | M | MU | REPORT, RELAY, GROUP)
    assert desk.plane.terms[AID].reports_source


@pytest.mark.parametrize(
    ("flags", "remote"),
    [(R | M, GROUP), (R | S | M, GROUP), (R | U, HOST), (R | S | U, HOST), (R | ENC, HOST), (R | M | ENC, GROUP)],
)
@pytest.mark.parametrize("reports", [False, True])
def test_whatever_is_received_may_report_its_source(flags: int, remote: Endpoint, reports: bool) -> None:
    desk = Desk()
    reply = desk.ask(binding(flags | (REPORT if reports else 0), remote, ttl=1))
    assert (reply.code, bool(reply.flags & REPORT)) == (0x00, reports)
    assert desk.plane.terms[reply.aid].reports_source == reports


@pytest.mark.parametrize(("flags", "remote"), [(S | M, GROUP), (S | U, HOST), (S | ENC, HOST)])
def test_nothing_is_reported_where_nothing_is_received(flags: int, remote: Endpoint) -> None:
    desk = Desk()
    assert desk.ask(binding(flags | REPORT, remote, ttl=1)) == ControlReply(0x01, 0x0102, flags=flags)
    assert desk.plane.changes == []


def test_a_bind_to_receive_says_anew_whether_sources_are_reported_and_one_to_send_does_not() -> None:
    desk = Desk()
    association = desk.opened(binding(R | M | REPORT))
    sending = desk.ask(binding(S | M, aid=association.aid, ttl=1))
    assert (sending.flags & REPORT, desk.plane.terms[association.aid].reports_source) == (0, True)
    for asked in (0, REPORT, 0):
        reply = desk.ask(binding(R | M | asked, aid=association.aid))
        assert (reply.flags & REPORT, desk.plane.terms[association.aid].reports_source) == (asked, bool(asked))


# --- source filters ---


def test_one_source_only_is_joined_as_in_the_golden_request() -> None:
    desk = desk_of_the_vectors()
    reply = desk.ask(golden("extension: join one source only"))
    assert reply == ControlReply(0x00, 20, AID, R | M | MU, RELAY, SSM)
    assert desk.plane.admitted(SSM) == only(SENDER)


def test_two_ipv6_sources_are_excluded_as_in_the_golden_request() -> None:
    desk = desk_of_the_vectors()
    reply = desk.ask(golden("extension: exclude two IPv6 sources"), channel(peer="2001:db8::10"))
    assert (reply.code, reply.aid, reply.remote) == (0x00, AID, GROUP_V6)
    assert desk.plane.admitted(GROUP_V6) == all_but("2001:db8::a", "2001:db8::b")


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        (including(SENDER, OTHER_SENDER), only(SENDER, OTHER_SENDER)),
        (excluding(SENDER), all_but(SENDER)),
        (including(f"::ffff:{SENDER}"), only(SENDER)),
    ],
)
@pytest.mark.parametrize("flags", [R | M, R | S | M, R | M | ENC, R | M | REPORT])
def test_filter_goes_with_whatever_receives_a_group(option: Option, wanted: SourceFilter, flags: int) -> None:
    desk = Desk()
    association = desk.opened(binding(flags, GROUP, option, ttl=1))
    assert association.terms.sources == desk.plane.terms[association.aid].sources == wanted


def test_kernel_is_asked_for_what_all_receivers_want_together() -> None:
    desk = Desk()
    desk.opened(binding(R | M, GROUP, including(SENDER)))
    desk.opened(binding(R | M, GROUP, including(OTHER_SENDER), local=at(PEER, 5005)))
    assert desk.plane.admitted(GROUP) == only(SENDER, OTHER_SENDER)
    desk.opened(binding(R | M, GROUP, excluding(SENDER, "198.51.100.11"), local=at(PEER, 5006)))
    assert desk.plane.admitted(GROUP) == all_but("198.51.100.11")
    assert desk.plane.memberships == [("join", GROUP)]


@pytest.mark.parametrize(
    ("flags", "remote", "options"),
    [
        (R | M, GROUP, (including(SENDER), excluding(OTHER_SENDER))),
        (R | M, GROUP, (excluding(OTHER_SENDER), including(SENDER))),
        (S | M, GROUP, (including(SENDER),)),
        (S | M, SSM, (including(SENDER),)),
        (R | U, HOST, (including(SENDER),)),
        (R | S | U, HOST, (excluding(SENDER),)),
        (R | ENC, HOST, (including(SENDER),)),
    ],
)
def test_filter_where_none_belongs_is_a_general_failure(
    flags: int, remote: Endpoint, options: tuple[Option, ...]
) -> None:
    desk = Desk()
    reply = desk.ask(binding(flags, remote, *options, ttl=1))
    assert (reply.code, reply.flags) == (0x01, flags | EXT)
    assert (len(desk.table), desk.plane.changes) == (0, [])


@pytest.mark.parametrize(
    ("remote", "option"),
    [
        (GROUP, including("2001:db8::a")),
        (GROUP, excluding("2001:db8::a")),
        (GROUP_V6, including(SENDER)),
        (GROUP_V6, excluding(f"::ffff:{SENDER}")),
        (GROUP, including("::ffff:198.51.100.9", "2001:db8::a")),
        (NAME, including("2001:db8::a")),
        (SSM_V6, including(SENDER)),
        (GROUP, including("239.1.2.4")),
        (GROUP, including("0.0.0.0")),
        (GROUP_V6, excluding("ff02::1")),
    ],
)
def test_sources_that_cannot_send_to_the_group_are_a_general_failure(remote: Endpoint, option: Option) -> None:
    desk = Desk()
    assert desk.ask(binding(R | M, remote, option)).code == 0x01
    assert (len(desk.table), desk.plane.changes) == (0, [])


@pytest.mark.parametrize(
    ("group", "source"),
    [
        ("232.0.0.0", SENDER),
        ("232.255.255.255", SENDER),
        ("::ffff:232.1.2.3", SENDER),
        ("ff30::1", "2001:db8::a"),
        ("ff32::1", "2001:db8::a"),
        ("ff3f:0:ffff::1", "2001:db8::a"),
    ],
)
def test_source_specific_group_is_received_with_a_list_to_include_and_not_otherwise(group: str, source: str) -> None:
    for flags in (R | M, R | S | M, R | M | ENC):
        desk, remote = Desk(), at(group, 5004)
        assert desk.ask(binding(flags, remote, ttl=1)).code == 0x14
        assert desk.ask(binding(flags | EXT, remote, ttl=1)).code == 0x14
        assert desk.ask(binding(flags, remote, excluding(source), ttl=1)).code == 0x14
        assert desk.plane.changes == []
        assert desk.ask(binding(flags, remote, including(source), ttl=1)).code == 0x00


@pytest.mark.parametrize("sources", [(), (excluding(SENDER),)])
def test_a_name_of_a_source_specific_group_needs_the_list_too(sources: tuple[Option, ...]) -> None:
    desk = Desk()
    desk.names["group.example"] = SSM.address
    assert desk.ask(binding(R | M, NAME, *sources)).code == 0x14
    assert desk.ask(binding(R | M, NAME, including(SENDER))).code == 0x00


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ((), (including(SENDER),), only(SENDER)),
        ((including(SENDER),), (including(OTHER_SENDER),), only(OTHER_SENDER)),
        ((including(SENDER),), (excluding(SENDER),), all_but(SENDER)),
        ((including(SENDER),), (), ANY_SOURCE),
    ],
)
@pytest.mark.parametrize("asked", [R | M, R | S | M])
def test_a_bind_to_receive_replaces_the_filter(
    first: tuple[Option, ...], second: tuple[Option, ...], wanted: SourceFilter, asked: int
) -> None:
    desk = Desk()
    association = desk.opened(binding(R | M, GROUP, *first))
    assert desk.ask(binding(asked, GROUP, *second, aid=association.aid, ttl=1)).code == 0x00
    assert association.terms.sources == desk.plane.admitted(GROUP) == wanted
    assert desk.plane.memberships == [("join", GROUP)]


def test_a_bind_to_send_leaves_the_filter() -> None:
    desk = Desk()
    association = desk.opened(binding(R | M, SSM, including(SENDER)))
    assert desk.ask(binding(S | M, SSM, aid=association.aid, ttl=1)).code == 0x00
    assert association.terms.sources == desk.plane.admitted(SSM) == only(SENDER)


def test_a_bind_that_is_refused_leaves_the_filter() -> None:
    desk = Desk()
    association = desk.opened(binding(R | M, SSM, including(SENDER)))
    for options in ((), (excluding(SENDER),), (including("2001:db8::a"),)):
        assert desk.ask(binding(R | M, SSM, *options, aid=association.aid)).code in (0x14, 0x01)
    assert association.terms.sources == desk.plane.admitted(SSM) == only(SENDER)


def test_filter_of_a_direction_given_up_is_not_that_of_the_next_one() -> None:
    desk = Desk()
    association = desk.opened(binding(R | S | M, GROUP, including(SENDER), ttl=1))
    desk.ask(releasing(association.aid, R))
    assert desk.ask(binding(R | M, aid=association.aid)).code == 0x00
    assert desk.plane.admitted(GROUP) == ANY_SOURCE


def test_sources_of_another_family_are_told_after_the_name_and_before_the_rules() -> None:
    desk = Desk()
    desk.denied = R | S
    wrong = including("2001:db8::a")
    assert desk.ask(binding(R | M, at("nowhere.example", 5004), wrong)).code == 0x04
    assert desk.ask(binding(R | M, GROUP, wrong)).code == 0x01
    assert desk.ask(binding(R | M, GROUP, including(SENDER))).code == 0x11


# --- TCP-ENCAPSULATED ---


def test_host_over_the_control_channel_is_granted_as_in_the_golden_request() -> None:
    desk = desk_of_the_vectors()
    remote = at("198.51.100.7", 5060)
    reply = desk.ask(golden("UDP BIND TCP-encapsulated"))
    assert reply == ControlReply(0x00, 10, AID, R | S | ENC, RELAY, at("203.0.113.1", 50_123))
    entry = Entry(AID, 1, RELAY, None, remote)
    assert desk.plane.changes == [AddEntry(entry, Terms(sends=True, receives=True))]


def test_group_over_the_control_channel_is_granted_in_mu_mode_as_in_the_golden_request() -> None:
    desk = desk_of_the_vectors()
    reply = desk.ask(golden("UDP BIND group, TCP-encapsulated"))
    assert reply == ControlReply(0x00, 30, AID, R | S | M | ENC | MU, RELAY, GROUP)
    entry = Entry(AID, 1, RELAY, None, GROUP)
    assert desk.plane.changes == [AddEntry(entry, Terms(sends=True, receives=True, ttl=1))]
    assert desk.plane.receivers == {GROUP: [AID]}


@pytest.mark.parametrize("local", [None, LOCAL, at(PEER, 0), at("0.0.0.0", 5004)])
def test_local_says_nothing_where_the_datagrams_come_over_the_control_channel(local: Endpoint | None) -> None:
    desk = Desk()
    association = desk.opened(binding(R | S | ENC, HOST, local=local))
    assert association.is_encapsulated
    assert desk.plane.entries[association.aid].client is None


def test_local_is_still_nobody_else() -> None:
    assert Desk().ask(binding(R | S | ENC, HOST, local=at("198.51.100.99", 5004))).code == 0x02


@pytest.mark.parametrize(
    "flags", [R | ENC | M | MM, R | S | ENC | M | MM, R | ENC | M | MU | MM, R | ENC | M | MM | EXT]
)
@pytest.mark.parametrize("modes", [("mu",), ("mm",), ("mu", "mm"), ("mm", "mu")])
def test_multicast_inside_goes_with_no_control_channel(flags: int, modes: tuple[str, ...]) -> None:
    desk = Desk()
    desk.modes = modes
    reply = desk.ask(binding(flags, ttl=1))
    assert (reply.code, reply.flags) == (0x01, flags & ~MM)
    assert desk.plane.changes == []


@pytest.mark.parametrize(("flags", "remote"), [(R | U | ENC, HOST), (R | S | U | ENC, HOST), (R | U | ENC | M, GROUP)])
def test_datagrams_come_one_way_only(flags: int, remote: Endpoint) -> None:
    desk = Desk()
    assert desk.ask(binding(flags, remote, ttl=1)) == ControlReply(0x01, 0x0102, flags=flags & ~ENC)
    assert desk.plane.changes == []


@pytest.mark.parametrize(
    ("held", "asked", "remote"),
    [
        (R | U, S | ENC, HOST),
        (R | ENC, S | U, HOST),
        (R | M, S | M | ENC, GROUP),
        (R | M | ENC, S | M, GROUP),
        (R | M | ENC, S | M | MU, GROUP),
        (R | U, R | ENC, HOST),
        (R | M | U, R | M | ENC, GROUP),
    ],
)
def test_direction_by_another_way_is_a_bad_context(held: int, asked: int, remote: Endpoint) -> None:
    desk = Desk()
    association = desk.opened(binding(held, remote))
    before = replace(association)
    assert desk.ask(binding(asked, remote, aid=association.aid, ttl=1)) == ControlReply(0x13, 0x0102)
    assert (association, len(desk.plane.changes)) == (before, 1)


@pytest.mark.parametrize(
    ("held", "asked", "remote"),
    [
        (R | ENC, S | ENC, HOST),
        (R | M | ENC, S | M | ENC, GROUP),
        (R | M | ENC, S | M | ENC | MU, GROUP),
        (R | M | ENC | MU, S | M | ENC, GROUP),
        (R | M | U, S | M, GROUP),  # UDP-UNICAST beside a group is a wish for MU, and no way
        (R | M, S | M | U, GROUP),
    ],
)
def test_direction_by_the_same_way_is_added(held: int, asked: int, remote: Endpoint) -> None:
    desk = Desk()
    association = desk.opened(binding(held, remote))
    reply = desk.ask(binding(asked, remote, aid=association.aid, ttl=1))
    assert (reply.code, association.directions) == (0x00, R | S)
    assert (desk.plane.entries[association.aid].client is None) == bool(held & ENC)


def test_refused_direction_that_could_be_granted_is_told_with_its_way() -> None:
    desk = Desk()
    desk.denied |= R
    reply = desk.ask(binding(R | S | M | ENC, ttl=1))
    assert (reply.code, reply.flags) == (ReplyCode.GROUP_RECEIVE_NOT_ALLOWED, S | M | ENC)


# --- what only MU-mode can do, where the rules leave the choice ---


@pytest.mark.parametrize(
    ("flags", "options"),
    [(R | M | ENC, ()), (R | M | REPORT, ()), (R | M | MM | REPORT, ()), (R | M | MM, (including(SENDER),))],
)
def test_what_needs_mu_mode_counts_as_a_wish_for_it(flags: int, options: tuple[Option, ...]) -> None:
    desk = Desk()
    desk.modes = ("mm", "mu")
    reply = desk.ask(binding(flags, GROUP, *options))
    assert (reply.code, reply.flags & (MU | MM)) == (0x00, MU)
    assert not desk.plane.entries[reply.aid].mm
    desk.modes = ("mm",)
    assert desk.ask(binding(flags, GROUP, *options)).code == 0x01
