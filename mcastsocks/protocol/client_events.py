"""What the client's end of a TCP connection reports."""

from __future__ import annotations

from dataclasses import dataclass

from mcastsocks.address import Endpoint
from mcastsocks.wire.control import ControlReply, Encapsulated
from mcastsocks.wire.features import FeatureList
from mcastsocks.wire.socks5 import RequestFlag


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
class Connected:
    """The destination of CONNECT is at the other end now; it sees us as `bound`."""

    bound: Endpoint


@dataclass(frozen=True, slots=True)
class Listening:
    """BIND's first reply: a peer may connect to `bound`. A foreign relay's 0.0.0.0 means the relay's own address."""

    bound: Endpoint


@dataclass(frozen=True, slots=True)
class PeerAccepted:
    """BIND's second reply: `peer` has connected, and is at the other end now."""

    peer: Endpoint


@dataclass(frozen=True, slots=True)
class Associated:
    """Datagrams go to `relay`; a foreign relay's 0.0.0.0 means its own address. `flag`: what it honours of ours."""

    relay: Endpoint
    flag: RequestFlag


@dataclass(frozen=True, slots=True)
class InterfaceReported:
    """The answer to INTERFACE DATA: the destination will see `external`, where `code` is 00."""

    code: int
    external: Endpoint


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """An answer to a control request; its `tid` says to which."""

    reply: ControlReply


@dataclass(frozen=True, slots=True)
class DatagramEncapsulated:
    """A datagram that came over the control channel."""

    datagram: Encapsulated


Event = (
    LoggedIn
    | FeaturesListed
    | EnhancedEntered
    | Connected
    | Listening
    | PeerAccepted
    | Associated
    | InterfaceReported
    | ReplyReceived
    | DatagramEncapsulated
)
