"""The relay's machine: whole dialogues in every cut, refusals, broken peers, verbs out of turn."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.address import Endpoint
from mcastsocks.errors import LocalError, WireError
from mcastsocks.protocol.server import (
    ControlRequested,
    DatagramEncapsulated,
    LoginAttempted,
    MethodsOffered,
    RequestMade,
    ServerConnection,
    State,
)
from mcastsocks.wire.control import ControlReply, ControlRequest, Encapsulated
from mcastsocks.wire.features import Feature, FeatureList
from mcastsocks.wire.replies import ReplyCode
from mcastsocks.wire.socks5 import Credentials, Method, Request, RequestFlag
from tests.protocol import server_lines
from tests.protocol.dialogue import Transcript, cut, heard, play, script
from tests.protocol.server_lines import BEHIND_THE_END, NO_LOGIN, NOTHING, OUTSIDE, Line, at, refused
from tests.vectors import octets
from tests.wire.strategies import hostile, quick

Verb = Callable[[ServerConnection], object]

CLIENT = at("192.0.2.10", 40000)
REMOTE = at("198.51.100.7", 53)
BOUND = ControlReply(0, 258, 0xDEADBEEF, 7, at("192.0.2.1", 1080), at("203.0.113.1", 50123))

GREETING = Line(
    octets("greeting: none and userpass"),
    MethodsOffered((0, 2)),
    lambda m: m.choose_method(Method.USERPASS),
    octets("method: userpass"),
)
LOGIN = Line(
    octets("userpass request"),
    LoginAttempted(Credentials(b"alice", b"secret")),
    ServerConnection.accept_login,
    octets("userpass ok"),
)
ENHANCE = Line(
    octets("ENHANCED_UDP_MODE"),
    RequestMade(Request(4, NOTHING)),
    ServerConnection.enter_enhanced,
    octets("ENHANCED_UDP_MODE reply carries the extension's version"),
)
FEATURES = FeatureList((Feature(4, 4, bytes.fromhex("010281828384")),))
LIST_REQUEST = Request(16, NOTHING, flag=1)
LIST = Line(
    octets("LIST-FEATURES persistent"),
    RequestMade(LIST_REQUEST),
    lambda m: m.list_features(LIST_REQUEST, FEATURES),
    octets("LIST-FEATURES granted, persistent", "feature list of this project"),
)
LIST_ONCE = Line(
    bytes.fromhex("05100001000000000000"),
    RequestMade(Request(16, NOTHING)),
    lambda m: m.list_features(Request(16, NOTHING), FEATURES),
    bytes.fromhex("05000001000000000000") + octets("feature list of this project"),
)
BIND = Line(
    octets("UDP BIND unicast both ways"),
    ControlRequested(ControlRequest(5, 258, 0, 7, 0, CLIENT, REMOTE)),
    lambda m: m.reply(BOUND),
    octets("UDP BIND reply"),
)
ENCAPSULATED = Line(
    octets("encapsulated datagram"),
    DatagramEncapsulated(Encapsulated(0xDEADBEEF, b"ping")),
)
SET_TTL = Line(
    octets("SET TTL 63"),
    ControlRequested(ControlRequest(7, 19, 0x01020304, 0, 63)),
    lambda m: m.reply(ControlReply(0x15, 19, 0x01020304)),
    octets("reply: TTL not allowed, AID echoed"),
)
RELEASE = Line(
    octets("UDP RELEASE short form, SIZE 13"),
    ControlRequested(ControlRequest(6, 18, 0x01020304, 3)),
)
NONE_ACCEPTABLE = octets("method: none acceptable is two octets")

DIALOGUES = {
    "login and channel": [GREETING, LOGIN, ENHANCE, BIND, ENCAPSULATED, SET_TTL, RELEASE, BIND],
    "no login": [
        NO_LOGIN,
        Line(octets("ENHANCED_UDP_MODE with everything zero"), ENHANCE.event, ENHANCE.then, ENHANCE.says),
        RELEASE,
    ],
    "no method": [
        Line(GREETING.hears, GREETING.event, ServerConnection.refuse_methods, NONE_ACCEPTABLE),
        BEHIND_THE_END,
    ],
    "wrong password": [
        GREETING,
        Line(LOGIN.hears, LOGIN.event, ServerConnection.refuse_login, octets("userpass refused")),
        BEHIND_THE_END,
    ],
    "features, then the channel": [GREETING, LOGIN, LIST, LIST, ENHANCE, BIND],
    "features alone": [NO_LOGIN, LIST, LIST_ONCE, BEHIND_THE_END],
    "features, with bits that nobody knows": [
        NO_LOGIN,
        Line(
            bytes.fromhex("0510fe01000000000000"),
            RequestMade(Request(16, NOTHING, flag=0xFE)),
            lambda m: m.list_features(Request(16, NOTHING, flag=0xFE), FEATURES),
            LIST_ONCE.says,
        ),
        BEHIND_THE_END,
    ],
    "features refused": [
        NO_LOGIN,
        refused(
            LIST_REQUEST, LIST.hears, ReplyCode.GENERAL_FAILURE, bytes.fromhex("05010001000000000000")
        ),
        BEHIND_THE_END,
    ],
    "CONNECT": [
        NO_LOGIN,
        refused(
            Request(1, Endpoint("example.com", 80)),
            octets("CONNECT name: the length octet is not part of the name"),
            ReplyCode.CONNECTION_REFUSED,
            octets("reply refused"),
        ),
        BEHIND_THE_END,
    ],
    "enhanced mode switched off": [
        NO_LOGIN,
        refused(
            Request(4), ENHANCE.hears, ReplyCode.COMMAND_NOT_SUPPORTED, octets("ENHANCED_UDP_MODE switched off")
        ),
        BEHIND_THE_END,
    ],
    "enhanced mode denied": [
        GREETING,
        LOGIN,
        refused(Request(4), ENHANCE.hears, ReplyCode.NOT_ALLOWED, octets("ENHANCED_UDP_MODE refused by rule")),
        BEHIND_THE_END,
    ],
    "greeting of SOCKS 4": [Line(octets("SOCKS 4 CONNECT")[:1], WireError), BEHIND_THE_END],
    "login of another version": [GREETING, Line(b"\x05", WireError, says=octets("userpass refused")), BEHIND_THE_END],
    "login without a name": [
        GREETING,
        Line(octets("userpass with an empty name")[:2], WireError, says=octets("userpass refused")),
        BEHIND_THE_END,
    ],
    "request of another version": [NO_LOGIN, Line(b"\x01", WireError), BEHIND_THE_END],
    "request with an unknown address type": [
        NO_LOGIN,
        Line(bytes.fromhex("05010007"), WireError, says=bytes.fromhex("05080001000000000000")),
        BEHIND_THE_END,
    ],
    "request with an empty name": [
        NO_LOGIN,
        Line(bytes.fromhex("05010003000050"), WireError, says=octets("reply invalid address")),
        BEHIND_THE_END,
    ],
    "unknown packet type": [NO_LOGIN, ENHANCE, Line(octets("unknown packet type")[:1], WireError), BEHIND_THE_END],
    "SIZE too small": [NO_LOGIN, ENHANCE, BIND, Line(octets("SIZE below 13")[:3], WireError), BEHIND_THE_END],
    "message cut in a block": [
        NO_LOGIN,
        ENHANCE,
        Line(octets("SIZE cuts the remote address"), WireError),
        BEHIND_THE_END,
    ],
    "a reply from a client": [NO_LOGIN, ENHANCE, BIND, Line(octets("UDP BIND reply"), WireError), BEHIND_THE_END],
    "a reply from a client, its options broken": [
        NO_LOGIN,
        ENHANCE,
        Line(b"\x02" + octets("option overruns SIZE")[1:], WireError),
        BEHIND_THE_END,
    ],
    **server_lines.DIALOGUES,
}  # fmt: skip
dialogues = pytest.mark.parametrize("lines", DIALOGUES.values(), ids=DIALOGUES)


def connection(*, socks4: bool = False) -> ServerConnection:
    return ServerConnection(now=100.0, handshake_timeout_s=10.0, socks4=socks4)


def reached(*lines: Line, socks4: bool = False) -> ServerConnection:
    """A machine behind these lines, with nothing left to send."""
    machine = connection(socks4=socks4)
    assert play(machine, lines, [heard(lines)]) == script(lines)
    return machine


# --- dialogues ---


@dialogues
def test_each_line_gets_its_event_and_its_answer(lines: list[Line]) -> None:
    machine = connection()
    for line in lines:
        assert play(machine, [line], [line.hears]) == script([line])


@dialogues
def test_one_octet_at_a_time_changes_nothing(lines: list[Line]) -> None:
    """And each answer comes with the last octet of its message, neither sooner nor later."""
    machine = connection()
    for line in lines:
        *most, last = cut(line.hears, range(len(line.hears)))[1:]
        assert play(machine, [line], most) == Transcript()
        assert play(machine, [line], [last]) == script([line])


@dialogues
def test_one_segment_for_everything_changes_nothing(lines: list[Line]) -> None:
    assert play(connection(), lines, [heard(lines)]) == script(lines)


@dialogues
@quick
@given(data=st.data())
def test_any_cut_changes_nothing(lines: list[Line], data: st.DataObject) -> None:
    everything = heard(lines)
    places = data.draw(st.sets(st.integers(0, len(everything)), max_size=12))
    assert play(connection(), lines, cut(everything, places)) == script(lines)


def test_octets_behind_a_message_wait_while_an_answer_is_owed() -> None:
    machine = connection()
    machine.receive(heard([GREETING, LOGIN, ENHANCE, BIND]))
    for line in (GREETING, LOGIN, ENHANCE):
        assert machine.next_event() == line.event
        assert machine.next_event() is None
        assert machine.octets_to_send() == b""
        line.then(machine)
        assert machine.octets_to_send() == line.says
    assert machine.next_event() == BIND.event


def test_control_requests_do_not_wait_for_each_other_and_replies_keep_the_order_given() -> None:
    machine = reached(NO_LOGIN, ENHANCE)
    machine.receive(heard([BIND, SET_TTL]))
    assert [machine.next_event(), machine.next_event()] == [BIND.event, SET_TTL.event]
    SET_TTL.then(machine)
    BIND.then(machine)
    assert machine.octets_to_send() == SET_TTL.says + BIND.says


def test_octets_are_handed_out_once() -> None:
    machine = connection()
    machine.receive(GREETING.hears)
    machine.next_event()
    GREETING.then(machine)
    assert [machine.octets_to_send(), machine.octets_to_send()] == [GREETING.says, b""]


def test_request_whose_options_are_broken_is_an_event_and_the_channel_lives_on() -> None:
    machine = reached(NO_LOGIN, ENHANCE)
    machine.receive(octets("option overruns SIZE", "ATYP 07 in REMOTE: a reply, not a broken frame") + BIND.hears)
    requests = [machine.next_event() for _ in range(3)]
    faults = [event.request.fault for event in requests if isinstance(event, ControlRequested)]
    assert [fault and fault.reply for fault in faults] == [0x01, 0x08, None]
    assert requests[2] == BIND.event


# --- the end ---

ENDS = {name: lines for name, lines in DIALOGUES.items() if lines[-1] is BEHIND_THE_END}


@pytest.mark.parametrize("lines", ENDS.values(), ids=ENDS)
def test_after_the_end_nothing_is_heard_or_said(lines: list[Line]) -> None:
    machine = reached(*lines[:-1])
    assert (machine.state, machine.deadline) == (State.CLOSED, None)
    assert play(machine, lines, [heard(DIALOGUES["login and channel"])]) == Transcript()


def test_broken_frame_closes_only_its_own_machine() -> None:
    broken, other = reached(NO_LOGIN, ENHANCE), reached(NO_LOGIN, ENHANCE)
    broken.receive(octets("unknown packet type"))
    with pytest.raises(WireError):
        broken.next_event()
    assert (broken.state, other.state) == (State.CLOSED, State.ENHANCED)
    assert play(other, [BIND, ENCAPSULATED], [heard([BIND, ENCAPSULATED])]) == script([BIND, ENCAPSULATED])


def test_requests_before_a_broken_frame_still_come_out() -> None:
    machine = reached(NO_LOGIN, ENHANCE)
    machine.receive(BIND.hears + octets("SIZE 20 ends after LOCAL"))
    assert machine.next_event() == BIND.event
    with pytest.raises(WireError, match="ends too early"):
        machine.next_event()
    with pytest.raises(LocalError):
        machine.reply(BOUND)


@quick
@given(st.sampled_from(([], [GREETING], [NO_LOGIN], [NO_LOGIN, ENHANCE])), st.lists(hostile, max_size=4))
def test_any_octets_are_events_or_end_the_machine(lines: list[Line], segments: list[bytes]) -> None:
    machine = reached(*lines)
    for segment in segments:
        machine.receive(segment)
        try:
            while machine.next_event() is not None:
                pass
        except WireError:
            assert machine.state is State.CLOSED


# --- time ---


def test_one_deadline_covers_the_negotiation_and_ends_with_it() -> None:
    machine = connection()
    for line in (GREETING, LOGIN, LIST, ENHANCE):
        assert machine.deadline == 110.0
        machine.receive(line.hears)
        assert machine.next_event() == line.event
        assert machine.deadline == 110.0
        line.then(machine)
    assert machine.deadline is None


# --- verbs out of turn ---

CONNECT = Request(1, REMOTE)

STATES: dict[State, tuple[Line, ...]] = {
    State.AWAIT_GREETING: (),
    State.CHOOSE_METHOD: (Line(GREETING.hears, GREETING.event),),
    State.AWAIT_CREDENTIALS: (GREETING,),
    State.CHECK_CREDENTIALS: (GREETING, Line(LOGIN.hears, LOGIN.event)),
    State.AWAIT_REQUEST: (GREETING, LOGIN),
    State.AWAIT_SOCKS4_REQUEST: (Line(server_lines.SOCKS4_CONNECT.hears[:1]),),
    State.ANSWER_REQUEST: (GREETING, LOGIN, Line(ENHANCE.hears, ENHANCE.event)),
    State.ANSWER_CONNECT: (NO_LOGIN, Line(server_lines.CONNECT.hears, server_lines.CONNECT.event)),
    State.ANSWER_BIND: (NO_LOGIN, Line(server_lines.LISTEN.hears, server_lines.LISTEN.event)),
    State.AWAIT_PEER: (NO_LOGIN, server_lines.LISTEN),
    State.TRANSPARENT: (NO_LOGIN, server_lines.CONNECT),
    State.ANSWER_ASSOCIATE: (NO_LOGIN, Line(server_lines.ASSOCIATE.hears, server_lines.ASSOCIATE.event)),
    State.ASSOCIATED: (NO_LOGIN, server_lines.ASSOCIATE_ASKING),
    State.ANSWER_INTERFACE: (
        NO_LOGIN,
        server_lines.ASSOCIATE_ASKING,
        Line(server_lines.INTERFACE.hears, server_lines.INTERFACE.event),
    ),
    State.ENHANCED: (GREETING, LOGIN, ENHANCE),
    State.CLOSED: (Line(b"\x16", WireError),),
}
ANSWERS = {State.ANSWER_REQUEST, State.ANSWER_CONNECT, State.ANSWER_BIND, State.AWAIT_PEER, State.ANSWER_ASSOCIATE}
VERBS: dict[str, tuple[set[State], Verb]] = {  # each with the only states that know it
    "choose no authentication": ({State.CHOOSE_METHOD}, lambda m: m.choose_method(Method.NONE)),
    "choose userpass": ({State.CHOOSE_METHOD}, lambda m: m.choose_method(Method.USERPASS)),
    "refuse methods": ({State.CHOOSE_METHOD}, ServerConnection.refuse_methods),
    "accept login": ({State.CHECK_CREDENTIALS}, ServerConnection.accept_login),
    "refuse login": ({State.CHECK_CREDENTIALS}, ServerConnection.refuse_login),
    "enter enhanced": ({State.ANSWER_REQUEST}, ServerConnection.enter_enhanced),
    "list features": ({State.ANSWER_REQUEST}, lambda m: m.list_features(LIST_REQUEST, FEATURES)),
    "connected": ({State.ANSWER_CONNECT}, lambda m: m.connected(OUTSIDE)),
    "listening": ({State.ANSWER_BIND}, lambda m: m.listening(OUTSIDE)),
    "accepted": ({State.AWAIT_PEER}, lambda m: m.accepted(OUTSIDE)),
    "associated": ({State.ANSWER_ASSOCIATE}, lambda m: m.associated(OUTSIDE)),
    "associated, asking": (set(), lambda m: m.associated(OUTSIDE, RequestFlag.INTERFACE_REQUEST)),  # not asked for
    "report interface": ({State.ANSWER_INTERFACE}, lambda m: m.report_interface(OUTSIDE)),
    "refuse interface": ({State.ANSWER_INTERFACE}, lambda m: m.refuse_interface(ReplyCode.NOT_ALLOWED)),
    "fail request": (ANSWERS, lambda m: m.fail_request(CONNECT, ReplyCode.NOT_ALLOWED)),
    "reply": ({State.ENHANCED}, lambda m: m.reply(BOUND)),
}


def in_state(state: State) -> ServerConnection:
    return reached(*STATES[state], socks4=state is State.AWAIT_SOCKS4_REQUEST)


def test_every_state_is_reached_here() -> None:
    assert set(STATES) == set(State)
    for state in STATES:
        assert in_state(state).state is state


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", State)
def test_a_verb_out_of_turn_is_our_error_and_changes_nothing(state: State, verb: str) -> None:
    known, call = VERBS[verb]
    machine = in_state(state)
    deadline = machine.deadline
    if state in known:
        call(machine)
        assert machine.octets_to_send() != b""
        return
    with pytest.raises(LocalError):
        call(machine)
    assert (machine.state, machine.deadline, machine.octets_to_send()) == (state, deadline, b"")


@pytest.mark.parametrize("state", set(State) - {State.TRANSPARENT})
def test_nothing_is_handed_out_before_octets_pass_both_ways(state: State) -> None:
    machine = in_state(state)
    machine.receive(b"\x05")
    held = machine.octets_held
    with pytest.raises(LocalError, match=state.name):
        machine.leftover()
    assert (machine.state, machine.octets_held, machine.octets_to_send()) == (state, held, b"")


@pytest.mark.parametrize("method", [Method.GSSAPI, Method.NONE_ACCEPTABLE])
def test_a_method_that_is_not_served_cannot_be_chosen(method: Method) -> None:
    machine = in_state(State.CHOOSE_METHOD)
    with pytest.raises(LocalError, match=method.name):
        machine.choose_method(method)
    assert (machine.state, machine.octets_to_send()) == (State.CHOOSE_METHOD, b"")


def test_failure_may_name_what_was_bound() -> None:
    machine = in_state(State.ANSWER_CONNECT)
    machine.fail_request(CONNECT, ReplyCode.INVALID_ADDRESS, at("192.0.2.1", 0x1234))
    assert machine.octets_to_send() == bytes.fromhex("05090001c00002011234")
