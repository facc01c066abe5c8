"""CONNECT, BIND and UDP ASSOCIATE: what the client's machine does with the connection then."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.address import Endpoint, parse_endpoint
from mcastsocks.errors import LocalError, RequestRefused, WireError
from mcastsocks.protocol.client import Associated, ClientConnection, LoggedIn, State
from mcastsocks.protocol.server import RequestMade, ServerConnection
from mcastsocks.wire.socks5 import Method, Request, RequestFlag
from tests import scapy_layers
from tests.protocol.client_lines import (
    ACCEPTED,
    ASSOCIATES,
    ASSOCIATES_ASKING,
    BINDS,
    CONNECTED,
    CONNECTS,
    DNS,
    GRANTED,
    LISTENING,
    LOCAL,
    OUTSIDE,
    QUESTIONS,
    REPORTED,
    Line,
    connection,
    reached,
)
from tests.protocol.dialogue import cut, heard, play, script
from tests.wire.second_opinion import endpoint_of
from tests.wire.strategies import endpoints, hostile, quick


@pytest.mark.parametrize("lines", [[CONNECTS, CONNECTED], [BINDS, LISTENING, ACCEPTED]], ids=["CONNECT", "BIND"])
@quick
@given(data=st.data(), payload=st.binary(max_size=60))
def test_payload_behind_the_reply_is_handed_out_however_it_was_cut(
    lines: list[Line], data: st.DataObject, payload: bytes
) -> None:
    machine, everything = connection(), heard(lines) + payload
    places = data.draw(st.sets(st.integers(0, len(everything)), max_size=12))
    assert play(machine, lines, cut(everything, places)) == script(lines)
    assert (machine.state, machine.octets_held) == (State.TRANSPARENT, len(payload))
    assert [machine.leftover(), machine.leftover()] == [payload, b""]
    assert (machine.state, machine.next_event(), machine.octets_to_send()) == (State.TRANSPARENT, None, b"")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([CONNECTS], "did not connect: connection refused"),
        ([BINDS], "refused to listen for a peer: connection refused"),
        ([BINDS, LISTENING], "no peer came to the relay: connection refused"),
        ([ASSOCIATES], "refused UDP ASSOCIATE: connection refused"),
    ],
)
def test_refusal_says_what_was_refused_and_why(lines: list[Line], words: str) -> None:
    machine = reached(*lines)
    machine.receive(bytes.fromhex("05050001000000000000"))
    with pytest.raises(RequestRefused, match=words) as caught:
        machine.next_event()
    assert (caught.value.code, machine.state) == (5, State.CLOSED)


@quick
@given(endpoints)
def test_scapy_reads_the_same_requests(destination: Endpoint) -> None:
    for command, ask in ((1, ClientConnection.request_connect), (2, ClientConnection.request_bind)):
        machine = reached(Line(CONNECTS.hears, LoggedIn()))
        ask(machine, destination)
        packet = scapy_layers.Request(machine.octets_to_send())
        assert (packet.VER, packet.CMD, packet.FLAG, endpoint_of(packet.DST)) == (5, command, 0, destination)


def test_a_destination_that_no_request_holds_changes_nothing() -> None:
    machine = reached(Line(CONNECTS.hears, LoggedIn()))
    with pytest.raises(ValueError, match="1 to 255 octets"):
        machine.request_connect(Endpoint("n" * 256, 80))
    assert (machine.state, machine.octets_to_send()) == (State.READY, b"")


# --- UDP ASSOCIATE ---


@pytest.mark.parametrize(
    ("local", "flag", "granted", "reads"),
    [
        (LOCAL, 0x05, 0x05, 0x05),
        (LOCAL, 0x05, 0x04, 0x04),
        (LOCAL, 0x01, 0x05, 0x01),
        (LOCAL, 0x00, 0xFF, 0x00),
        (LOCAL, 0x05, 0xFE, 0x04),
        (parse_endpoint("0.0.0.0:0"), 0x05, 0x05, 0x01),  # a port of zero asks nothing
    ],
)
def test_only_what_was_asked_for_is_granted(local: Endpoint, flag: int, granted: int, reads: int) -> None:
    machine = reached(Line(CONNECTS.hears, LoggedIn()))
    machine.request_associate(local, RequestFlag(flag))
    packet = scapy_layers.Request(machine.octets_to_send())
    assert (packet.CMD, packet.FLAG, endpoint_of(packet.DST)) == (3, flag, local)
    machine.receive(bytes((5, 0, granted)) + GRANTED.hears[3:])
    event = machine.next_event()
    assert getattr(event, "flag", None) == reads


def test_interface_is_not_asked_of_a_relay_that_did_not_grant_it() -> None:
    machine = reached(ASSOCIATES_ASKING, Line(REPORTED.hears, Associated(OUTSIDE, RequestFlag.NONE)))
    with pytest.raises(LocalError, match="did not grant INTERFACE REQUEST"):
        machine.ask_interface(DNS)
    assert (machine.state, machine.octets_to_send()) == (State.ASSOCIATED, b"")


@pytest.mark.parametrize("step", [1, 3, 100])
def test_each_question_gets_its_answer_however_it_was_cut(step: int) -> None:
    machine = connection()
    for line in QUESTIONS:
        assert play(machine, [line], cut(line.hears, range(step, len(line.hears), step))) == script([line])
    assert machine.state is State.AWAIT_INTERFACE


def test_answer_of_another_protocol_ends_the_machine() -> None:
    machine = reached(ASSOCIATES_ASKING, GRANTED)
    machine.receive(b"H")
    with pytest.raises(WireError, match="not X'48'"):
        machine.next_event()
    assert (machine.state, machine.octets_to_send()) == (State.CLOSED, b"")


def test_one_question_at_a_time() -> None:
    machine = reached(ASSOCIATES_ASKING, GRANTED)
    with pytest.raises(LocalError, match="AWAIT_INTERFACE"):
        machine.ask_interface(DNS)
    assert machine.octets_to_send() == b""
    machine.receive(REPORTED.hears)
    assert machine.next_event() == REPORTED.event
    machine.ask_interface(DNS)
    assert machine.octets_to_send() == REPORTED.says


@quick
@given(st.lists(hostile, max_size=6))
def test_association_ignores_what_nobody_asked_for_and_keeps_none_of_it(segments: list[bytes]) -> None:
    machine = reached(ASSOCIATES_ASKING, Line(GRANTED.hears + b"more", GRANTED.event))
    assert machine.octets_held == 0
    for segment in segments:
        machine.receive(segment)
        assert (machine.next_event(), machine.octets_held) == (None, 0)
    assert machine.state is State.ASSOCIATED


# --- both ends ---


def carry(client: ClientConnection, server: ServerConnection) -> None:
    server.receive(client.octets_to_send())
    client.receive(server.octets_to_send())


@pytest.mark.parametrize("flag", [RequestFlag.NONE, RequestFlag.INTERFACE_REQUEST, RequestFlag.USECLIENTSPORT])
def test_what_one_end_grants_the_other_end_has(flag: RequestFlag) -> None:
    client, server = ClientConnection(), ServerConnection(0, 10)
    client.greet()
    carry(client, server)
    server.next_event()
    server.choose_method(Method.NONE)
    carry(client, server)
    assert client.next_event() == LoggedIn()
    client.request_associate(LOCAL, flag)
    carry(client, server)
    assert server.next_event() == RequestMade(Request(3, LOCAL, flag))
    server.associated(DNS, flag)
    carry(client, server)
    assert getattr(client.next_event(), "flag", None) == flag
