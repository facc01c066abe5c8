"""CONNECT, BIND, UDP ASSOCIATE, and SOCKS 4: what the relay's machine does with the connection then."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.errors import LocalError, WireError
from mcastsocks.protocol.server import ServerConnection, State
from mcastsocks.wire.replies import ReplyCode
from mcastsocks.wire.socks5 import Request, RequestFlag
from tests import scapy_layers
from tests.protocol.dialogue import Transcript, cut, heard, play, script
from tests.protocol.server_lines import (
    ACCEPT,
    ASSOCIATE,
    ASSOCIATE_ASKED_IN_VAIN,
    ASSOCIATE_ASKING,
    ASSOCIATE_ASKING_EVENT,
    ASSOCIATE_ASKING_OCTETS,
    CONNECT,
    INTERFACE,
    LISTEN,
    NO_LOGIN,
    OUTSIDE,
    PAYLOAD,
    PEER,
    SAYS_OUTSIDE,
    SAYS_PEER,
    SOCKS4_ACCEPT,
    SOCKS4_CONNECT,
    SOCKS4_DIALOGUES,
    SOCKS4_REQUEST,
    SOCKS4A_CONNECT,
    WAIT_IN_VAIN,
    Line,
    at,
)
from tests.wire.strategies import hostile, quick

NOW, TIMEOUT_S = 100.0, 10.0
ASKED = Line(INTERFACE.hears, INTERFACE.event)


def connection() -> ServerConnection:
    return ServerConnection(NOW, TIMEOUT_S, socks4=True)


def reached(*lines: Line) -> ServerConnection:
    machine = connection()
    assert play(machine, lines, [heard(lines)]) == script(lines)
    return machine


# --- the first octet ---

dialogues = pytest.mark.parametrize("lines", SOCKS4_DIALOGUES.values(), ids=SOCKS4_DIALOGUES)


@dialogues
def test_one_octet_at_a_time_changes_nothing_in_socks_4(lines: list[Line]) -> None:
    machine = connection()
    for line in lines:
        *most, last = cut(line.hears, range(len(line.hears)))[1:]
        assert play(machine, [line], most) == Transcript()
        assert play(machine, [line], [last]) == script([line])


@dialogues
@quick
@given(data=st.data())
def test_any_cut_changes_nothing_in_socks_4(lines: list[Line], data: st.DataObject) -> None:
    everything = heard(lines)
    places = data.draw(st.sets(st.integers(0, len(everything)), max_size=12))
    assert play(connection(), lines, cut(everything, places)) == script(lines)


@pytest.mark.parametrize("socks4", [False, True])
@pytest.mark.parametrize("first", [0x00, 0x01, 0x03, 0x04, 0x06, 0x16, 0x47, 0xFF])
def test_first_octet_of_nothing_served_is_named_and_ends_the_machine(first: int, socks4: bool) -> None:
    machine = ServerConnection(NOW, TIMEOUT_S, socks4=socks4)
    machine.receive(bytes((first,)))
    if first == 4 and socks4:
        assert machine.next_event() is None
        assert machine.state is State.AWAIT_SOCKS4_REQUEST
        return
    with pytest.raises(WireError, match=f"X'{first:02x}'"):
        machine.next_event()
    assert (machine.state, machine.octets_to_send()) == (State.CLOSED, b"")


@pytest.mark.parametrize("code", [code for code in ReplyCode if code])
def test_every_failure_is_a_rejection_in_socks_4(code: ReplyCode) -> None:
    machine = reached(Line(SOCKS4_CONNECT.hears, SOCKS4_CONNECT.event))
    machine.fail_request(SOCKS4_REQUEST, code, at("2001:db8::1", 80))
    reply = scapy_layers.Socks4Reply(machine.octets_to_send())
    assert (reply.VN, reply.CD, reply.DSTIP) == (0, 91, "0.0.0.0")
    assert machine.state is State.CLOSED


def test_address_mapped_into_ipv6_is_named_in_socks_4() -> None:
    machine = reached(Line(SOCKS4_CONNECT.hears, SOCKS4_CONNECT.event))
    machine.connected(at("::ffff:203.0.113.1", 0x1234))
    assert machine.octets_to_send() == SOCKS4_CONNECT.says


# --- CONNECT and BIND ---

TRANSPARENT = {
    "CONNECT": [NO_LOGIN, CONNECT],
    "BIND": [NO_LOGIN, ACCEPT],
    "SOCKS 4": [SOCKS4_CONNECT],
    "SOCKS 4a": [SOCKS4A_CONNECT],
    "SOCKS 4 BIND": [SOCKS4_ACCEPT],
}


@pytest.mark.parametrize("lines", TRANSPARENT.values(), ids=TRANSPARENT)
@quick
@given(data=st.data(), payload=st.binary(max_size=60))
def test_payload_behind_a_request_is_handed_out_however_it_was_cut(
    lines: list[Line], data: st.DataObject, payload: bytes
) -> None:
    machine, everything = connection(), heard(lines) + payload
    places = data.draw(st.sets(st.integers(0, len(everything)), max_size=12))
    assert play(machine, lines, cut(everything, places)) == script(lines)
    assert (machine.state, machine.octets_held) == (State.TRANSPARENT, len(payload))
    assert [machine.leftover(), machine.leftover()] == [payload, b""]
    assert (machine.state, machine.next_event(), machine.octets_to_send()) == (State.TRANSPARENT, None, b"")


def test_payload_waits_while_the_destination_is_being_connected() -> None:
    machine = reached(NO_LOGIN, Line(CONNECT.hears, CONNECT.event))
    machine.receive(PAYLOAD.hears)
    assert (machine.next_event(), machine.octets_held) == (None, len(PAYLOAD.hears))
    machine.connected(OUTSIDE)
    assert machine.leftover() == PAYLOAD.hears


def test_bind_has_two_replies_at_their_time() -> None:
    machine = reached(NO_LOGIN, LISTEN)
    machine.receive(PAYLOAD.hears)
    assert (machine.next_event(), machine.octets_to_send()) == (None, b"")
    machine.accepted(PEER)
    assert (machine.octets_to_send(), machine.leftover()) == (SAYS_PEER, PAYLOAD.hears)


def test_bind_can_fail_between_its_replies() -> None:
    machine = reached(NO_LOGIN, LISTEN)
    machine.fail_request(Request(2), ReplyCode.TTL_EXPIRED)
    assert machine.octets_to_send() == bytes.fromhex("05060001000000000000")
    assert machine.state is State.CLOSED


# --- UDP ASSOCIATE ---


@pytest.mark.parametrize("associate", [ASSOCIATE, ASSOCIATE_ASKED_IN_VAIN])
@quick
@given(st.lists(hostile, max_size=6), st.booleans())
def test_association_ignores_what_the_client_writes_and_keeps_none_of_it(
    associate: Line, segments: list[bytes], early: bool
) -> None:
    machine = connection()
    machine.receive(heard([NO_LOGIN, associate]) + (b"early" if early else b""))
    assert play(machine, [NO_LOGIN, associate], [b""]) == script([NO_LOGIN, associate])
    for segment in segments:
        machine.receive(segment)
        assert (machine.next_event(), machine.octets_held) == (None, 0)
    assert (machine.state, machine.octets_to_send()) == (State.ASSOCIATED, b"")


def test_interface_data_in_the_segment_of_its_request_is_not_lost() -> None:
    machine = connection()
    lines = [NO_LOGIN, ASSOCIATE_ASKING, INTERFACE, INTERFACE]
    assert play(machine, lines, [heard(lines)]) == script(lines)


def test_interface_data_waits_for_the_answer_to_the_one_before() -> None:
    machine = reached(NO_LOGIN, ASSOCIATE_ASKING, ASKED)
    machine.receive(INTERFACE.hears)
    assert (machine.next_event(), machine.octets_held) == (None, len(INTERFACE.hears))
    machine.report_interface(OUTSIDE)
    assert machine.octets_to_send() == SAYS_OUTSIDE
    assert machine.next_event() == INTERFACE.event


@pytest.mark.parametrize("flag", range(8))
def test_a_flag_is_granted_only_when_it_was_asked_for(flag: int) -> None:
    request = Line(ASSOCIATE_ASKING_OCTETS, ASSOCIATE_ASKING_EVENT)  # asks for 01 and 04
    machine = reached(NO_LOGIN, request)
    if flag & 0x02:
        with pytest.raises(LocalError, match="more than was asked for"):
            machine.associated(OUTSIDE, RequestFlag(flag))
        assert (machine.state, machine.octets_to_send()) == (State.ANSWER_ASSOCIATE, b"")
        return
    machine.associated(OUTSIDE, RequestFlag(flag))
    reply = scapy_layers.Reply(machine.octets_to_send())
    assert (reply.VER, reply.REP, reply.FLAG, reply.BND.pair) == (5, 0, flag, ("203.0.113.1", 0x1234))


def test_clients_port_is_not_granted_to_a_client_that_named_none() -> None:
    machine = connection()
    machine.receive(NO_LOGIN.hears + bytes.fromhex("05030401000000000000"))
    play(machine, [NO_LOGIN, Line(b"", ASSOCIATE_ASKING_EVENT)], [b""])
    with pytest.raises(LocalError, match="more than was asked for"):
        machine.associated(OUTSIDE, RequestFlag.USECLIENTSPORT)


# --- bounds ---


@pytest.mark.parametrize(
    "lines",
    [
        *([NO_LOGIN, Line(line.hears, line.event)] for line in (CONNECT, LISTEN, ASSOCIATE)),
        [NO_LOGIN, LISTEN],
        [NO_LOGIN, CONNECT],
        [NO_LOGIN, ASSOCIATE],
        [NO_LOGIN, ASSOCIATE_ASKING, ASKED],
        [SOCKS4_CONNECT],
    ],
)
def test_handshake_is_over_with_the_request(lines: list[Line]) -> None:
    assert reached(NO_LOGIN).deadline == NOW + TIMEOUT_S
    assert reached(*lines).deadline is None


def test_handshake_in_socks_4_has_the_same_deadline() -> None:
    assert reached(Line(SOCKS4_CONNECT.hears[:-1])).deadline == NOW + TIMEOUT_S


def test_nothing_is_kept_after_the_end() -> None:
    machine = reached(NO_LOGIN, WAIT_IN_VAIN)
    machine.receive(PAYLOAD.hears)
    assert (machine.state, machine.octets_held, machine.next_event()) == (State.CLOSED, 0, None)


@quick
@given(
    st.sampled_from(([], [NO_LOGIN], [NO_LOGIN, ASSOCIATE_ASKING], [NO_LOGIN, ASSOCIATE])),
    st.sampled_from((b"", b"\x04", SOCKS4_CONNECT.hears[:8], INTERFACE.hears[:4])),
    st.lists(hostile, max_size=4),
)
def test_any_octets_are_events_or_end_the_machine(lines: list[Line], start: bytes, segments: list[bytes]) -> None:
    machine = reached(*lines)
    for segment in [start, *segments]:
        machine.receive(segment)
        try:
            while machine.next_event() is not None:
                pass
        except WireError:
            assert machine.state is State.CLOSED
