"""What clients ask for before there is a control channel, and the octets that answer it."""

from __future__ import annotations

from ipaddress import ip_address

from mcastsocks.address import Endpoint
from mcastsocks.errors import WireError
from mcastsocks.protocol.server import InterfaceAsked, MethodsOffered, RequestMade, ServerConnection
from mcastsocks.wire.replies import ReplyCode
from mcastsocks.wire.socks5 import Method, Request, RequestFlag
from tests.protocol import dialogue
from tests.vectors import octets

Line = dialogue.Line[ServerConnection]


def at(host: str, port: int) -> Endpoint:
    return Endpoint(ip_address(host), port)


def refused(request: Request, line_octets: bytes, code: ReplyCode, says: bytes) -> Line:
    return Line(line_octets, RequestMade(request), lambda m: m.fail_request(request, code), says)


NOTHING = at("0.0.0.0", 0)
OUTSIDE = at("203.0.113.1", 0x1234)
PEER = at("2001:db8::9", 4000)
SAYS_OUTSIDE = bytes.fromhex("05000001cb0071011234")
SAYS_PEER = bytes.fromhex("0500000420010db80000000000000000000000090fa0")

NO_LOGIN = Line(
    bytes.fromhex("050100"), MethodsOffered((0,)), lambda m: m.choose_method(Method.NONE), bytes.fromhex("0500")
)
BEHIND_THE_END = Line(octets("UDP BIND adds a direction", "encapsulated datagram, empty"))

CONNECT = Line(
    octets("CONNECT name: the length octet is not part of the name"),
    RequestMade(Request(1, Endpoint("example.com", 80))),
    lambda m: m.connected(OUTSIDE),
    SAYS_OUTSIDE,
)
BIND_REQUEST = Request(2, at("198.51.100.7", 21))
BIND_OCTETS = bytes.fromhex("05020001c63364070015")
LISTEN = Line(BIND_OCTETS, RequestMade(BIND_REQUEST), lambda m: m.listening(OUTSIDE), SAYS_OUTSIDE)


def _accept(machine: ServerConnection) -> None:
    machine.listening(OUTSIDE)
    machine.accepted(PEER)


def _wait_in_vain(machine: ServerConnection) -> None:
    machine.listening(OUTSIDE)
    machine.fail_request(BIND_REQUEST, ReplyCode.TTL_EXPIRED)


ACCEPT = Line(BIND_OCTETS, RequestMade(BIND_REQUEST), _accept, SAYS_OUTSIDE + SAYS_PEER)
WAIT_IN_VAIN = Line(
    BIND_OCTETS, RequestMade(BIND_REQUEST), _wait_in_vain, SAYS_OUTSIDE + bytes.fromhex("05060001000000000000")
)

ASSOCIATE_REQUEST = Request(3, NOTHING)
ASSOCIATE = Line(
    octets("UDP ASSOCIATE unknown source"),
    RequestMade(ASSOCIATE_REQUEST),
    lambda m: m.associated(OUTSIDE),
    SAYS_OUTSIDE,
)
ASSOCIATE_FROM_PORT = Line(
    octets("UDP ASSOCIATE USECLIENTSPORT"),
    RequestMade(Request(3, at("192.0.2.10", 5000), flag=4)),
    lambda m: m.associated(OUTSIDE, RequestFlag.USECLIENTSPORT),
    bytes.fromhex("05000401cb0071011234"),
)
ASSOCIATE_ASKING_OCTETS = bytes.fromhex("05030501c000020a1388")
ASSOCIATE_ASKING_EVENT = RequestMade(Request(3, at("192.0.2.10", 5000), flag=5))
ASSOCIATE_ASKING = Line(
    ASSOCIATE_ASKING_OCTETS,
    ASSOCIATE_ASKING_EVENT,
    lambda m: m.associated(OUTSIDE, RequestFlag.INTERFACE_REQUEST),
    bytes.fromhex("05000101cb0071011234"),
)
ASSOCIATE_ASKED_IN_VAIN = Line(
    ASSOCIATE_ASKING_OCTETS, ASSOCIATE_ASKING_EVENT, lambda m: m.associated(OUTSIDE), SAYS_OUTSIDE
)
INTERFACE = Line(
    octets("INTERFACE DATA"),
    InterfaceAsked(at("198.51.100.7", 53)),
    lambda m: m.report_interface(OUTSIDE),
    SAYS_OUTSIDE,
)
NO_INTERFACE = Line(
    octets("INTERFACE DATA"),
    InterfaceAsked(at("198.51.100.7", 53)),
    lambda m: m.refuse_interface(ReplyCode.NOT_ALLOWED),
    bytes.fromhex("05020001000000000000"),
)

