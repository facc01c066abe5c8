"""The relay's end of one TCP connection: negotiation, requests, then the control channel.

The caller feeds octets with `receive`, takes events with `next_event` until it returns None, answers them with
the verbs below, and writes what `octets_to_send` gives. While an answer is owed no further event comes out, so
octets behind a message are never lost, however they were cut into segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from mcastsocks.address import UNUSED, Endpoint
from mcastsocks.errors import LocalError, WireError
from mcastsocks.protocol.stream import Stream
from mcastsocks.wire.control import ControlReply, ControlRequest, Encapsulated, parse_message
from mcastsocks.wire.features import FeatureList
from mcastsocks.wire.replies import ReplyCode
from mcastsocks.wire.socks5 import (
    ENHANCED_VERSION,
    VERSION,
    Command,
    Credentials,
    CredentialsReply,
    Greeting,
    Method,
    MethodChoice,
    Reply,
    Request,
    RequestFlag,
)


class State(Enum):
    AWAIT_GREETING = auto()
    CHOOSE_METHOD = auto()
    AWAIT_CREDENTIALS = auto()
    CHECK_CREDENTIALS = auto()
    AWAIT_REQUEST = auto()
    ANSWER_REQUEST = auto()
    ENHANCED = auto()
    CLOSED = auto()


class Step(Enum):
    """What moves the machine: a message that came in, or an answer of the caller."""

    GREETED = auto()
    METHOD_NONE = auto()
    METHOD_USERPASS = auto()
    NO_METHOD = auto()
    CREDENTIALS = auto()
    ACCEPTED = auto()
    REFUSED = auto()
    REQUESTED = auto()
    ENHANCED = auto()
    LISTED = auto()
    FINISHED = auto()


_TRANSITIONS = {
    (State.AWAIT_GREETING, Step.GREETED): State.CHOOSE_METHOD,
    (State.CHOOSE_METHOD, Step.METHOD_NONE): State.AWAIT_REQUEST,
    (State.CHOOSE_METHOD, Step.METHOD_USERPASS): State.AWAIT_CREDENTIALS,
    (State.CHOOSE_METHOD, Step.NO_METHOD): State.CLOSED,
    (State.AWAIT_CREDENTIALS, Step.CREDENTIALS): State.CHECK_CREDENTIALS,
    (State.CHECK_CREDENTIALS, Step.ACCEPTED): State.AWAIT_REQUEST,
    (State.CHECK_CREDENTIALS, Step.REFUSED): State.CLOSED,
    (State.AWAIT_REQUEST, Step.REQUESTED): State.ANSWER_REQUEST,
    (State.ANSWER_REQUEST, Step.ENHANCED): State.ENHANCED,
    (State.ANSWER_REQUEST, Step.LISTED): State.AWAIT_REQUEST,
    (State.ANSWER_REQUEST, Step.FINISHED): State.CLOSED,
}


@dataclass(frozen=True, slots=True)
class MethodsOffered:
    """Answer with `choose_method` or `refuse_methods`."""

    methods: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoginAttempted:
    """Answer with `accept_login` or `refuse_login`."""

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class RequestMade:
    """Answer with `enter_enhanced`, `list_features` or `fail_request`."""

    request: Request


@dataclass(frozen=True, slots=True)
class ControlRequested:
    """Answer with `reply`, now or later, in any order."""

    request: ControlRequest


@dataclass(frozen=True, slots=True)
class DatagramEncapsulated:
    """Needs no answer."""

    datagram: Encapsulated


Event = MethodsOffered | LoginAttempted | RequestMade | ControlRequested | DatagramEncapsulated


class ServerConnection(Stream):
    """One connection's machine. `deadline` is when an unfinished negotiation must be given up."""

    def __init__(self, now: float, handshake_timeout_s: float) -> None:
        super().__init__()
        self.state = State.AWAIT_GREETING
        self._deadline = now + handshake_timeout_s

    @property
    def deadline(self) -> float | None:
        return None if self.state in (State.ENHANCED, State.CLOSED) else self._deadline

    def next_event(self) -> Event | None:
        """The next thing to answer; None while octets are missing or an answer is owed.

        Raises WireError when the peer broke the protocol: the machine is then CLOSED, with a reply to send where
        there is one.
        """
        try:
            match self.state:
                case State.AWAIT_GREETING:
                    if greeting := self._take(Greeting.parse):
                        self._move(Step.GREETED)
                        return MethodsOffered(greeting.methods)
                case State.AWAIT_CREDENTIALS:
                    if credentials := self._take(Credentials.parse):
                        self._move(Step.CREDENTIALS)
                        return LoginAttempted(credentials)
                case State.AWAIT_REQUEST:
                    if request := self._take(Request.parse):
                        self._move(Step.REQUESTED)
                        return RequestMade(request)
                case State.ENHANCED:
                    return self._next_message()
        except WireError as error:
            self._break(error)
            raise
        return None

    def choose_method(self, method: Method) -> None:
        steps = {Method.NONE: Step.METHOD_NONE, Method.USERPASS: Step.METHOD_USERPASS}
        if method not in steps:
            raise LocalError(f"method {method.name} cannot be chosen")
        self._move(steps[method])
        self._outgoing += MethodChoice(method).encode()

    def refuse_methods(self) -> None:
        self._move(Step.NO_METHOD)
        self._outgoing += MethodChoice(Method.NONE_ACCEPTABLE).encode()

    def accept_login(self) -> None:
        self._move(Step.ACCEPTED)
        self._outgoing += CredentialsReply(0).encode()

    def refuse_login(self) -> None:
        self._move(Step.REFUSED)
        self._outgoing += CredentialsReply(1).encode()

    def enter_enhanced(self) -> None:
        self._move(Step.ENHANCED)
        self._outgoing += Reply(ReplyCode.SUCCEEDED, version=ENHANCED_VERSION).encode()

    def list_features(self, request: Request, features: FeatureList) -> None:
        """Answer LIST-FEATURES; the connection is kept for another command when the client asked for that (ext)."""
        persistent = request.flag & RequestFlag.PERSISTENT
        self._move(Step.LISTED if persistent else Step.FINISHED)
        self._outgoing += Reply(ReplyCode.SUCCEEDED, flag=persistent).encode() + features.encode()

    def fail_request(self, request: Request, code: ReplyCode, bound: Endpoint = UNUSED) -> None:
        """A relay that knows ENHANCED_UDP_MODE says no with the extension's version (mcast §4.1.1)."""
        known = request.command == Command.ENHANCED_UDP_MODE and code != ReplyCode.COMMAND_NOT_SUPPORTED
        self._move(Step.FINISHED)
        self._outgoing += Reply(code, bound, version=ENHANCED_VERSION if known else VERSION).encode()

    def reply(self, reply: ControlReply) -> None:
        if self.state is not State.ENHANCED:
            raise LocalError(f"a control reply in {self.state.name}")
        self._outgoing += reply.encode()

    def _next_message(self) -> Event | None:
        message = self._take(parse_message)
        match message:
            case ControlRequest():
                return ControlRequested(message)
            case Encapsulated():
                return DatagramEncapsulated(message)
            case ControlReply():
                raise WireError("a reply from a client")
        return None

    def _move(self, step: Step) -> None:
        try:
            self.state = _TRANSITIONS[self.state, step]
        except KeyError:
            raise LocalError(f"{step.name} in {self.state.name}") from None

    def _break(self, error: WireError) -> None:
        if self.state is State.AWAIT_CREDENTIALS:
            self._outgoing += CredentialsReply(1).encode()
        elif self.state is State.AWAIT_REQUEST and error.reply is not None:
            self._outgoing += Reply(error.reply).encode()
        self.state = State.CLOSED
        self._received.clear()
