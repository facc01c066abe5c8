"""The conversations in which the golden octets of spec/vectors would have been said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scapy.packet import Packet

from tests import scapy_layers as layers
from tests.vectors import Vector, octets
from tests.wireshark.captures import RELAY, Segments

LAYERS: dict[str, type[Packet]] = {
    "greeting": layers.Greeting,
    "method": layers.MethodChoice,
    "userpass": layers.UserpassRequest,
    "userpass-reply": layers.UserpassReply,
    "request": layers.Request,
    "reply": layers.Reply,
    "features": layers.FeatureList,
    "interface-data": layers.InterfaceData,
    "socks4": layers.Socks4Request,
    "socks4-reply": layers.Socks4Reply,
    "control": layers.ControlRequest,
    "encapsulated": layers.EncapsulatedDatagram,
    "encapsulated-source": layers.EncapsulatedWithSource,
    "datagram": layers.Datagram,
    "datagram-protected": layers.Datagram,
    "datagram-1928": layers.Rfc1928Datagram,
}
DATAGRAMS = ("datagram", "datagram-protected", "datagram-1928")
REPORT_SOURCE = 0x0100
FROM_CLIENT = {"greeting", "userpass", "request", "interface-data", "socks4"}


@dataclass
class Said:
    """One message: who, and which layer its octets are."""

    side: str
    octets: bytes
    layer: str

    @property
    def dissected(self) -> Packet:
        if self.layer == "control" and self.octets[0] == 2:
            return layers.ControlReply(self.octets)
        return LAYERS[self.layer](self.octets)


Dialogue = list[Said]


def segments(dialogue: Dialogue) -> Segments:
    return [(said.side, said.octets) for said in dialogue]


def client(layer: str, message: Any) -> Said:
    return Said("client", bytes(message), layer)


def relay(layer: str, message: Any) -> Said:
    return Said("relay", bytes(message), layer)


LOGIN = [client("greeting", layers.Greeting(METHODS=[0])), relay("method", layers.MethodChoice(METHOD=0))]
BY_PASSWORD = [
    client("greeting", octets("greeting: none and userpass")),
    relay("method", octets("method: userpass")),
]
ENHANCED = [
    *LOGIN,
    client("request", octets("ENHANCED_UDP_MODE")),
    relay("reply", octets("ENHANCED_UDP_MODE reply carries the extension's version")),
]


def encapsulating(aid: int, reporting: int = 0) -> Dialogue:
    """A channel with one receiver by TCP, whose frames name their sender if that flag was granted."""
    group = ("239.1.2.3", 5004)
    return [
        *ENHANCED,
        client("control", layers.ControlRequest(FLAGS=0x0019 | REPORT_SOURCE, TID=1, REMOTE=group)),
        relay("control", layers.ControlReply(FLAGS=0x0039 | reporting, TID=1, AID=aid, REMOTE=group)),
    ]


REPORTING = encapsulating(5, REPORT_SOURCE)
FEATURES = [
    *LOGIN,
    client("request", octets("LIST-FEATURES persistent")),
    relay("reply", octets("LIST-FEATURES granted, persistent")),
]


def associated(port: int) -> Dialogue:
    """A UDP ASSOCIATE whose datagrams go to that port of the relay."""
    return [
        *LOGIN,
        client("request", octets("UDP ASSOCIATE unknown source")),
        relay("reply", layers.Reply(BND=(RELAY, port))),
    ]


def asked(cmd: int) -> Dialogue:
    return [*LOGIN, client("request", layers.Request(CMD=cmd))]


def _before(vector: Vector) -> Dialogue:
    layer, name = vector["layer"], vector["name"]
    if layer == "reply":
        return asked(4 if "ENHANCED" in name else 0x10 if "LIST" in name else 1)
    if layer == "encapsulated":
        return encapsulating(int(vector["hex"][6:14], 16))
    return {
        "method": BY_PASSWORD[:1],
        "userpass": BY_PASSWORD,
        "userpass-reply": [*BY_PASSWORD, client("userpass", octets("userpass request"))],
        "request": LOGIN,
        "features": FEATURES,
        "interface-data": associated(3000),
        "socks4-reply": [client("socks4", octets("SOCKS 4 CONNECT"))],
        "control": ENHANCED,
        "encapsulated-source": REPORTING,
    }.get(layer, [])


def of_vector(vector: Vector) -> Dialogue:
    """The vector's octets last, behind what must have been said before."""
    message = bytes.fromhex(vector["hex"])
    by_client = vector["layer"] in FROM_CLIENT or (vector["layer"] == "control" and message[0] != 2)
    return [*_before(vector), Said("client" if by_client else "relay", message, vector["layer"])]
