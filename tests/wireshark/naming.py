"""What tshark must show for a message, told from tests.scapy_layers alone."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import Any

from scapy.packet import Packet, Raw

from tests import scapy_layers as layers

Value = int | str | bytes
Shown = list[tuple[str, Value]]

HIDDEN = {"PASSWD", "KEY_C2R", "KEY_R2C", "SALT_C2R", "SALT_R2C"}
FLAG_BITS = {3: {0x01: "interface_request", 0x04: "useclientsport"}, 0x10: {0x01: "persistence"}}
TAG_OCTETS = 16

_BY_ADDRESS = {4: "addr", 6: "addr6"}


def shown(layer: Packet) -> Shown:
    """Name and value of every field of a dissected layer, in order; nothing for what is empty or secret."""
    return [(name, value) for name, value in _fields(layer) if value != b""]


def bits(layer: Packet) -> dict[str, bool]:
    """Every bit that has a name."""
    found: dict[str, bool] = {}
    if "FLAGS" in layer.fields:
        found |= {f"flags.{_snake(name)}": bool(layer.FLAGS & bit) for bit, name in layers.FLAGS.items()}
    if isinstance(layer, layers.Datagram):
        found |= {"rsv.source": bool(layer.RSV & 1), "rsv.protected": bool(layer.RSV & 2)}
    if isinstance(layer, layers.Request):
        found |= {f"flag.{name}": bool(layer.FLAG & bit) for bit, name in FLAG_BITS.get(layer.CMD, {}).items()}
    return found


def same(told: Value, by_tshark: str) -> bool:
    if isinstance(told, bytes):
        return told.hex() == by_tshark.replace(":", "")
    return int(by_tshark, 0) == told if isinstance(told, int) else by_tshark == told


def assert_shows(message: Any, layer: Packet) -> None:
    """tshark's message has the layer's fields, each with its value, and no others."""
    told = shown(layer)
    assert [name for name, _ in message.fields] == [name for name, _ in told], message
    unlike = [
        (name, value, text)
        for (name, value), (_, text) in zip(told, message.fields, strict=True)
        if not same(value, text)
    ]
    assert not unlike
    if not isinstance(layer, layers.Reply):  # which bits its FLAG has depends on the request
        assert message.bits == bits(layer)


def _snake(name: str) -> str:
    return name.lower().replace("-", "_")


def _fields(layer: Packet) -> Iterator[tuple[str, Value]]:
    for description in layer.fields_desc:
        value = getattr(layer, description.name)
        if value is not None and description.name not in HIDDEN:
            yield from _field(layer, description.name, value)


def _field(layer: Packet, name: str, value: Any) -> Iterator[tuple[str, Value]]:
    if isinstance(value, layers.Endpoint):
        yield from _endpoint(name.lower(), value)
    elif name == "ENTRIES":
        for entry in value:
            yield from ((f"feature.{part}", each) for part, each in _fields(entry))
    elif name == "OPTIONS":
        for option in value:
            yield from _option(option, layer.PKT_TYPE)
    elif isinstance(value, list):
        yield from ((name.lower(), each) for each in value)
    elif name == "DATA" and isinstance(layer, layers.Datagram) and layer.PN is not None:
        yield from (("ciphertext", value[:-TAG_OCTETS]), ("tag", value[-TAG_OCTETS:]))
    elif name == "END":
        yield "feature.end", value
    else:
        yield name.lower(), _plain(name, value)


def _plain(name: str, value: Any) -> Value:
    if name in ("UNAME", "USERID", "HOST"):
        return bytes(value).decode() or b""
    return value if isinstance(value, str | bytes) else int(value)


def _endpoint(role: str, endpoint: Packet) -> Iterator[tuple[str, Value]]:
    yield f"{role}.atyp", endpoint.ATYP
    yield _address(role, endpoint.ADDR)
    if endpoint.readable:
        yield f"{role}.port", endpoint.PORT


def _address(role: str, address: str | bytes) -> tuple[str, Value]:
    if isinstance(address, bytes):
        return f"{role}.unknown", address
    try:
        return f"{role}.{_BY_ADDRESS[ipaddress.ip_address(address).version]}", address
    except ValueError:
        return f"{role}.name", address


def _option(option: Packet, pkt_type: int) -> Iterator[tuple[str, Value]]:
    if isinstance(option, Raw):  # it overruns SIZE
        yield "rest", option.load
        return
    yield from (("option.type", option.TYPE), ("option.len", option.LEN))
    try:
        yield from list(_option_value(option.TYPE, bytes(option.VALUE), pkt_type))
    except struct.error:
        yield "option.value", option.VALUE


def _option_value(kind: int, value: bytes, pkt_type: int) -> Iterator[tuple[str, Value]]:
    if kind in (1, 2):
        sources = layers.SourceList(value)
        yield "option.atyp", sources.ATYP
        yield from (_address("option", address) for address in sources.ADDRS)
    elif kind == 4:
        yield from (("option.aead", each) for each in (value if pkt_type == 1 else value[:1]))
    elif kind == 5:
        yield "option.reason", value.decode()
    elif kind == 6:
        resolved = layers.Resolved(value)
        yield from (("option.atyp", resolved.ATYP), _address("option", resolved.ADDR))
    else:
        yield "option.value", value
