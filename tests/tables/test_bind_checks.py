"""The checks of UDP BIND (spec/enhanced.md), each alone and each before all that come after it.

Requests are crafted by the second dissector, so that the way from octets to the answer is tested as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import pytest

from mcastsocks.tables.associations import TableLimits
from mcastsocks.tables.changes import AddEntry
from mcastsocks.wire.control import ControlReply, ControlRequest, parse_message
from mcastsocks.wire.options import OptionType
from tests import scapy_layers
from tests.scapy_layers import Endpoint as Block
from tests.tables.desk import EXT, LOCAL, MAX_TTL, PEER, ROOMY, Desk, M, R, S, U, at, binding, channel
from tests.vectors import octets

SIX_OCTETS = bytes(6)
UNKNOWN_ATYP = Block(ATYP=7, ADDR=SIX_OCTETS)
ATYP_00_FILLED = Block(ATYP=0, ADDR="0.0.0.1")
EMPTY_NAME = Block(ATYP=3, ADDR="")
SOURCE = "01 0005 01 c6336409"  # SOURCE-INCLUDE 198.51.100.9
HELD, FOREIGN = "an association of this channel", "an association of another channel"

GOOD: dict[str, Any] = {
    "UDPCMD": 5,
    "FLAGS": 0x0013,  # receive from and send to a group
    "RSVD": 16,
    "TID": 0x0102,
    "AID": 0,
    "LOCAL": (PEER, 5004),
    "REMOTE": ("239.1.2.3", 5004),
}


@dataclass(frozen=True)
class Flaw:
    """Something wrong with a request or with the world; the row of the table of checks, and the answer."""

    row: int
    code: int
    what: str
    fields: dict[str, Any] = field(default_factory=dict)
    world: Callable[[Desk], object] = lambda desk: None
    also_about: frozenset[str] = frozenset()  # fields that must be good for this to be the flaw it is

    @property
    def about(self) -> frozenset[str]:
        return self.also_about | self.fields.keys()


def flags(what: str, value: int) -> Flaw:
    return Flaw(2, 0x01, what, {"FLAGS": value})


def options(what: str, octets: str) -> Flaw:
    fields = {"FLAGS": 0x8013, "REST": bytes.fromhex(octets)}
    return Flaw(2, 0x01, f"option {what}", fields, also_about=READABLE)


def local(row: int, code: int, what: str, block: Any) -> Flaw:
    return Flaw(row, code, f"LOCAL {what}", {"LOCAL": block}, also_about=_read(row, block))


def remote(row: int, code: int, what: str, block: Any) -> Flaw:
    return Flaw(row, code, f"REMOTE {what}", {"REMOTE": block}, also_about=_read(row, block))


READABLE = frozenset({"options behind blocks that can be read"})


def _read(row: int, block: Any) -> frozenset[str]:
    """Blocks that cannot be read are the flaw of a message, whatever options follow: where they start is not known."""
    return READABLE if row == 4 or block is EMPTY_NAME else frozenset()


def deny(directions: int) -> Callable[[Desk], None]:
    def change(desk: Desk) -> None:
        desk.denied |= directions

    return change


def fill(**limit: int) -> Callable[[Desk], None]:
    def change(desk: Desk) -> None:
        desk.table.limits = replace(desk.table.limits, **limit)

    return change


FLAWS = [
    Flaw(1, 0x07, "unknown command", {"UDPCMD": 0x42}),
    flags("no direction", 0x0010),
    flags("UDP-UNICAST with TCP-ENCAPSULATED", 0x000D),
    flags("the same for a group", 0x001D),
    flags("MM-MODE with TCP-ENCAPSULATED", 0x0059),
    flags("MM-MODE with MU-MODE and TCP-ENCAPSULATED", 0x0079),
    flags("MU-MODE without UDP-MULTICAST", 0x0025),
    flags("MM-MODE without UDP-MULTICAST", 0x0045),
    flags("no transport", 0x0003),
    flags("a mode and no transport", 0x0023),
    flags("unknown bit 0080", 0x0093),
    flags("unknown bit 4000", 0x4013),
    flags("REPORT-SOURCE without receiving", 0x0112),
    options("unknown", "03 0001 ff"),
    options("overruns SIZE", "01 0040 01"),
    options("cut in its head", "01 00"),
    options("a source list cut inside an address", "01 0004 01 c00002"),
    options("a source list without addresses", "02 0001 01"),
    options("twice", SOURCE + SOURCE),
    options("SOURCE-INCLUDE with SOURCE-EXCLUDE", SOURCE + "02 0005 01 c633640a"),
    options("PROTECTION, which is for later", "04 0002 0102"),
    options("REASON, which is for replies", "05 0001 78"),
    options("RESOLVED, which is for replies", "06 0005 01 c6336409"),
    Flaw(
        2,
        0x01,
        "a source filter without receiving",
        {"FLAGS": 0x8012, "REST": bytes.fromhex(SOURCE)},
        also_about=READABLE,
    ),
    Flaw(2, 0x01, "a source filter for a host", {"FLAGS": 0x8007, "REST": bytes.fromhex(SOURCE)}, also_about=READABLE),
    Flaw(3, 0x10, "AID nobody has", {"AID": 0x01020304}),
    Flaw(3, 0x10, "AID of another connection", {"AID": FOREIGN}),
    local(4, 0x08, "of an unknown type", UNKNOWN_ATYP),
    local(4, 0x08, "of type 00 with content", ATYP_00_FILLED),
    local(4, 0x08, "a name", ("host.example", 5004)),
    local(4, 0x08, "an empty name", EMPTY_NAME),
    remote(4, 0x08, "of an unknown type", UNKNOWN_ATYP),
    remote(4, 0x08, "of type 00 with content", ATYP_00_FILLED),
    remote(5, 0x09, "unused", Block(ATYP=0)),
    remote(5, 0x09, "0.0.0.0:0", ("0.0.0.0", 0)),
    remote(5, 0x09, "0.0.0.0 with a port", ("0.0.0.0", 5004)),
    remote(5, 0x09, ":: with a port", ("::", 5004)),
    remote(5, 0x09, "::ffff:0.0.0.0 with a port", ("::ffff:0.0.0.0", 5004)),
    remote(5, 0x09, "an empty name", EMPTY_NAME),
    remote(5, 0x09, "a group without a port", ("239.1.2.3", 0)),
    remote(5, 0x09, "a name without a port", ("group.example", 0)),
    remote(5, 0x09, "not a group and without a port", ("198.51.100.7", 0)),
    remote(5, 0x09, "source-specific and without a port", ("232.1.2.3", 0)),
    remote(6, 0x14, "not a group", ("198.51.100.7", 53)),
    remote(6, 0x14, "not a group, IPv6", ("2001:db8::53", 53)),
    remote(6, 0x14, "not a group, v4-mapped", ("::ffff:198.51.100.7", 53)),
    remote(6, 0x14, "source-specific, first of its range", ("232.0.0.0", 5004)),
    remote(6, 0x14, "source-specific, last of its range", ("232.255.255.255", 5004)),
    remote(6, 0x14, "source-specific, v4-mapped", ("::ffff:232.1.2.3", 5004)),
    remote(6, 0x14, "source-specific, IPv6 link-local", ("ff32::1", 5004)),
    remote(6, 0x14, "source-specific, IPv6 of any scope", ("ff3f:0:ffff::1", 5004)),
    Flaw(6, 0x14, "a group by UDP-UNICAST", {"FLAGS": 0x0007}, also_about=frozenset({"REMOTE"})),
    Flaw(7, 0x13, "AID with other addresses", {"AID": HELD}),
    local(8, 0x02, "somebody else", ("198.51.100.99", 5004)),
    local(8, 0x02, "somebody else, by IPv6", ("2001:db8::99", 5004)),
    local(8, 0x02, "somebody else, without a port", ("198.51.100.99", 0)),
    remote(9, 0x04, "a name that does not resolve", ("nowhere.example", 5004)),
    Flaw(10, 0x11, "receiving denied", world=deny(R)),
    Flaw(10, 0x12, "sending denied", world=deny(S)),
    Flaw(10, 0x11, "both denied", world=deny(R | S)),
    Flaw(11, 0x15, "TTL 0", {"RSVD": 0}),
    Flaw(11, 0x15, "TTL above the rule's", {"RSVD": MAX_TTL + 1}),
    Flaw(12, 0x01, "no more associations", world=fill(associations=2)),
    Flaw(12, 0x01, "no more groups for this user", world=fill(groups_per_user=1)),
    Flaw(12, 0x01, "no entry in the plane", world=lambda desk: desk.plane.fail(AddEntry)),
    Flaw(12, 0x01, "kernel refuses to join", world=lambda desk: desk.plane.fail_join()),
]
PAIRS = [
    (earlier, later)
    for earlier, later in combinations(FLAWS, 2)
    if earlier.row < later.row and not earlier.about & later.about
]


class Office(Desk):
    """A desk at which two associations are open already: one of this channel, one of another."""

    def __init__(self, limits: TableLimits = ROOMY) -> None:
        super().__init__(limits)
        other = channel(2, "192.0.2.20", "bob")
        mine = self.opened(binding(R | M, at("239.9.9.9", 9)))
        theirs = self.opened(binding(R | M, at("239.1.2.3", 5004), local=at("192.0.2.20", 1)), other)
        self.aids = {HELD: mine.aid, FOREIGN: theirs.aid}

    def request(self, *flaws: Flaw) -> ControlRequest:
        fields = dict(GOOD)
        for flaw in flaws:
            fields |= flaw.fields
            flaw.world(self)
        fields["AID"] = self.aids.get(fields["AID"], fields["AID"])
        parsed = parse_message(bytes(scapy_layers.ControlRequest(**fields)))
        assert parsed is not None
        assert isinstance(parsed[0], ControlRequest)
        return parsed[0]

    def state(self) -> tuple[Any, ...]:
        """All that a refusal must leave as it was."""
        held = [(a.aid, a.grant) for number in (1, 2) for a in self.table.of_channel(channel(number))]
        receivers = {group: list(aids) for group, aids in self.plane.receivers.items()}
        return len(self.table), held, dict(self.plane.terms), receivers


def test_the_request_without_a_flaw_is_granted() -> None:
    office = Office()
    assert office.ask(office.request()).code == 0x00


def test_every_row_of_the_table_has_its_flaws() -> None:
    assert {flaw.row for flaw in FLAWS} == set(range(1, 13))
    about_one_field = {(3, 7), (5, 6), (5, 9), (6, 9)}  # AID, REMOTE; some flaws of row 5 are of row 6 as well
    assert {(earlier.row, later.row) for earlier, later in PAIRS} == {*combinations(range(1, 13), 2)} - about_one_field


@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: f"{flaw.row} {flaw.what}")
def test_a_flaw_gets_the_answer_of_its_row_and_leaves_nothing_behind(flaw: Flaw) -> None:
    office = Office()
    request = office.request(flaw)
    before = office.state()
    reply = office.ask(request)
    behind_tid = ControlReply(flaw.code, 0x0102, flags=reply.flags, options=reply.options)
    assert reply == behind_tid, "everything behind TID is zero"
    assert reply.flags & ~request.flags == 0
    asked_for_reasons = bool(request.flags & EXT) and flaw.row > 1
    assert [option.kind for option in reply.options] == [OptionType.REASON] * asked_for_reasons
    assert bool(reply.flags & EXT) == asked_for_reasons
    assert office.state() == before


@pytest.mark.parametrize("row", range(1, 13))
def test_of_two_flaws_the_one_of_the_earlier_row_is_answered(row: int) -> None:
    for earlier, later in PAIRS:
        if earlier.row == row:
            office = Office()
            request = office.request(earlier, later)
            assert office.ask(request).code == earlier.code, f"{earlier.what}, {later.what}"


# --- rows that need another request to begin with ---


@pytest.mark.parametrize("port", [0, 53])
def test_receiving_alone_from_a_host_may_leave_its_port_open(port: int) -> None:
    assert Desk().ask(binding(R | U, at("198.51.100.7", port))).code == 0x00


@pytest.mark.parametrize("flags", [S | U, R | S | U])
def test_sending_to_a_host_needs_its_port(flags: int) -> None:
    assert Desk().ask(binding(flags, at("198.51.100.7", 0))).code == 0x09


@pytest.mark.parametrize("group", ["232.1.2.3", "ff3e::1"])
def test_sending_to_a_source_specific_group_needs_no_sources(group: str) -> None:
    desk = Desk()
    reply = desk.ask(binding(S | M, at(group, 5004), ttl=1))
    assert reply.code == 0x00
    assert desk.ask(binding(R | M, at(group, 5004), aid=reply.aid)).code == 0x14


@pytest.mark.parametrize("group", ["231.255.255.255", "233.0.0.0", "ff2f::1", "ff40::1", "ff3e:1::1", "ff15::1"])
def test_groups_beside_the_source_specific_ranges_are_received(group: str) -> None:
    assert Desk().ask(binding(R | M, at(group, 5004))).code == 0x00


@pytest.mark.parametrize(
    ("flags", "name", "code"),
    [(R | M, "host.example", 0x14), (R | U, "group.example", 0x14), (R | M, "ssm.example", 0x14)],
)
def test_a_name_is_judged_by_what_it_resolves_to_before_the_rules_are(flags: int, name: str, code: int) -> None:
    desk = Desk()
    desk.names["ssm.example"] = at("232.1.2.3", 1).address
    desk.denied = R | S
    assert desk.ask(binding(flags, at(name, 5004))).code == code
    assert (len(desk.table), desk.plane.changes) == (0, [])


def test_an_association_by_name_is_not_extended_as_another_kind() -> None:
    desk = Desk()
    group = desk.ask(binding(R | M, at("group.example", 5004)))
    host = desk.ask(binding(R | U, at("host.example", 53)))
    assert desk.ask(binding(S | U, at("group.example", 5004), aid=group.aid)).code == 0x13
    assert desk.ask(binding(S | M, at("host.example", 53), aid=host.aid, ttl=1)).code == 0x13


@pytest.mark.parametrize(
    "local", [None, LOCAL, at(PEER, 0), at("0.0.0.0", 5004), at("::", 5004), at(f"::ffff:{PEER}", 9)]
)
def test_local_is_the_client_itself_or_left_open(local: Any) -> None:
    assert Desk().ask(binding(local=local)).code == 0x00


def test_local_of_an_ipv6_client_is_its_ipv6_address() -> None:
    client = channel(peer="2001:db8::10")
    assert Desk().ask(binding(local=at("2001:db8::10", 5004)), client).code == 0x00
    assert Desk().ask(binding(local=at(PEER, 5004)), client).code == 0x02


@pytest.mark.parametrize(("flags", "code"), [(R | U, 0x02), (S | U, 0x02), (R | M, 0x11), (S | M, 0x12)])
def test_denial_names_the_direction_for_groups_only(flags: int, code: int) -> None:
    desk = Desk()
    desk.denied = R | S
    assert desk.ask(binding(flags, at("239.1.2.3" if flags & M else "198.51.100.7", 53), ttl=1)).code == code


@pytest.mark.parametrize("ttl", [1, MAX_TTL])
def test_ttl_up_to_the_rules_limit_is_granted(ttl: int) -> None:
    assert Desk().ask(binding(S | M, ttl=ttl)).code == 0x00


def test_ttl_255_is_granted_where_the_rule_has_no_lower_limit() -> None:
    desk = Desk()
    desk.max_ttl = 255
    assert desk.ask(binding(S | M, ttl=255)).code == 0x00


@pytest.mark.parametrize("ttl", [0, 255])
@pytest.mark.parametrize("flags", [R | M, R | U, S | U, R | S | U])
def test_rsvd_is_no_ttl_unless_sending_to_a_group(flags: int, ttl: int) -> None:
    desk = Desk()
    remote = at("239.1.2.3" if flags & M else "198.51.100.7", 53)
    association = desk.opened(binding(flags, remote, ttl=ttl))
    assert (association.terms.ttl, desk.plane.terms[association.aid].ttl) == (0, 0)


# --- FLAGS of a failure: what could have been granted ---


@pytest.mark.parametrize(
    ("asked", "possible"),
    [
        (0x0010, 0x0010),
        (0x000D, 0x0005),
        (0x001D, 0x0015),
        (0x005D, 0x0055),
        (0x0059, 0x0019),
        (0x0079, 0x0039),
        (0x0025, 0x0005),
        (0x0045, 0x0005),
        (0x0003, 0x0003),
        (0x0023, 0x0003),
        (0x4293, 0x0013),
        (0x0112, 0x0012),
        (0x010A, 0x000A),
        (0x0103, 0x0103),
        (0x8010, 0x8010),  # REASON follows
        (0x4013, 0x0013),
        (0xFFFF, 0x8177),
    ],
)
def test_refused_flags_come_back_as_those_that_would_have_worked_together(asked: int, possible: int) -> None:
    office = Office()
    reply = office.ask(office.request(flags("", asked)))
    assert (reply.code, reply.flags) == (0x01, possible)
    if possible & 0x0003 and possible & 0x001C:
        remote = {} if possible & 0x0010 else {"REMOTE": ("198.51.100.7", 53)}
        assert office.ask(office.request(flags("", possible), Flaw(0, 0, "", remote))).code == 0x00


@pytest.mark.parametrize(
    ("asked", "denied", "ttl", "code", "possible"),
    [
        (R | S | M, R, 1, 0x11, S | M),
        (R | S | M, S, 1, 0x12, R | M),
        (R | S | M, R | S, 1, 0x11, 0),
        (R | M, R, 1, 0x11, 0),
        (R | S | M, 0, 0, 0x15, R | M),
        (S | M, 0, 0, 0x15, 0),
    ],
)
def test_direction_that_would_have_been_granted_is_told(
    asked: int, denied: int, ttl: int, code: int, possible: int
) -> None:
    desk = Desk()
    desk.denied |= denied
    reply = desk.ask(binding(asked, ttl=ttl))
    assert (reply.code, reply.flags) == (code, possible)


def test_a_part_that_is_denied_fails_the_whole() -> None:
    desk = Desk()
    association = desk.opened(binding(R | M))
    desk.denied |= S
    assert desk.ask(binding(R | S | M, aid=association.aid, ttl=1)).code == 0x12
    assert (association.directions, desk.plane.terms[association.aid].sends) == (R, False)


def test_refusals_are_written_in_the_golden_octets() -> None:
    desk = Desk()
    desk.denied |= R
    denied = replace(binding(R | S | M, ttl=1), tid=15)
    assert desk.ask(denied).encode() == octets("reply: multicast receive refused")
    no_group = replace(binding(R | M, at("198.51.100.7", 53)), tid=16)
    assert desk.ask(no_group).encode() == octets("reply: bad multicast address")
