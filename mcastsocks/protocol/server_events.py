"""What the relay's end of a TCP connection reports, and how each is answered."""

from __future__ import annotations

from dataclasses import dataclass

from mcastsocks.address import Endpoint
from mcastsocks.wire.control import ControlRequest, Encapsulated
from mcastsocks.wire.socks5 import Credentials, Request


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
    """Answer with `fail_request`, or with the verb of its command.

    CONNECT: `connected`. BIND: `listening`, then `accepted` or `fail_request`. UDP ASSOCIATE: `associated`.
    ENHANCED_UDP_MODE: `enter_enhanced`. LIST-FEATURES: `list_features`.

    `socks4_user` is the USERID of SOCKS 4, which proves nothing, and None in SOCKS 5. A SOCKS 4 client was asked
    for no authentication, and its request is CONNECT or BIND.
    """

    request: Request
    socks4_user: bytes | None = None


@dataclass(frozen=True, slots=True)
class InterfaceAsked:
    """Which outside address a destination will see (pro-v5 §8). Answer with `report_interface`, `refuse_interface`."""

    destination: Endpoint


@dataclass(frozen=True, slots=True)
class ControlRequested:
    """Answer with `reply`, now or later, in any order."""

    request: ControlRequest


@dataclass(frozen=True, slots=True)
class DatagramEncapsulated:
    """Needs no answer."""

    datagram: Encapsulated


Event = MethodsOffered | LoginAttempted | RequestMade | InterfaceAsked | ControlRequested | DatagramEncapsulated
