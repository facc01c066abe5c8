"""A rule as an administrator writes it."""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal, TypeVar

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


GROUP_ACTIONS = (Action.RECEIVE_GROUP, Action.SEND_GROUP)
"""What `groups` speaks of; `to` speaks of the others."""


_MAPPED = IPv6Network("::ffff:0:0/96")
_EXPECTED_NETWORK = "expected an address or a network like 192.0.2.0/24 or 2001:db8::/32"


def _network(value: Any, expected: str = _EXPECTED_NETWORK) -> IPNetwork:
    try:
        network = ip_network(value if isinstance(value, str) else "")  # it would take 5 for 0.0.0.5
    except ValueError as error:
        if "host bits" in str(error):
            wanted = ip_network(value, strict=False)
            raise ValueError(f"the address has bits behind the prefix: expected {wanted}") from None
        raise ValueError(expected) from None
    if network.version == 6 and network.subnet_of(_MAPPED):  # what is asked for is unmapped before it is judged
        raise ValueError("expected an IPv4 network written as one, like 192.0.2.0/24")
    return network


def _group_network(value: Any) -> IPNetwork:
    network = _network(value, "expected groups: an address or a network like 239.1.0.0/16 or ff15::/16")
    if not network.is_multicast:
        raise ValueError("expected groups: a network within 224.0.0.0/4 or ff00::/8")
    return network


_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?", re.I)


def _destination(value: Any) -> IPNetwork | str:
    if isinstance(value, str) and _NAME.fullmatch(value) and not value.replace(".", "").isdigit():
        return value.lower().rstrip(".")
    network = _network(value, f"{_EXPECTED_NETWORK}, or a name like host.example or *.example")
    if network.is_multicast:
        raise ValueError("groups belong under 'groups'; 'to' speaks of unicast destinations")
    return network


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


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
        raise ValueError("expected a range from a lower to a higher port, 1 to 65535")
    return low, high


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected a name for the rule: it stands in the records")
    return " ".join(value.split())


Clients = Annotated[IPNetwork, BeforeValidator(_network)]
Groups = Annotated[IPNetwork, BeforeValidator(_group_network)]
Destination = Annotated[IPNetwork | str, BeforeValidator(_destination)]
Ports = Annotated[PortRange, BeforeValidator(_port_range)]

_Item = TypeVar("_Item")
Some = Annotated[list[_Item], Field(min_length=1)]
"""No item would match nothing, where no list matches anything: too easily mixed up."""


class Rule(Settings):
    """Fields either match (absent: anything) or limit and direct, and the latter never influence which rule matches.

    `via` names an outside, absent: the first; `dscp` marks the datagrams, absent: they keep their own;
    `upstream` names another relay to go through; `require` drops what is not of that kind.
    """

    name: Annotated[str, BeforeValidator(_name)]
    allow: bool
    users: Some[str] | None = None
    clients: Some[Clients] | None = None
    do: Some[Annotated[Action, Field(strict=False)]] | None = None
    groups: Some[Groups] | None = None
    to: Some[Destination] | None = None
    ports: Annotated[Some[Ports] | None, BeforeValidator(_as_list)] = None
    max_ttl: Annotated[int, Field(ge=1, le=255)] = 255
    modes: Some[Literal["mu", "mm"]] = ["mu"]
    via: str | None = None
    dscp: Annotated[int, Field(ge=0, le=63)] | None = None
    upstream: str | None = None
    require: Literal["rtp"] | None = None
