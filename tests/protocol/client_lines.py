"""What clients ask of a relay besides the control channel, and how relays answer."""

from __future__ import annotations

from mcastsocks.address import Endpoint, parse_endpoint
from mcastsocks.errors import RequestRefused, WireError
from mcastsocks.protocol.client import (
    Associated,
    ClientConnection,
    Connected,
    InterfaceReported,
    Listening,
    LoggedIn,
    PeerAccepted,
)
from mcastsocks.wire.socks5 import Credentials, RequestFlag
from tests.protocol import dialogue
from tests.protocol.dialogue import heard, play, script
from tests.vectors import octets

Line = dialogue.Line[ClientConnection]

ALICE = Credentials(b"alice", b"secret")
BEHIND_THE_END = Line(octets("UDP BIND reply"))
WEB = Endpoint("example.com", 80)
DNS = parse_endpoint("198.51.100.7:53")
OUTSIDE = parse_endpoint("203.0.113.1:4660")
PEER = parse_endpoint("[2001:db8::9]:4000")
LOCAL = parse_endpoint("192.0.2.10:5000")
ASKING = RequestFlag.INTERFACE_REQUEST
BOTH_FLAGS = RequestFlag.INTERFACE_REQUEST | RequestFlag.USECLIENTSPORT

_SUCCESS = bytes.fromhex("05000001cb0071011234")
_NO_LOGIN = bytes.fromhex("0500")


def no(hears: str | bytes, error: type[Exception]) -> list[Line]:
    return [Line(bytes.fromhex(hears) if isinstance(hears, str) else hears, error), BEHIND_THE_END]


def connection(credentials: Credentials | None = ALICE) -> ClientConnection:
    machine = ClientConnection(credentials)
    machine.greet()
    machine.octets_to_send()
    return machine


def reached(*lines: Line) -> ClientConnection:
    machine = connection()
    assert play(machine, lines, [heard(lines)]) == script(lines)
    return machine


CONNECTS = Line(
    _NO_LOGIN,
    LoggedIn(),
    lambda m: m.request_connect(WEB),
    octets("CONNECT name: the length octet is not part of the name"),
)
CONNECTED = Line(_SUCCESS, Connected(OUTSIDE))
BINDS = Line(_NO_LOGIN, LoggedIn(), lambda m: m.request_bind(DNS), bytes.fromhex("05020001c63364070035"))
LISTENING = Line(_SUCCESS, Listening(OUTSIDE))
ACCEPTED = Line(bytes.fromhex("0500000420010db80000000000000000000000090fa0"), PeerAccepted(PEER))

ASSOCIATES = Line(_NO_LOGIN, LoggedIn(), ClientConnection.request_associate, octets("UDP ASSOCIATE unknown source"))
ASSOCIATES_FROM_PORT = Line(
    _NO_LOGIN,
    LoggedIn(),
    lambda m: m.request_associate(LOCAL, RequestFlag.USECLIENTSPORT),
    octets("UDP ASSOCIATE USECLIENTSPORT"),
)
ASSOCIATES_ASKING = Line(
    _NO_LOGIN,
    LoggedIn(),
    lambda m: m.request_associate(LOCAL, BOTH_FLAGS),
    bytes.fromhex("05030501c000020a1388"),
)
GRANTED = Line(
    bytes.fromhex("05000101cb0071011234"),
    Associated(OUTSIDE, ASKING),
    lambda m: m.ask_interface(DNS),
    octets("INTERFACE DATA"),
)
REPORTED = Line(_SUCCESS, InterfaceReported(0, OUTSIDE), lambda m: m.ask_interface(DNS), octets("INTERFACE DATA"))
NOT_REPORTED = Line(
    bytes.fromhex("05020001000000000000"),
    InterfaceReported(2, parse_endpoint("0.0.0.0:0")),
    lambda m: m.ask_interface(DNS),
    octets("INTERFACE DATA"),
)

QUESTIONS = [ASSOCIATES_ASKING, GRANTED, REPORTED, NOT_REPORTED, REPORTED]
"""Not for any cut: an answer cannot come before its question."""

REQUESTS = {
    "CONNECT, and more behind the reply": [CONNECTS, CONNECTED, Line(b"SSH-2.0-\r\n")],
    "CONNECT refused": [CONNECTS, *no(octets("reply refused"), RequestRefused)],
    "CONNECT refused in the extension's version": [CONNECTS, *no("01050001000000000000", RequestRefused)],
    "CONNECT granted in the extension's version": [CONNECTS, *no("01000001000000000000", WireError)],
    "BIND": [BINDS, LISTENING, ACCEPTED, Line(b"220 ready\r\n")],
    "BIND refused": [BINDS, *no("05020001000000000000", RequestRefused)],
    "BIND without a peer": [BINDS, LISTENING, *no("05060001000000000000", RequestRefused)],
    "BIND with a second reply of no version": [BINDS, LISTENING, *no("00", WireError)],
    "UDP ASSOCIATE": [ASSOCIATES, Line(_SUCCESS, Associated(OUTSIDE, RequestFlag.NONE))],
    "UDP ASSOCIATE with the client's port": [
        ASSOCIATES_FROM_PORT,
        Line(bytes.fromhex("05000401cb0071011234"), Associated(OUTSIDE, RequestFlag.USECLIENTSPORT)),
    ],
    "UDP ASSOCIATE of a relay with anything in FLAG": [
        ASSOCIATES_FROM_PORT,
        Line(bytes.fromhex("0500fb01cb0071011234"), Associated(OUTSIDE, RequestFlag.NONE)),
    ],
    "UDP ASSOCIATE refused": [ASSOCIATES, *no("05070001000000000000", RequestRefused)],
}  # fmt: skip
