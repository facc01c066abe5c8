"""The client's end of one TCP connection: negotiation, one request, and what that makes of the connection."""

from __future__ import annotations

from enum import Enum, auto
from functools import partial

from mcastsocks.address import UNUSED, Endpoint
from mcastsocks.errors import LocalError, LoginRefused, RequestRefused, WireError
from mcastsocks.protocol.client_events import (
    Associated,
    Connected,
    DatagramEncapsulated,
    EnhancedEntered,
    Event,
    FeaturesListed,
    InterfaceReported,
    Listening,
    LoggedIn,
    PeerAccepted,
    ReplyReceived,
)
from mcastsocks.protocol.stream import Stream
from mcastsocks.wire.control import ControlReply, ControlRequest, Encapsulated, parse_message
from mcastsocks.wire.features import FeatureList
from mcastsocks.wire.replies import meaning
from mcastsocks.wire.socks5 import (
    ENHANCED_VERSION,
    VERSION,
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
    "Associated",
    "ClientConnection",
    "Connected",
    "DatagramEncapsulated",
    "EnhancedEntered",
    "Event",
    "FeaturesListed",
    "InterfaceReported",
    "Listening",
    "LoggedIn",
    "PeerAccepted",
    "ReplyReceived",
    "State",
]


class State(Enum):
    IDLE = auto()
    AWAIT_METHOD = auto()
    AWAIT_LOGIN = auto()
    READY = auto()
    AWAIT_REPLY = auto()
    AWAIT_FEATURES_REPLY = auto()
    AWAIT_FEATURES = auto()
    AWAIT_CONNECT = auto()
    AWAIT_LISTENING = auto()
    AWAIT_PEER = auto()
    """BIND's first reply is here, the second one not yet."""
    TRANSPARENT = auto()
    """Octets pass both ways, and no longer through the machine."""
    AWAIT_ASSOCIATE = auto()
    ASSOCIATED = auto()
    AWAIT_INTERFACE = auto()
    ENHANCED = auto()
    CLOSED = auto()


_NEXT = {
    State.AWAIT_REPLY: State.ENHANCED,
    State.AWAIT_CONNECT: State.TRANSPARENT,
    State.AWAIT_LISTENING: State.AWAIT_PEER,
    State.AWAIT_PEER: State.TRANSPARENT,
    State.AWAIT_ASSOCIATE: State.ASSOCIATED,
}
"""Where a reply of success leads."""

_REFUSED = {
    State.AWAIT_REPLY: "the relay refused the enhanced mode",
    State.AWAIT_CONNECT: "the relay did not connect",
    State.AWAIT_LISTENING: "the relay refused to listen for a peer",
    State.AWAIT_PEER: "no peer came to the relay",
    State.AWAIT_ASSOCIATE: "the relay refused UDP ASSOCIATE",
}


class ClientConnection(Stream):
    """One connection's machine, used like the server's: receive, next_event, octets_to_send."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        super().__init__()
        self.state = State.IDLE
        self._credentials = credentials
        self._udp_flags = RequestFlag.NONE  # asked for, then granted
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
        request = Request(Command.LIST_FEATURES, flag=RequestFlag.PERSISTENT)
        self._request(request, State.AWAIT_FEATURES_REPLY)

    def request_enhanced(self) -> None:
        self._request(Request(Command.ENHANCED_UDP_MODE), State.AWAIT_REPLY)

    def request_connect(self, destination: Endpoint) -> None:
        self._request(Request(Command.CONNECT, destination), State.AWAIT_CONNECT)

    def request_bind(self, peer: Endpoint) -> None:
        """Have the relay listen for one connection; `peer` is who is expected to connect."""
        self._request(Request(Command.BIND, peer), State.AWAIT_LISTENING)

    def request_associate(self, local: Endpoint = UNUSED, flag: RequestFlag = RequestFlag.NONE) -> None:
        """Ask for an association; `local` is where we send from, if known. USECLIENTSPORT needs a port in it."""
        request = Request(Command.UDP_ASSOCIATE, local, flag)
        self._request(request, State.AWAIT_ASSOCIATE)
        self._udp_flags = request.udp_flags

    def ask_interface(self, destination: Endpoint) -> None:
        """Ask which outside address a destination will see; one question at a time (pro-v5 §8)."""
        self._expect(State.ASSOCIATED)
        if RequestFlag.INTERFACE_REQUEST not in self._udp_flags:
            raise LocalError("the relay did not grant INTERFACE REQUEST")
        self._outgoing += InterfaceData(destination).encode()
        self.state = State.AWAIT_INTERFACE

    def leftover(self) -> bytes:
        """What came behind the reply, when TRANSPARENT; the caller moves all further octets itself."""
        self._expect(State.TRANSPARENT)
        return self._take_all()

    def send(self, message: ControlRequest | Encapsulated) -> None:
        self._expect(State.ENHANCED)
        self._outgoing += message.encode()

    def receive(self, octets: bytes) -> None:
        """What nobody will read is dropped: anything after the end, or on an association but answers."""
        if self.state not in (State.ASSOCIATED, State.CLOSED):
            super().receive(octets)

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
                case state if state in _NEXT:
                    if reply := self._take(Reply.parse):
                        return self._on_reply(reply)
                case State.AWAIT_INTERFACE:
                    if reply := self._take(Reply.parse):
                        return self._on_interface(reply)
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
            raise RequestRefused(f"{_REFUSED[self.state]}: {meaning(reply.code)}", reply.code)
        version = ENHANCED_VERSION if self.state is State.AWAIT_REPLY else VERSION
        if reply.version != version:
            raise WireError(f"expected a reply of version X'{version:02x}', not X'{reply.version:02x}'")
        asked, self.state = self.state, _NEXT[self.state]
        match asked:
            case State.AWAIT_CONNECT:
                return Connected(reply.bound)
            case State.AWAIT_LISTENING:
                return Listening(reply.bound)
            case State.AWAIT_PEER:
                return PeerAccepted(reply.bound)
            case State.AWAIT_ASSOCIATE:
                return self._on_associated(reply)
        return EnhancedEntered()

    def _on_associated(self, reply: Reply) -> Event:
        self._udp_flags &= reply.flag  # a foreign relay may have anything there: for RFC 1928 the octet is reserved
        self._received.clear()
        return Associated(reply.bound, self._udp_flags)

    def _on_interface(self, reply: Reply) -> Event:
        self.state = State.ASSOCIATED
        self._received.clear()
        return InterfaceReported(reply.code, reply.bound)

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

    def _request(self, request: Request, state: State) -> None:
        self._expect(State.READY)
        self._outgoing += request.encode()
        self.state = state

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise LocalError(f"needs {state.name}, but the connection is in {self.state.name}")
