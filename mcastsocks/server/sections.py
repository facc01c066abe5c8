"""The tables of the relay's configuration, each by itself."""

from __future__ import annotations

import os
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator

from mcastsocks.address import UNSPECIFIED_V4, Endpoint, IPAddress, parse_endpoint, parse_port
from mcastsocks.client.url import RelayUrl
from mcastsocks.settings import Settings, problems

_MOST_WORKERS = 64


def _listen(value: Any) -> Endpoint:
    if not isinstance(value, str):
        raise ValueError('expected an address and port like "192.0.2.1:1080"')
    endpoint = parse_endpoint(value)
    if isinstance(endpoint.host, str):
        raise ValueError("expected an address of this host and a port")
    if endpoint.port == 0:
        raise ValueError("expected a port from 1 to 65535")
    return endpoint


def _address_or_empty(value: Any) -> IPAddress | None:
    if value in ("", None):
        return None
    try:
        address = ip_address(value if isinstance(value, str) else "")  # it would take 5 for 0.0.0.5
    except ValueError:
        address = UNSPECIFIED_V4
    if address.is_unspecified or address.is_multicast:
        raise ValueError("expected an address that clients reach the relay by, or nothing")
    return address


def _source(value: Any) -> IPAddress:
    try:
        return ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("expected the address of a relay whose group datagrams are not relayed") from None


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("expected the name or an address of a network interface")
    return value


Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=4_000_000)]


class Inside(Settings):
    """Where clients are. The TCP port's number in UDP carries the datagrams; groups in MM-mode live on `interface`."""

    listen: Annotated[list[Annotated[Endpoint, BeforeValidator(_listen)]], Field(min_length=1)]
    advertise: Annotated[IPAddress | None, BeforeValidator(_address_or_empty)] = None
    interface: Annotated[str, AfterValidator(_not_empty)] | None = None
    multicast_ttl: Annotated[int, Field(ge=1, le=255)] = 1
    fragment_above: Annotated[int | None, Field(ge=576, le=65_527)] = None

    def advertised(self, inside: IPAddress) -> IPAddress:
        """What replies tell a client that reached us at this address."""
        return self.advertise if self.advertise is not None and self.advertise.version == inside.version else inside


class OutsideSettings(Settings):
    """Where groups are joined and remotes are: an interface by name or address. Rules call it by `name`.

    What comes to a group from one of `ignore_sources`, other relays on the same border, is not relayed. With "endpoint"
    a client's associations leave by one port of its own for each IP version; with "shared" by ports that all clients
    use, but no two of them for the same remote.
    """

    interface: Annotated[str, AfterValidator(_not_empty)]
    name: str = ""
    ignore_sources: list[Annotated[IPAddress, BeforeValidator(_source)]] = []
    ports: Literal["endpoint", "shared"] = "endpoint"

    @property
    def called(self) -> str:
        return self.name or self.interface


class Auth(Settings):
    methods: Annotated[list[Literal["none", "userpass"]], Field(min_length=1)] = ["userpass"]
    users: Annotated[Path, Field(strict=False)] | None = None

    @model_validator(mode="after")
    def _userpass_needs_users(self) -> Auth:
        if "userpass" in self.methods and self.users is None:
            why = 'method "userpass" needs users = "FILE"; \'mcastsocks user add NAME\' writes it'
            raise problems((("users",), why))
        return self


def _port_range(value: Any) -> range:
    first, dash, last = value.partition("-") if isinstance(value, str) else ("", "", "")
    try:
        ports = range(parse_port(first), parse_port(last if dash else first) + 1)
    except ValueError:
        ports = range(0)
    if not ports or not ports[0]:
        raise ValueError('expected a range of UDP ports like "1081-1180"')
    return ports


class Socks(Settings):
    """Plain SOCKS. `udp_ports` are the relay's own for UDP ASSOCIATE; absent: the hundred above the listening port.

    `udp_answers` says whose datagrams an association takes; with `only_named_destinations` a client that can name its
    destinations beforehand (INTERFACE DATA) has to.
    """

    socks4: bool = False
    udp_ports: Annotated[range, PlainValidator(_port_range)] | None = None
    udp_answers: Literal["contacted-host", "exact", "anyone"] = "contacted-host"
    udp_fragments: bool = False
    only_named_destinations: bool = False


def _upstream_url(value: Any) -> RelayUrl:
    """Its problems are told without what stands there: it may be a password."""
    try:
        url = RelayUrl.parse(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(f"{error}, not what stands here") from None
    if url.password:
        raise ValueError("expected socks5://user@host:port and the password in password_file, not in here")
    return url


class UpstreamSettings(Settings):
    """Another SOCKS 5 relay, which rules send clients' wishes to by `name`. The file holds the password alone."""

    name: Annotated[str, Field(min_length=1)]
    relay: Annotated[RelayUrl, PlainValidator(_upstream_url)]
    password_file: Annotated[Path, Field(strict=False)] | None = None


def _workers(value: Any) -> int:
    """What "auto" stands for is decided here, once."""
    if value == "auto":
        return min(len(os.sched_getaffinity(0)), _MOST_WORKERS) if sys.platform == "linux" else 1
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_WORKERS:
        raise ValueError(f'expected a number of processes from 1 to {_MOST_WORKERS}, or "auto": one for each CPU')
    if value > 1 and sys.platform != "linux":
        raise ValueError("only Linux shares connections out among several processes")
    return value


class PlaneSettings(Settings):
    """`auto` is the first that can start here. Each of several `workers` is a process with a UDP port of its own."""

    kind: Literal["auto", "batch", "portable"] = "auto"
    workers: Annotated[int, PlainValidator(_workers)] = 1


class Limits(Settings):
    """What a client can make grow, and when a silent one is given up."""

    handshake_timeout_s: Seconds = 10
    dead_client_s: Annotated[int, Field(ge=3, le=86_400)] = 60
    connections: Count = 4096
    handshakes_per_client: Count = 64
    connections_per_user: Count = 256
    associations: Count = 100_000
    associations_per_user: Count = 20_000
    groups: Count = 4096
    groups_per_user: Count = 256
    group_receivers_per_user: Count = 256
    local_endpoints_per_user: Count = 512
    udp_sockets: Count = 16_384
    name_lookups: Count = 64
    name_lookups_per_user: Count = 8
    name_timeout_s: Seconds = 5
    logins_remembered: Count = 10_000
    login_remembered_s: Seconds = 300
    login_failures_per_minute: Count = 10
    connect_timeout_s: Seconds = 30
    bind_timeout_s: Seconds = 120
    idle_tcp_s: Seconds = 14_400
    idle_udp_s: Seconds = 600
    splice_pipes: Annotated[int, Field(ge=0, le=1024)] = 16


class Log(Settings):
    format: Literal["keyvalue", "json"] = "keyvalue"
