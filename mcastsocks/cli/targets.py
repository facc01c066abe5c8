"""What people type for groups, remotes and output; errors become usage errors."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import TextIO, TypeVar

import typer

from mcastsocks.address import Endpoint, parse_endpoint, parse_group, parse_port, to_sockaddr
from mcastsocks.client import ClientConfig, Mode, RelayUrl
from mcastsocks.client.names import endpoint
from mcastsocks.client.terms import source_options

_T = TypeVar("_T")
_MOST_PORTS = 64
DEFAULT_RELAY = "socks5://127.0.0.1:1080"


class Format(StrEnum):
    raw = "raw"
    hex = "hex"
    json = "json"


def _or_usage(parse: Callable[[str], _T], text: str, parameter: str) -> _T:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=parameter) from None


def relay_url(text: str | None, config: ClientConfig) -> RelayUrl:
    """The one asked for, or that of the configuration, or the one for trying things."""
    if text is None and config.relay is not None:
        return config.relay
    return _or_usage(RelayUrl.parse, text if text is not None else DEFAULT_RELAY, "--relay")


def client_config(file: Path | None) -> ClientConfig:
    return ClientConfig.load(file) if file is not None else ClientConfig()


def groups(text: str) -> list[Endpoint]:
    """GROUP:PORT or GROUP:FIRST-LAST, as RTP and RTCP use."""
    return _or_usage(_parse_groups, text, "GROUP:PORT")


def group(text: str) -> Endpoint:
    return _or_usage(parse_group, text, "GROUP:PORT")


def remote(text: str) -> Endpoint:
    return _or_usage(_parse_remote, text, "HOST:PORT")


def check_sources(including: Sequence[str], excluding: Sequence[str]) -> None:
    """Addresses, and those of one option only."""
    for parameter, texts in (("--source", including), ("--exclude", excluding)):
        for text in texts:
            _or_usage(ip_address, text, parameter)
    try:
        source_options(including, excluding)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--source or --exclude") from None


def check_mode(mode: Mode | None, needs_mu: bool) -> None:
    if mode is Mode.MM and needs_mu:
        why = "in MM-mode there are neither sources nor datagrams inside the TCP connection"
        raise typer.BadParameter(why, param_hint="--mode")


def opened(stream: TextIO | None, name: str) -> TextIO:
    """Standard input or output. Raises OSError where whoever started us closed it."""
    if stream is None:
        raise OSError(errno.EBADF, f"{name} is closed")
    return stream


@dataclass(frozen=True, slots=True)
class Player:
    """Where --to sends what comes in."""

    family: int
    sockaddr: tuple[object, ...]


def player(text: str) -> Player:
    return _or_usage(_parse_player, text, "--to")


def encode(data: bytes, form: Format, **about: str | int) -> bytes:
    """One datagram's data: as it is, or a line of hex digits, or a line of JSON with what is known about it."""
    match form:
        case Format.raw:
            return data
        case Format.hex:
            return data.hex().encode() + b"\n"
        case Format.json:
            return json.dumps({**about, "octets": len(data), "data": data.hex()}).encode() + b"\n"


def _parse_groups(text: str) -> list[Endpoint]:
    host, _, ports = text.rpartition(":")
    first, dash, last = ports.partition("-")
    if not dash:
        return [parse_group(text)]
    low, high = parse_port(first), parse_port(last)
    if not low <= high < low + _MOST_PORTS:
        raise ValueError(f"expected a range of 1 to {_MOST_PORTS} ports, from low to high, not {ports!r}")
    return [parse_group(f"{host}:{port}") for port in range(low, high + 1)]


def _parse_remote(text: str) -> Endpoint:
    parsed = parse_endpoint(text)
    if parsed.is_group:
        raise ValueError(f"{parsed.host} is a group; try 'mcastsocks send' and 'mcastsocks join'")
    if parsed.port == 0:
        raise ValueError("expected a port from 1 to 65535")
    return endpoint(str(parsed.host), parsed.port)


def _parse_player(text: str) -> Player:
    if not text.startswith("udp://"):
        raise ValueError("expected udp://HOST:PORT")
    endpoint = parse_endpoint(text.removeprefix("udp://"))
    if endpoint.port == 0:
        raise ValueError("expected a port from 1 to 65535")
    if not isinstance(endpoint.host, str):
        return Player(socket.AF_INET if endpoint.host.version == 4 else socket.AF_INET6, to_sockaddr(endpoint))
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise ValueError(f"{endpoint.host}: {error.strerror}") from None
    except UnicodeError:
        raise ValueError(f"{endpoint.host} is no name that could be looked up") from None
    return Player(found[0][0], found[0][4])
