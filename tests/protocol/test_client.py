"""The client's machine: whole dialogues in every cut, and what relays may refuse or get wrong."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.address import Endpoint
from mcastsocks.errors import LocalError, LoginRefused, RelayError, RequestRefused, WireError
from mcastsocks.protocol.client import (
    ClientConnection,
    DatagramEncapsulated,
    EnhancedEntered,
    FeaturesListed,
    LoggedIn,
    ReplyReceived,
    State,
)
from mcastsocks.wire.control import ControlReply, ControlRequest, Encapsulated
from mcastsocks.wire.features import Feature, FeatureList
from mcastsocks.wire.options import Option
from tests.protocol.client_lines import (
    ALICE,
    ASSOCIATES_ASKING,
    BEHIND_THE_END,
    BINDS,
    CONNECTED,
    CONNECTS,
    DNS,
    GRANTED,
    LISTENING,
    REQUESTS,
    WEB,
    Line,
    connection,
    no,
    reached,
)
from tests.protocol.dialogue import Transcript, cut, heard, play, script
from tests.vectors import octets
from tests.wire.strategies import hostile, quick

BIND = ControlRequest(
    5, 258, 0, 7, 0, Endpoint(ip_address("192.0.2.10"), 40000), Endpoint(ip_address("198.51.100.7"), 53)
)
RELEASE = ControlRequest(6, 17, 0x01020304, 3)
BOUND = ControlReply(
    0, 258, 0xDEADBEEF, 7, Endpoint(ip_address("192.0.2.1"), 1080), Endpoint(ip_address("203.0.113.1"), 50123)
)
REASON = ControlReply(0x11, 33, flags=0x8000, options=(Option(5, b"no rule fits"),))

METHOD_USERPASS = Line(octets("method: userpass"), says=octets("userpass request"))
LOGIN = Line(octets("userpass ok"), LoggedIn(), ClientConnection.request_enhanced, octets("ENHANCED_UDP_MODE"))
NO_LOGIN = Line(bytes.fromhex("0500"), LoggedIn(), ClientConnection.request_enhanced, octets("ENHANCED_UDP_MODE"))
ENHANCED = Line(
    octets("ENHANCED_UDP_MODE reply carries the extension's version"),
    EnhancedEntered(),
    lambda m: m.send(BIND),
    octets("UDP BIND unicast both ways"),
)
ANSWER = Line(
    octets("UDP BIND reply"),
    ReplyReceived(BOUND),
    lambda m: m.send(RELEASE),
    octets("UDP RELEASE both directions"),
)
ENCAPSULATED = Line(octets("encapsulated datagram"), DatagramEncapsulated(Encapsulated(0xDEADBEEF, b"ping")))
REFUSAL = Line(octets("extension: reason of a refusal"), ReplyReceived(REASON))

ADMITTED = [METHOD_USERPASS, LOGIN, ENHANCED]

ASKS = Line(octets("userpass ok"), LoggedIn(), ClientConnection.request_features, octets("LIST-FEATURES persistent"))
FEATURES = FeatureList((Feature(4, 4, bytes.fromhex("010281828384")),))
LIST = octets("feature list of this project")
LISTED = Line(
    octets("LIST-FEATURES granted, persistent") + LIST,
    FeaturesListed(FEATURES, persistent=True),
    ClientConnection.request_enhanced,
    octets("ENHANCED_UDP_MODE"),
)
LISTED_ONCE = Line(bytes.fromhex("05000001000000000000") + LIST, FeaturesListed(FEATURES, persistent=False))


DIALOGUES = {
    "login and channel": [METHOD_USERPASS, LOGIN, ENHANCED, ANSWER, ENCAPSULATED, REFUSAL, ANSWER],
    "login not needed": [NO_LOGIN, ENHANCED, ANSWER],
    "features, then the channel": [METHOD_USERPASS, ASKS, LISTED, ENHANCED, ANSWER],
    "features of a relay that closes then": [METHOD_USERPASS, ASKS, LISTED_ONCE, BEHIND_THE_END],
    "features of a relay that answers with another protocol": [METHOD_USERPASS, ASKS, *no(b"HTTP"[:1], WireError)],
    "features refused": [METHOD_USERPASS, ASKS, *no("05070001000000000000", RequestRefused)],
    "no method": no(octets("method: none acceptable is two octets"), LoginRefused),
    "a method that was not offered": no("0501", WireError),
    "a method of another version": no("01", WireError),
    "wrong password": [METHOD_USERPASS, *no(octets("userpass refused"), LoginRefused)],
    "login with any other status": [METHOD_USERPASS, *no("01ff", LoginRefused)],
    "login reply of another version": [METHOD_USERPASS, *no("05", WireError)],
    "switched off": [METHOD_USERPASS, LOGIN, *no(octets("ENHANCED_UDP_MODE switched off"), RequestRefused)],
    "denied by a rule": [METHOD_USERPASS, LOGIN, *no(octets("ENHANCED_UDP_MODE refused by rule"), RequestRefused)],
    "denied in version 5": [METHOD_USERPASS, LOGIN, *no("05020001000000000000", RequestRefused)],
    "a success without the extension's version": [METHOD_USERPASS, LOGIN, *no("05000001000000000000", WireError)],
    "a reply of no version": [METHOD_USERPASS, LOGIN, *no("00", WireError)],
    "a reply with an unknown address type": [METHOD_USERPASS, LOGIN, *no("01000007", WireError)],
    "a request from the relay": [*ADMITTED, ANSWER, *no(octets("UDP BIND unicast both ways"), WireError)],
    "unknown packet type": [*ADMITTED, ANSWER, *no(octets("unknown packet type")[:1], WireError)],
    "encapsulated SIZE too small": [*ADMITTED, *no(octets("encapsulated SIZE below 7")[:3], WireError)],
    "reply cut in a block": [*ADMITTED, *no(b"\x02" + octets("SIZE cuts the remote address")[1:], WireError)],
    "reply with broken options": [*ADMITTED, *no(b"\x02" + octets("option overruns SIZE")[1:], WireError)],
    **REQUESTS,
}
dialogues = pytest.mark.parametrize("lines", DIALOGUES.values(), ids=DIALOGUES)


# --- dialogues ---


def test_greeting_offers_a_password_only_when_there_is_one() -> None:
    with_password, without = ClientConnection(ALICE), ClientConnection()
    with_password.greet()
    without.greet()
    assert with_password.octets_to_send() == octets("greeting: none and userpass")
    assert without.octets_to_send() == bytes.fromhex("050100")


@dialogues
def test_each_line_gets_its_event_and_its_answer(lines: list[Line]) -> None:
    machine = connection()
    for line in lines:
        assert play(machine, [line], [line.hears]) == script([line])


@dialogues
def test_one_octet_at_a_time_changes_nothing(lines: list[Line]) -> None:
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


def test_octets_behind_the_last_reply_already_belong_to_the_channel() -> None:
    machine = reached(METHOD_USERPASS, LOGIN)
    machine.receive(ENHANCED.hears + ENCAPSULATED.hears)
    assert [machine.next_event(), machine.next_event()] == [ENHANCED.event, ENCAPSULATED.event]


# --- refusals ---

ENDS = {name: lines for name, lines in DIALOGUES.items() if lines[-1] is BEHIND_THE_END}


@pytest.mark.parametrize("lines", ENDS.values(), ids=ENDS)
def test_after_the_end_nothing_is_heard_or_said(lines: list[Line]) -> None:
    machine = reached(*lines[:-1])
    assert machine.state is State.CLOSED
    assert play(machine, lines, [heard(DIALOGUES["login and channel"])]) == Transcript()


@pytest.mark.parametrize("method", ["05ff", "0501", "0502", "0580"])
def test_no_password_means_that_none_is_asked_for(method: str) -> None:
    machine = connection(credentials=None)
    machine.receive(bytes.fromhex(method))
    with pytest.raises(LoginRefused if method == "05ff" else WireError):
        machine.next_event()
    assert (machine.state, machine.octets_to_send()) == (State.CLOSED, b"")


def test_refusal_of_all_methods_hints_at_a_password_that_was_not_given() -> None:
    for credentials, hint in ((None, True), (ALICE, False)):
        machine = connection(credentials)
        machine.receive(octets("method: none acceptable is two octets"))
        with pytest.raises(RelayError) as caught:
            machine.next_event()
        assert ("name and password" in str(caught.value)) is hint


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        ("05070001000000000000", 0x07, "command not supported"),
        ("01020001000000000000", 0x02, "not allowed by ruleset"),
        ("05010000000000000000", 0x01, "general failure"),  # a foreign relay that leaves its address unused
        ("05990001000000000000", 0x99, "X'99'"),
    ],
)
def test_refused_request_carries_its_code_and_its_words(reply: str, code: int, words: str) -> None:
    machine = reached(METHOD_USERPASS, LOGIN)
    machine.receive(bytes.fromhex(reply))
    with pytest.raises(RequestRefused, match=words) as caught:
        machine.next_event()
    assert caught.value.code == code


@quick
@given(st.sampled_from(([], [METHOD_USERPASS], [NO_LOGIN], ADMITTED)), st.lists(hostile, max_size=4))
def test_any_octets_are_events_or_end_the_machine(lines: list[Line], segments: list[bytes]) -> None:
    machine = reached(*lines)
    for segment in segments:
        machine.receive(segment)
        try:
            while machine.next_event() is not None:
                pass
        except (WireError, RelayError):
            assert machine.state is State.CLOSED


def test_a_feature_list_without_an_end_is_given_up() -> None:
    machine = reached(METHOD_USERPASS, ASKS)
    machine.receive(octets("LIST-FEATURES granted, persistent") + 16_384 * b"\0")
    with pytest.raises(WireError, match="without an end"):
        machine.next_event()
    assert machine.state is State.CLOSED


# --- the relay sends no more ---


@pytest.mark.parametrize("end", ["ff", "ff00", "ff0000"])
def test_a_list_is_whole_when_the_stream_ends_behind_its_tag_ff(end: str) -> None:
    machine = reached(METHOD_USERPASS, ASKS)
    machine.receive(octets("LIST-FEATURES granted, persistent") + LIST[:-3] + bytes.fromhex(end)[:2])
    assert machine.next_event() is None
    machine.receive(bytes.fromhex(end)[2:])
    machine.receive_end()
    assert machine.next_event() == FeaturesListed(FEATURES, persistent=False)
    assert machine.state is State.CLOSED


@pytest.mark.parametrize("octets_left", range(len(LIST) - 3))
def test_a_list_that_ends_anywhere_else_is_broken(octets_left: int) -> None:
    machine = reached(METHOD_USERPASS, ASKS)
    machine.receive(octets("LIST-FEATURES granted, persistent") + LIST[:octets_left])
    machine.receive_end()
    with pytest.raises(WireError, match="without its END"):
        machine.next_event()
    assert machine.state is State.CLOSED


@pytest.mark.parametrize("state", set(State) - {State.AWAIT_FEATURES})
def test_an_end_says_nothing_anywhere_else(state: State) -> None:
    machine = in_state(state)
    machine.receive_end()
    assert machine.next_event() is None
    assert (machine.state, machine.octets_to_send()) == (state, b"")


# --- verbs out of turn ---

VERBS = {  # each with the only state that knows it
    "greet": (State.IDLE, ClientConnection.greet),
    "request features": (State.READY, ClientConnection.request_features),
    "request enhanced": (State.READY, ClientConnection.request_enhanced),
    "request connect": (State.READY, lambda m: m.request_connect(WEB)),
    "request bind": (State.READY, lambda m: m.request_bind(WEB)),
    "request associate": (State.READY, ClientConnection.request_associate),
    "ask interface": (State.ASSOCIATED, lambda m: m.ask_interface(DNS)),
    "send": (State.ENHANCED, lambda m: m.send(BIND)),
}


def in_state(state: State) -> ClientConnection:
    ready = Line(LOGIN.hears, LOGIN.event)
    lines = {
        State.AWAIT_METHOD: [],
        State.AWAIT_LOGIN: [METHOD_USERPASS],
        State.READY: [METHOD_USERPASS, ready],
        State.AWAIT_REPLY: [METHOD_USERPASS, LOGIN],
        State.AWAIT_FEATURES_REPLY: [METHOD_USERPASS, ASKS],
        State.AWAIT_FEATURES: [METHOD_USERPASS, ASKS, Line(LISTED.hears[:10])],
        State.AWAIT_CONNECT: [CONNECTS],
        State.AWAIT_LISTENING: [BINDS],
        State.AWAIT_PEER: [BINDS, LISTENING],
        State.TRANSPARENT: [CONNECTS, CONNECTED],
        State.AWAIT_ASSOCIATE: [ASSOCIATES_ASKING],
        State.ASSOCIATED: [ASSOCIATES_ASKING, Line(GRANTED.hears, GRANTED.event)],
        State.AWAIT_INTERFACE: [ASSOCIATES_ASKING, GRANTED],
        State.ENHANCED: ADMITTED,
        State.CLOSED: no("05ff", LoginRefused)[:1],
    }
    machine = ClientConnection(ALICE) if state is State.IDLE else reached(*lines[state])
    assert machine.state is state
    return machine


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", State)
def test_a_verb_out_of_turn_is_our_error_and_changes_nothing(state: State, verb: str) -> None:
    only, call = VERBS[verb]
    machine = in_state(state)
    if state is only:
        call(machine)
        assert machine.octets_to_send() != b""
        return
    with pytest.raises(LocalError, match=state.name):
        call(machine)
    assert (machine.state, machine.octets_to_send()) == (state, b"")


@pytest.mark.parametrize("state", set(State) - {State.TRANSPARENT})
def test_nothing_is_handed_out_before_octets_pass_both_ways(state: State) -> None:
    machine = in_state(state)
    machine.receive(b"\x05")
    held = machine.octets_held
    with pytest.raises(LocalError, match=state.name):
        machine.leftover()
    assert (machine.state, machine.octets_held) == (state, held)


@pytest.mark.parametrize("state", [State.IDLE, State.READY])
def test_octets_nobody_asked_for_wait(state: State) -> None:
    machine = in_state(state)
    machine.receive(ENHANCED.hears)
    assert machine.next_event() is None
    assert (machine.state, machine.octets_to_send()) == (state, b"")
