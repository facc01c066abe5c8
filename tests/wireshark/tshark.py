"""tshark with the dissector loaded, and what it shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

DISSECTOR = Path(__file__).parents[2] / "deploy" / "wireshark" / "mcastsocks.lua"
PROTOCOL = "mcastsocks"
GENERATED = ("response_in", "response_to", "time")


@dataclass(frozen=True)
class Message:
    """One message as tshark shows it."""

    frame: int
    transport: str  # "tcp" or "udp"
    client_port: int  # the port that is not the relay's
    by_client: bool
    headline: str
    fields: list[tuple[str, str]]  # name without the protocol, and what is shown; no single bits
    bits: dict[str, bool]
    generated: dict[str, str]
    experts: list[str]


def missing() -> str | None:
    return None if shutil.which("tshark") else "needs tshark: apt install tshark"


def run(capture: Path, *arguments: str) -> str:
    """Standard output of tshark, which must have nothing to complain of."""
    with tempfile.TemporaryDirectory() as nobodys_preferences:
        ended = subprocess.run(
            ["tshark", "-n", "-r", str(capture), "-X", f"lua_script:{DISSECTOR}", *arguments],
            env=os.environ | {"WIRESHARK_CONFIG_DIR": nobodys_preferences, "LC_ALL": "C.UTF-8"},
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
    complaints = [line for line in ended.stderr.splitlines() if line and not line.startswith("Running as user")]
    assert (ended.returncode, complaints) == (0, [])
    assert "Lua Error" not in ended.stdout
    return ended.stdout


def messages(capture: Path, *arguments: str, relay_ports: tuple[int, ...] = (1080,)) -> list[Message]:
    """Every message of the protocol in a capture, in order."""
    packets = ElementTree.fromstring(run(capture, "-T", "pdml", *arguments)).iter("packet")
    return [message for packet in packets for message in _messages_of(packet, relay_ports)]


def _messages_of(packet: ElementTree.Element, relay_ports: tuple[int, ...]) -> list[Message]:
    protos = {proto.get("name"): proto for proto in packet.iter("proto")}
    if PROTOCOL not in protos:
        return []
    transport = "tcp" if "tcp" in protos else "udp"
    ports = [int(_shown(protos[transport], f"{transport}.{end}port")) for end in ("src", "dst")]
    (client_port,) = [port for port in ports if port not in relay_ports][:1] or ports[:1]
    frame = int(_shown(protos["frame"], "frame.number"))
    return [
        _message(each, frame, transport, client_port, ports[0] == client_port)
        for each in packet.iter("proto")
        if each.get("name") == PROTOCOL
    ]


def _message(proto: ElementTree.Element, frame: int, transport: str, client_port: int, by_client: bool) -> Message:
    message = Message(frame, transport, client_port, by_client, proto.get("showname") or "", [], {}, {}, [])
    for element in proto.iter("field"):
        name = element.get("name") or ""
        if not name.startswith(f"{PROTOCOL}."):
            continue
        _, _, name = name.partition(".")
        shown = element.get("show") or ""
        if name.startswith("expert."):
            message.experts.append(name.removeprefix("expert."))
        elif name.startswith(("flags.", "flag.", "rsv.")):
            message.bits[name] = shown in ("1", "True")
        elif name in GENERATED:
            message.generated[name] = shown
        else:
            message.fields.append((name, shown))
    return message


def _shown(proto: ElementTree.Element, name: str) -> str:
    return next(field.get("show") or "" for field in proto.iter("field") if field.get("name") == name)
