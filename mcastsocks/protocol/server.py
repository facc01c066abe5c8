"""The relay's end of one TCP connection: negotiation, requests, then the control channel.

The caller feeds octets with `receive`, takes events with `next_event` until it returns None, answers them with
the verbs below, and writes what `octets_to_send` gives. While an answer is owed no further event comes out, so
octets behind a message are never lost, however they were cut into segments. A verb out of turn raises LocalError
and changes nothing.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from mcastsocks.address import UNUSED, Endpoint, unmapped_endpoint
from mcastsocks.errors import LocalError, WireError
from mcastsocks.protocol.server_events import (
    ControlRequested,
    DatagramEncapsulated,
    Event,
    InterfaceAsked,
    LoginAttempted,
    MethodsOffered,
    RequestMade,
)
from mcastsocks.protocol.server_states import HANDSHAKE, REQUESTED, TRANSITIONS, State, Step
from mcastsocks.protocol.stream import Stream
from mcastsocks.wire import socks4, socks5
from mcastsocks.wire.control import ControlReply, ControlRequest, Encapsulated, parse_message
from mcastsocks.wire.features import FeatureList
from mcastsocks.wire.replies import ReplyCode
from mcastsocks.wire.socks4 import Socks4Reply, Socks4Request
from mcastsocks.wire.socks5 import (
    ENHANCED_VERSION,
    Command,
    Credentials,
    CredentialsReply,
    Greeting,
    InterfaceData,
    Method,
    MethodChoice,
    Reply,
    Request,
    RequestFlag,
)

__all__ = [
    "ControlRequested",
    "DatagramEncapsulated",
    "Event",
    "InterfaceAsked",
    "LoginAttempted",
    "MethodsOffered",
    "RequestMade",
    "ServerConnection",
    "State",
]

_SOCKS4 = bytes((socks4.VERSION,))


class ServerConnection(Stream):
    """One connection's machine. With `socks4` it speaks SOCKS 4 and 4a, too: the first octet decides."""

    def __init__(self, now: float, handshake_timeout_s: float, *, socks4: bool = False) -> None:
        super().__init__()
        self.state = State.AWAIT_GREETING
        self._deadline = now + handshake_timeout_s
        self._socks4_served = socks4
        self._version = socks5.VERSION
        self._asked = self._granted = RequestFlag.NONE  # of a UDP ASSOCIATE

    @property
    def deadline(self) -> float | None:
        """When an unfinished negotiation must be given up."""
        return self._deadline if self.state in HANDSHAKE else None

    def receive(self, octets: bytes) -> None:
        """What nobody will read is dropped: anything after the end, or on an association but INTERFACE DATA."""
        if self._listens:
            super().receive(octets)

    def next_event(self) -> Event | None:
        """The next thing to answer; None while octets are missing or an answer is owed.

        Raises WireError when the peer broke the protocol: the machine is then CLOSED, with a reply to send where
        there is one.
        """
        try:
            if self.state is State.AWAIT_GREETING and self._socks4_served and self._received[:1] == _SOCKS4:
                self._version = socks4.VERSION
                self._move(Step.GREETED_SOCKS4)
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
                        return self._on_request(request)
                case State.AWAIT_SOCKS4_REQUEST:
                    if older := self._take(Socks4Request.parse):
                        return self._on_request(Request(older.command, older.destination), older.user)
                case State.ASSOCIATED if self._listens:
                    if asked := self._take(InterfaceData.parse):
                        self._move(Step.INTERFACE_ASKED)
                        return InterfaceAsked(asked.destination)
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

    def connected(self, bound: Endpoint) -> None:
        """Answer CONNECT: `bound` is our own end of the connection outside. TRANSPARENT from here on."""
        self._move(Step.CONNECTED)
        self._reply(ReplyCode.SUCCEEDED, bound)

    def listening(self, bound: Endpoint) -> None:
        """Give BIND's first reply: `bound` is where a peer may connect to."""
        self._move(Step.LISTENING)
        self._reply(ReplyCode.SUCCEEDED, bound)

    def accepted(self, peer: Endpoint) -> None:
        """Give BIND's second reply: `peer` has connected. TRANSPARENT from here on."""
        self._move(Step.PEER_ACCEPTED)
        self._reply(ReplyCode.SUCCEEDED, peer)

    def leftover(self) -> bytes:
        """What the client sent behind its request, when TRANSPARENT; the caller moves all further octets itself."""
        self._move(Step.HANDED_OVER)
        return self._take_all()

    def associated(self, bound: Endpoint, flag: RequestFlag = RequestFlag.NONE) -> None:
        """Answer UDP ASSOCIATE: `bound` is where the client sends to, `flag` what is honoured of `udp_flags`."""
        if self.state is State.ANSWER_ASSOCIATE and flag & ~self._asked:
            raise LocalError(f"FLAG X'{flag:02x}' grants more than was asked for")
        self._move(Step.ASSOCIATED)
        self._granted = flag
        if not self._listens:
            self._received.clear()
        self._reply(ReplyCode.SUCCEEDED, bound, flag)

    def report_interface(self, external: Endpoint) -> None:
        """Answer INTERFACE DATA: the address and port that the destination will see."""
        self._move(Step.INTERFACE_ANSWERED)
        self._reply(ReplyCode.SUCCEEDED, external)

    def refuse_interface(self, code: ReplyCode) -> None:
        """Answer INTERFACE DATA with a failure; the association lives on."""
        self._move(Step.INTERFACE_ANSWERED)
        self._reply(code)

    def fail_request(self, request: Request, code: ReplyCode, bound: Endpoint = UNUSED) -> None:
        """A relay that knows ENHANCED_UDP_MODE says no with the extension's version (mcast §4.1.1).

        For BIND this is possible after the first reply, too.
        """
        known = request.command == Command.ENHANCED_UDP_MODE and code != ReplyCode.COMMAND_NOT_SUPPORTED
        self._move(Step.FINISHED)
        self._reply(code, bound, version=ENHANCED_VERSION if known else socks5.VERSION)

    def reply(self, reply: ControlReply) -> None:
        if self.state is not State.ENHANCED:
            raise LocalError(f"a control reply in {self.state.name}")
        self._outgoing += reply.encode()

    @property
    def _listens(self) -> bool:
        if self.state is State.ASSOCIATED:
            return RequestFlag.INTERFACE_REQUEST in self._granted
        return self.state is not State.CLOSED

    def _on_request(self, request: Request, socks4_user: bytes | None = None) -> Event:
        self._move(REQUESTED.get(request.command, Step.REQUESTED))
        self._asked = request.udp_flags
        return RequestMade(request, socks4_user)

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

    def _reply(self, code: int, bound: Endpoint = UNUSED, flag: int = 0, version: int = socks5.VERSION) -> None:
        """A reply of the version spoken. SOCKS 4 knows one failure, and for IPv6 no address but 0.0.0.0."""
        if self._version == socks5.VERSION:
            self._outgoing += Reply(code, bound, flag, version).encode()
            return
        bound = unmapped_endpoint(bound)
        if not isinstance(bound.host, IPv4Address):
            bound = Endpoint(UNUSED.host, bound.port)
        answer = socks4.Answer.REJECTED if code else socks4.Answer.GRANTED
        self._outgoing += Socks4Reply(answer, bound).encode()

    def _move(self, step: Step) -> None:
        try:
            self.state = TRANSITIONS[self.state, step]
        except KeyError:
            raise LocalError(f"{step.name} in {self.state.name}") from None

    def _break(self, error: WireError) -> None:
        if self.state is State.AWAIT_CREDENTIALS:
            self._outgoing += CredentialsReply(1).encode()
        elif self.state is not State.ENHANCED and error.reply is not None:
            self._reply(error.reply)
        self.state = State.CLOSED
        self._received.clear()
