"""The client's end of one TCP connection, up to and in the control channel."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from mcastsocks.errors import LocalError, LoginRefused, RequestRefused, WireError
from mcastsocks.protocol.stream import Stream
from mcastsocks.wire.control import ControlReply, ControlRequest, Encapsulated, parse_message
from mcastsocks.wire.features import FeatureList
from mcastsocks.wire.replies import meaning
from mcastsocks.wire.socks5 import (
    ENHANCED_VERSION,
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
    IDLE = auto()
    AWAIT_METHOD = auto()
    AWAIT_LOGIN = auto()
    READY = auto()
    AWAIT_REPLY = auto()
    AWAIT_FEATURES_REPLY = auto()
    AWAIT_FEATURES = auto()
    ENHANCED = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The relay knows us; a request may be made."""


@dataclass(frozen=True, slots=True)
class FeaturesListed:
    """What the relay can do for us; without `persistent` it closes the connection now."""

    features: FeatureList
    persistent: bool


@dataclass(frozen=True, slots=True)
class EnhancedEntered:
    """The connection is a control channel now."""


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """An answer to a control request; its `tid` says to which."""

    reply: ControlReply


@dataclass(frozen=True, slots=True)
class DatagramEncapsulated:
    """A datagram that came over the control channel."""

    datagram: Encapsulated


Event = LoggedIn | FeaturesListed | EnhancedEntered | ReplyReceived | DatagramEncapsulated


class ClientConnection(Stream):
    """One connection's machine, used like the server's: receive, next_event, octets_to_send."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        super().__init__()
        self.state = State.IDLE
        self._credentials = credentials
        self._persistent = False
        self._ended = False

    def greet(self) -> None:
        """Offer no authentication, and username/password when there are credentials."""
        self._expect(State.IDLE)
        methods = (Method.NONE,) if self._credentials is None else (Method.NONE, Method.USERPASS)
        self._outgoing += Greeting(methods).encode()
        self.state = State.AWAIT_METHOD

    def request_features(self) -> None:
        """Ask what the relay can do, and to be kept for another command (ext)."""
        self._expect(State.READY)
        self._outgoing += Request(Command.LIST_FEATURES, flag=RequestFlag.PERSISTENT).encode()
        self.state = State.AWAIT_FEATURES_REPLY

    def request_enhanced(self) -> None:
        self._expect(State.READY)
        self._outgoing += Request(Command.ENHANCED_UDP_MODE).encode()
        self.state = State.AWAIT_REPLY

    def send(self, message: ControlRequest | Encapsulated) -> None:
        self._expect(State.ENHANCED)
        self._outgoing += message.encode()

    def receive_end(self) -> None:
        """The relay sends no more; ask for events once again, because a feature list may be whole now."""
        self._ended = True

    def next_event(self) -> Event | None:
        """What the relay said; None while octets are missing.

        Raises LoginRefused or RequestRefused when the relay said no, WireError when it broke the protocol; the
        machine is CLOSED then.
        """
        try:
            match self.state:
                case State.AWAIT_METHOD:
                    if choice := self._take(MethodChoice.parse):
                        return self._on_method(choice.method)
                case State.AWAIT_LOGIN:
                    if outcome := self._take(CredentialsReply.parse):
                        return self._on_login(outcome.status)
                case State.AWAIT_REPLY:
                    if reply := self._take(Reply.parse):
                        return self._on_reply(reply)
                case State.AWAIT_FEATURES_REPLY:
                    if reply := self._take(Reply.parse):
                        return self._on_features_reply(reply)
                case State.AWAIT_FEATURES:
                    if features := self._take(partial(FeatureList.parse, ended=self._ended)):
                        return self._on_features(features)
                case State.ENHANCED:
                    return self._next_message()
        except (WireError, LoginRefused, RequestRefused):
            self.state = State.CLOSED
            raise
        return None

    def _on_method(self, method: int) -> Event | None:
        if method == Method.NONE:
            self.state = State.READY
            return LoggedIn()
        if method == Method.USERPASS and self._credentials is not None:
            self._outgoing += self._credentials.encode()
            self.state = State.AWAIT_LOGIN
            return self.next_event()
        if method == Method.NONE_ACCEPTABLE:
            hint = "" if self._credentials else " (it may want a name and password: socks5://name:password@host)"
            raise LoginRefused(f"the relay accepts none of the authentication methods offered{hint}")
        raise WireError(f"the relay chose method X'{method:02x}', which was not offered")

    def _on_login(self, status: int) -> Event:
        if status:
            raise LoginRefused("the relay does not accept this name and password")
        self.state = State.READY
        return LoggedIn()

    def _on_features_reply(self, reply: Reply) -> Event | None:
        if reply.code:
            raise RequestRefused(f"the relay lists no features: {meaning(reply.code)}", reply.code)
        self._persistent = bool(reply.flag & RequestFlag.PERSISTENT)
        self.state = State.AWAIT_FEATURES
        return self.next_event()

    def _on_features(self, features: FeatureList) -> Event:
        persistent = self._persistent and not self._ended
        self.state = State.READY if persistent else State.CLOSED
        return FeaturesListed(features, persistent)

    def _on_reply(self, reply: Reply) -> Event:
        if reply.code:
            raise RequestRefused(f"the relay refused the enhanced mode: {meaning(reply.code)}", reply.code)
        if reply.version != ENHANCED_VERSION:
            raise WireError("the relay's reply to ENHANCED_UDP_MODE lacks the extension's version")
        self.state = State.ENHANCED
        return EnhancedEntered()

    def _next_message(self) -> Event | None:
        message = self._take(parse_message)
        match message:
            case ControlReply():
                return ReplyReceived(message)
            case Encapsulated():
                return DatagramEncapsulated(message)
            case ControlRequest():
                raise WireError("a request from a relay")
        return None

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise LocalError(f"needs {state.name}, but the connection is in {self.state.name}")
