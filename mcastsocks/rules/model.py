"""A rule as an administrator writes it."""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mcastsocks.address import parse_port
from mcastsocks.settings import Settings

IPNetwork = IPv4Network | IPv6Network
PortRange = tuple[int, int]


class Action(StrEnum):
    """What a client may ask for."""

    RECEIVE_GROUP = "receive-group"
    SEND_GROUP = "send-group"
    UDP = "udp"
    CONNECT = "connect"
    BIND = "bind"


def _network(value: Any) -> IPNetwork:
    try:
        return ip_network(value)
    except ValueError as error:
        if "host bits" in str(error):
            wanted = ip_network(value, strict=False)
            raise ValueError(f"the address has bits behind the prefix: expected {wanted}") from None
        raise ValueError("expected an address or a network like 192.0.2.0/24 or 2001:db8::/32") from None


def _group_network(value: Any) -> IPNetwork:
    network = _network(value)
    if not network.is_multicast:
        raise ValueError("expected groups: a network within 224.0.0.0/4 or ff00::/8")
    return network


_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?", re.I)


def _destination(value: Any) -> IPNetwork | str:
    if isinstance(value, str) and _NAME.fullmatch(value) and not value.replace(".", "").isdigit():
        return value.lower().rstrip(".")
    network = _network(value)
    if network.is_multicast:
        raise ValueError("groups belong under 'groups'; 'to' speaks of unicast destinations")
    return network


def _ports(value: Any) -> list[PortRange]:
    items = value if isinstance(value, list) else [value]
    return [_port_range(item) for item in items]


def _port_range(value: Any) -> PortRange:
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            low = high = parse_port(str(value))
        else:
            first, dash, last = str(value).replace(" ", "").partition("-")
            low, high = parse_port(first), parse_port(last if dash else first)
    except ValueError:
        raise ValueError('expected a port, a range like "5000-5999", or a list of these') from None
    if not 1 <= low <= high:
        raise ValueError(f"expected a range from a lower to a higher port, 1 to 65535, not {low}-{high}")
    return low, high


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected a name for the rule: it stands in the records")
    return " ".join(value.split())


Clients = Annotated[IPNetwork, BeforeValidator(_network)]
Groups = Annotated[IPNetwork, BeforeValidator(_group_network)]
Destination = Annotated[IPNetwork | str, BeforeValidator(_destination)]


class Rule(Settings):
    """Fields either match (absent: anything) or limit, and limits never influence which rule matches."""

    name: Annotated[str, BeforeValidator(_name)]
    allow: bool
    users: list[str] | None = None
    clients: list[Clients] | None = None
    do: list[Action] | None = None
    groups: list[Groups] | None = None
    to: list[Destination] | None = None
    ports: Annotated[list[PortRange] | None, BeforeValidator(_ports)] = None
    max_ttl: Annotated[int, Field(ge=1, le=255)] = 255
    modes: Annotated[list[Literal["mu"]], Field(min_length=1)] = ["mu"]
