"""The states of the relay's end of a TCP connection, and what moves it from one to the next."""

from __future__ import annotations

from enum import Enum, auto

from mcastsocks.wire.socks5 import Command


class State(Enum):
    AWAIT_GREETING = auto()
    CHOOSE_METHOD = auto()
    AWAIT_CREDENTIALS = auto()
    CHECK_CREDENTIALS = auto()
    AWAIT_REQUEST = auto()
    AWAIT_SOCKS4_REQUEST = auto()
    ANSWER_REQUEST = auto()
    """ENHANCED_UDP_MODE, LIST-FEATURES, or a command that nobody knows."""
    ANSWER_CONNECT = auto()
    ANSWER_BIND = auto()
    AWAIT_PEER = auto()
    """BIND's first reply is out, the second one owed."""
    TRANSPARENT = auto()
    """Octets pass both ways, and no longer through the machine."""
    ANSWER_ASSOCIATE = auto()
    ASSOCIATED = auto()
    ANSWER_INTERFACE = auto()
    ENHANCED = auto()
    CLOSED = auto()


class Step(Enum):
    """What moves the machine: a message that came in, or an answer of the caller."""

    GREETED = auto()
    GREETED_SOCKS4 = auto()
    METHOD_NONE = auto()
    METHOD_USERPASS = auto()
    NO_METHOD = auto()
    CREDENTIALS = auto()
    ACCEPTED = auto()
    REFUSED = auto()
    REQUESTED = auto()
    CONNECT_REQUESTED = auto()
    BIND_REQUESTED = auto()
    ASSOCIATE_REQUESTED = auto()
    ENHANCED = auto()
    LISTED = auto()
    CONNECTED = auto()
    LISTENING = auto()
    PEER_ACCEPTED = auto()
    ASSOCIATED = auto()
    INTERFACE_ASKED = auto()
    INTERFACE_ANSWERED = auto()
    HANDED_OVER = auto()
    FINISHED = auto()


REQUESTED: dict[int, Step] = {
    Command.CONNECT: Step.CONNECT_REQUESTED,
    Command.BIND: Step.BIND_REQUESTED,
    Command.UDP_ASSOCIATE: Step.ASSOCIATE_REQUESTED,
}
"""The step of a command that has verbs of its own; any other is REQUESTED."""

TRANSITIONS = {
    (State.AWAIT_GREETING, Step.GREETED): State.CHOOSE_METHOD,
    (State.AWAIT_GREETING, Step.GREETED_SOCKS4): State.AWAIT_SOCKS4_REQUEST,
    (State.CHOOSE_METHOD, Step.METHOD_NONE): State.AWAIT_REQUEST,
    (State.CHOOSE_METHOD, Step.METHOD_USERPASS): State.AWAIT_CREDENTIALS,
    (State.CHOOSE_METHOD, Step.NO_METHOD): State.CLOSED,
    (State.AWAIT_CREDENTIALS, Step.CREDENTIALS): State.CHECK_CREDENTIALS,
    (State.CHECK_CREDENTIALS, Step.ACCEPTED): State.AWAIT_REQUEST,
    (State.CHECK_CREDENTIALS, Step.REFUSED): State.CLOSED,
    (State.AWAIT_REQUEST, Step.REQUESTED): State.ANSWER_REQUEST,
    (State.AWAIT_REQUEST, Step.CONNECT_REQUESTED): State.ANSWER_CONNECT,
    (State.AWAIT_REQUEST, Step.BIND_REQUESTED): State.ANSWER_BIND,
    (State.AWAIT_REQUEST, Step.ASSOCIATE_REQUESTED): State.ANSWER_ASSOCIATE,
    (State.AWAIT_SOCKS4_REQUEST, Step.CONNECT_REQUESTED): State.ANSWER_CONNECT,
    (State.AWAIT_SOCKS4_REQUEST, Step.BIND_REQUESTED): State.ANSWER_BIND,
    (State.ANSWER_REQUEST, Step.ENHANCED): State.ENHANCED,
    (State.ANSWER_REQUEST, Step.LISTED): State.AWAIT_REQUEST,
    (State.ANSWER_REQUEST, Step.FINISHED): State.CLOSED,
    (State.ANSWER_CONNECT, Step.CONNECTED): State.TRANSPARENT,
    (State.ANSWER_CONNECT, Step.FINISHED): State.CLOSED,
    (State.ANSWER_BIND, Step.LISTENING): State.AWAIT_PEER,
    (State.ANSWER_BIND, Step.FINISHED): State.CLOSED,
    (State.AWAIT_PEER, Step.PEER_ACCEPTED): State.TRANSPARENT,
    (State.AWAIT_PEER, Step.FINISHED): State.CLOSED,
    (State.TRANSPARENT, Step.HANDED_OVER): State.TRANSPARENT,
    (State.ANSWER_ASSOCIATE, Step.ASSOCIATED): State.ASSOCIATED,
    (State.ANSWER_ASSOCIATE, Step.FINISHED): State.CLOSED,
    (State.ASSOCIATED, Step.INTERFACE_ASKED): State.ANSWER_INTERFACE,
    (State.ANSWER_INTERFACE, Step.INTERFACE_ANSWERED): State.ASSOCIATED,
}

HANDSHAKE = frozenset(
    (
        State.AWAIT_GREETING,
        State.CHOOSE_METHOD,
        State.AWAIT_CREDENTIALS,
        State.CHECK_CREDENTIALS,
        State.AWAIT_REQUEST,
        State.AWAIT_SOCKS4_REQUEST,
        State.ANSWER_REQUEST,
    )
)
"""Where the handshake's deadline counts; looking up, connecting, waiting for a peer have limits of their own."""