SOCKS4_REQUEST = Request(1, at("198.51.100.7", 80))
SOCKS4_CONNECT = Line(
    octets("SOCKS 4 CONNECT"),
    RequestMade(SOCKS4_REQUEST, b"alice"),
    lambda m: m.connected(OUTSIDE),
    bytes.fromhex("005a1234cb007101"),
)
SOCKS4A_CONNECT = Line(
    octets("SOCKS 4a CONNECT"),
    RequestMade(Request(1, Endpoint("example.com", 80)), b"alice"),
    lambda m: m.connected(NOTHING),
    octets("SOCKS 4 granted"),
)
SOCKS4_REFUSED = Line(
    octets("SOCKS 4 CONNECT"),
    RequestMade(SOCKS4_REQUEST, b"alice"),
    lambda m: m.fail_request(SOCKS4_REQUEST, ReplyCode.NOT_ALLOWED),
    bytes.fromhex("005b000000000000"),
)
SOCKS4_BIND_OCTETS = b"\x04\x02" + octets("SOCKS 4 CONNECT")[2:]
SOCKS4_BIND_EVENT = RequestMade(Request(2, at("198.51.100.7", 80)), b"alice")
SOCKS4_ACCEPT = Line(
    SOCKS4_BIND_OCTETS,
    SOCKS4_BIND_EVENT,
    _accept,
    bytes.fromhex("005a1234cb007101 005a0fa000000000"),  # an IPv6 peer has no address here
)
SOCKS4_WAIT_IN_VAIN = Line(
    SOCKS4_BIND_OCTETS, SOCKS4_BIND_EVENT, _wait_in_vain, bytes.fromhex("005a1234cb007101 005b000000000000")
)
REJECTED = bytes.fromhex("005b000000000000")

IGNORED = Line(BEHIND_THE_END.hears)
PAYLOAD = Line(b"\x05\x01\x00GET / HTTP/1.0\r\n\r\n")

DIALOGUES = {
    "CONNECT, and more behind it": [NO_LOGIN, CONNECT, PAYLOAD],
    "BIND": [NO_LOGIN, ACCEPT, PAYLOAD],
    "BIND denied": [
        NO_LOGIN,
        refused(BIND_REQUEST, BIND_OCTETS, ReplyCode.NOT_ALLOWED, bytes.fromhex("05020001000000000000")),
        BEHIND_THE_END,
    ],
    "BIND without a peer": [NO_LOGIN, WAIT_IN_VAIN, BEHIND_THE_END],
    "UDP ASSOCIATE": [NO_LOGIN, ASSOCIATE, IGNORED],
    "UDP ASSOCIATE with the client's port": [NO_LOGIN, ASSOCIATE_FROM_PORT, IGNORED],
    "UDP ASSOCIATE denied": [
        NO_LOGIN,
        refused(
            ASSOCIATE_REQUEST, ASSOCIATE.hears, ReplyCode.NOT_ALLOWED, bytes.fromhex("05020001000000000000")
        ),
        BEHIND_THE_END,
    ],
    "INTERFACE DATA": [NO_LOGIN, ASSOCIATE_ASKING, INTERFACE, NO_INTERFACE, INTERFACE],
    "INTERFACE DATA that nobody asked to send": [NO_LOGIN, ASSOCIATE, Line(INTERFACE.hears)],
    "INTERFACE DATA that was not granted": [NO_LOGIN, ASSOCIATE_ASKED_IN_VAIN, Line(INTERFACE.hears)],
    "INTERFACE DATA of another kind": [
        NO_LOGIN,
        ASSOCIATE_ASKING,
        INTERFACE,
        Line(bytes.fromhex("00020001"), WireError, says=bytes.fromhex("05070001000000000000")),
        BEHIND_THE_END,
    ],
    "a request where INTERFACE DATA belongs": [
        NO_LOGIN,
        ASSOCIATE_ASKING,
        Line(octets("UDP ASSOCIATE unknown source")[:1], WireError),
        BEHIND_THE_END,
    ],
}  # fmt: skip
SOCKS4_DIALOGUES = {
    "SOCKS 4 CONNECT": [SOCKS4_CONNECT, PAYLOAD],
    "SOCKS 4a CONNECT": [SOCKS4A_CONNECT, PAYLOAD],
    "SOCKS 4 refused": [SOCKS4_REFUSED, BEHIND_THE_END],
    "SOCKS 4 BIND": [SOCKS4_ACCEPT, PAYLOAD],
    "SOCKS 4 BIND without a peer": [SOCKS4_WAIT_IN_VAIN, BEHIND_THE_END],
    "SOCKS 4 with another command": [Line(bytes.fromhex("0403"), WireError, says=REJECTED), BEHIND_THE_END],
    "SOCKS 4 with a user id too long": [
        Line(octets("SOCKS 4 CONNECT")[:8] + 256 * b"u", WireError, says=REJECTED),
        BEHIND_THE_END,
    ],
    "SOCKS 4a with a name that is none": [
        Line(bytes.fromhex("0401005000000001 00 2000"), WireError, says=REJECTED),
        BEHIND_THE_END,
    ],
    "SOCKS 5 all the same": [NO_LOGIN, CONNECT, PAYLOAD],
}
