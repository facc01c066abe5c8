"""Dante's server beside ours: the same octets to both, and their replies compared, alike or different for a reason."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from tests.interop.danted import DANTE_PORT, DANTED, danted
from tests.interop.program import needs
from tests.interop.socks import FORBIDDEN_PORT, SILENT_PORT, UNROUTED, SocksRelay
from tests.netns.lab import BORDER, CLIENT, INSIDE, PORT, REMOTE, Lab

pytestmark = needs(**{DANTED: "dante-server"})

OPEN_PORT = 5353
NEIGHBOUR = "10.77.2.200"
"""Nobody has it."""


def block(host: str, port: int) -> str:
    """ATYP, address and port in hex digits."""
    address = ip_address(host)
    return f"{1 if address.version == 4 else 4:02x}{address.packed.hex()}{port:04x}"


def named(name: str, port: int) -> str:
    return f"03{len(name):02x}{name.encode().hex()}{port:04x}"


NO_LOGIN, LOGIN, GSSAPI, NONE_ACCEPTABLE = "00", "02", "01", "ff"
UNUSED = block("0.0.0.0", 0)
CONNECT, BIND, ASSOCIATE = "050100", "050200", "050300"
SERVER, SERVER_V6 = block(REMOTE[4], OPEN_PORT), block(REMOTE[6], OPEN_PORT)

GREETINGS = {
    "no login": (NO_LOGIN, "0500"),
    "GSS-API, which neither has, or no login": (GSSAPI + NO_LOGIN, "0500"),
    "methods of nobody, and no login": ("80fe00", "0500"),
    "the same method three times": (NO_LOGIN * 3, "0500"),
    "GSS-API alone": (GSSAPI, "05ff"),
    "no method at all": ("", "05ff"),
    "none acceptable": (NONE_ACCEPTABLE, "05ff"),
}
"""METHODS, and the reply of both; a refusal has two octets and is followed by the end of the connection."""

SUCCESSES = {
    "CONNECT": (CONNECT + SERVER, BORDER[4]),
    "CONNECT with RSV that is not zero": ("0501ff" + SERVER, BORDER[4]),
    "CONNECT to an address written as a name": (CONNECT + named(REMOTE[4], OPEN_PORT), BORDER[4]),
    "BIND": (BIND + SERVER, BORDER[4]),
    "BIND for any port of a host": (BIND + block(REMOTE[4], 0), BORDER[4]),
    "UDP ASSOCIATE from anywhere": (ASSOCIATE + UNUSED, INSIDE[4]),
    "UDP ASSOCIATE from an endpoint": (ASSOCIATE + block(CLIENT[4], 4660), INSIDE[4]),
    "UDP ASSOCIATE from another's address": (ASSOCIATE + SERVER, INSIDE[4]),
}
"""Requests, and the address in the reply of both; the port is each relay's own."""


@dataclass(frozen=True)
class Differs:
    """A request that ours answers with a failure: its code. Dante's, with the address and port behind it, or "" when it
    is silent; and why ours is another.
    """

    request: str
    ours: str
    dante: str
    why: str


NOT_BOUND = "nothing was bound: an unused address says so, where Dante repeats the request or where it tried from"
SILENT = "RFC 1928 §6 has a reply for it; Dante closes without one"

DIFFERENCES = {
    "refused": Differs(CONNECT + block(REMOTE[4], SILENT_PORT), "05", "05 BORDER", NOT_BOUND),
    "forbidden": Differs(
        CONNECT + block(REMOTE[4], FORBIDDEN_PORT), "02", f"02 {block(REMOTE[4], FORBIDDEN_PORT)}", NOT_BOUND
    ),
    "no route": Differs(CONNECT + block(UNROUTED, 80), "03", "03 BORDER", NOT_BOUND),
    "a neighbour that is not there": Differs(CONNECT + block(NEIGHBOUR, 80), "04", "04 BORDER", NOT_BOUND),
    "no such name": Differs(
        CONNECT + named("nowhere.invalid", 80), "04", f"04 {named('nowhere.invalid', 80)}", NOT_BOUND
    ),
    "an empty name": Differs(
        CONNECT + "03000050", "09", "04 03000050", "pro-v5 has a reply for an address that is none; Dante looks it up"
    ),
    "port zero": Differs(
        CONNECT + block(REMOTE[4], 0), "09", f"08 {block(REMOTE[4], 0)}", "its type is supported, the port is none"
    ),
    "address zero": Differs(
        CONNECT + block("0.0.0.0", 80), "09", f"08 {block('0.0.0.0', 80)}", "its type is supported, the address is none"
    ),
    "BIND for anybody": Differs(
        BIND + UNUSED, "09", "00 BORDER", "rules speak of who may connect, and here nobody is named"
    ),
    "an address type of nobody": Differs(CONNECT + "02" + SERVER[2:], "08", "", SILENT),
    "address type zero": Differs(CONNECT + "00" + SERVER[2:], "08", "", SILENT),
    "a command of nobody": Differs("050900" + SERVER, "07", "", SILENT),
}

SOCKS4_SUCCESSES = {"CONNECT": "0401", "BIND": "0402"}
SOCKS4_REFUSALS = {
    "refused": ("0401", SILENT_PORT),
    "forbidden": ("0401", FORBIDDEN_PORT),
    "UDP ASSOCIATE, which SOCKS 4 has not": ("0403", OPEN_PORT),
}


@pytest.fixture(scope="module")
def both(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ours, Dante's, and a host outside with a port that is open."""
    folder = tmp_path_factory.mktemp("both")
    with lab.outside.entered():
        open_port = socket.create_server(("::", OPEN_PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    with open_port:
        ours = SocksRelay(lab, folder)
        try:
            with danted(lab, folder):
                yield
        finally:
            ours.close()


class Talk:
    """One connection to one of them."""

    def __init__(self, lab: Lab, port: int) -> None:
        self.sock = lab.client.open_socket(4, socket.SOCK_STREAM)
        self.sock.connect((INSIDE[4], port))
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self.sock.close()

    def write(self, octets: str) -> None:
        self.sock.sendall(bytes.fromhex(octets))

    def read(self, count: int) -> str:
        """Less at the end of the connection."""
        return self._file.read(count).hex()

    def greet(self, methods: str = NO_LOGIN) -> str:
        self.write(f"05{len(methods) // 2:02x}{methods}")
        return self.read(2)

    def read_reply(self) -> str:
        """VER REP RSV ATYP BND.ADDR BND.PORT, or nothing."""
        head = self.read(5)
        lengths = {"01": 5, "03": int(head[8:] or "0", 16) + 2, "04": 17}
        return head + self.read(lengths[head[6:8]]) if head else ""

    def last_reply(self) -> str:
        reply = self.read_reply()
        assert reply[2:4] == "00" or self.is_over()
        return reply

    def is_over(self) -> bool:
        """The other end closed, and had nothing more to say."""
        return self.read(1) == ""


def ask_both(lab: Lab, request: str) -> tuple[str, str]:
    """Ours and Dante's reply to a request; the connection is over behind a failure."""
    with Talk(lab, PORT) as ours, Talk(lab, DANTE_PORT) as dante:
        for talk in (ours, dante):
            assert talk.greet() == "0500"
            talk.write(request)
        return ours.last_reply(), dante.last_reply()


@pytest.mark.parametrize("case", GREETINGS)
@pytest.mark.parametrize("port", [PORT, DANTE_PORT], ids=["ours", "dante"])
def test_greetings_are_answered_alike(lab: Lab, both: None, case: str, port: int) -> None:
    methods, answer = GREETINGS[case]
    with Talk(lab, port) as talk:
        assert talk.greet(methods) == answer
        assert answer != "05ff" or talk.is_over()


@pytest.mark.parametrize("port", [PORT, DANTE_PORT], ids=["ours", "dante"])
def test_another_version_is_not_answered(lab: Lab, both: None, port: int) -> None:
    with Talk(lab, port) as talk:
        talk.write("060100")
        assert talk.is_over()


@pytest.mark.parametrize("case", SUCCESSES)
def test_successes_are_alike(lab: Lab, both: None, case: str) -> None:
    request, address = SUCCESSES[case]
    ours, dante = ask_both(lab, request)
    assert ours[:-4] == dante[:-4] == "050000" + block(address, 0)[:-4]
    assert "0000" not in (ours[-4:], dante[-4:])


@pytest.mark.parametrize("case", DIFFERENCES)
def test_failures_have_the_same_code_or_a_reason_for_another(lab: Lab, both: None, case: str) -> None:
    differs = DIFFERENCES[case]
    ours, dante = ask_both(lab, differs.request)
    assert ours == f"05{differs.ours}00{UNUSED}"
    code, _, bound = differs.dante.partition(" ")
    if bound == "BORDER":
        assert dante[:-4] == f"05{code}00{block(BORDER[4], 0)[:-4]}"
    else:
        assert dante == (f"05{code}00{bound}" if code else "")
    assert differs.ours == code or differs.why is not NOT_BOUND


def test_an_ipv6_destination_is_reached_from_an_ipv4_client(lab: Lab, both: None) -> None:
    """The relay has IPv6 outside; Dante, told of the interface alone, does not use it."""
    ours, dante = ask_both(lab, CONNECT + SERVER_V6)
    assert ours[:-4] == "050000" + block(BORDER[6], 0)[:-4]
    assert dante[2:4] == "02"


def test_whoever_offers_a_password_too_is_asked_for_it(lab: Lab, both: None) -> None:
    """The strongest method that our configuration has; this Dante has one."""
    answers = []
    for port in (PORT, DANTE_PORT):
        with Talk(lab, port) as talk:
            answers.append(talk.greet(NO_LOGIN + LOGIN))
    assert answers == ["0502", "0500"]


def test_a_version_changed_behind_the_greeting_ends_the_connection(lab: Lab, both: None) -> None:
    """Dante waits for more; its client would have to."""
    with Talk(lab, PORT) as talk:
        talk.greet()
        talk.write("04" + (CONNECT + SERVER)[2:])
        assert talk.is_over()


def test_the_second_reply_to_a_bind_names_who_connected(lab: Lab, both: None) -> None:
    for port in (PORT, DANTE_PORT):
        with Talk(lab, port) as talk, lab.outside.open_socket(4, socket.SOCK_STREAM) as remote:
            talk.greet()
            talk.write(BIND + block(REMOTE[4], 0))
            remote.bind((REMOTE[4], 0))
            remote.connect((BORDER[4], int(talk.read_reply()[-4:], 16)))
            assert talk.read_reply() == "050000" + block(*remote.getsockname())
            remote.sendall(b"data")
            assert talk.read(4) == b"data".hex()


def test_datagrams_come_back_with_the_same_header(lab: Lab, both: None) -> None:
    for port in (PORT, DANTE_PORT):
        with Talk(lab, port) as talk, lab.client.udp(CLIENT[4]) as client, lab.outside.udp(REMOTE[4]) as remote:
            talk.greet()
            talk.write(ASSOCIATE + block(*client.getsockname()))
            header = bytes.fromhex("000000" + block(*remote.getsockname()))
            client.sendto(header + b"question", (INSIDE[4], int(talk.read_reply()[-4:], 16)))
            data, source = remote.recvfrom(100)
            assert (data, source[0]) == (b"question", BORDER[4])
            remote.sendto(b"answer", source)
            assert client.recv(100) == header + b"answer"


@pytest.mark.parametrize("case", SOCKS4_SUCCESSES)
def test_socks4_successes_are_alike(lab: Lab, both: None, case: str) -> None:
    replies = []
    for port in (PORT, DANTE_PORT):
        with Talk(lab, port) as talk:
            talk.write(f"{SOCKS4_SUCCESSES[case]}{OPEN_PORT:04x}{ip_address(REMOTE[4]).packed.hex()}00")
            replies.append(talk.read(8))
    for reply in replies:
        assert (reply[:4], reply[8:]) == ("005a", ip_address(BORDER[4]).packed.hex())
        assert reply[4:8] != "0000"


@pytest.mark.parametrize("case", SOCKS4_REFUSALS)
def test_socks4_refusals_have_the_same_code(lab: Lab, both: None, case: str) -> None:
    """What stands behind it clients ignore: ours are zeros, Dante's what it tried from or was asked for."""
    command, port = SOCKS4_REFUSALS[case]
    replies = []
    for relay in (PORT, DANTE_PORT):
        with Talk(lab, relay) as talk:
            talk.write(f"{command}{port:04x}{ip_address(REMOTE[4]).packed.hex()}00")
            replies.append(talk.read(8))
            assert talk.is_over()
    assert replies[0] == "005b" + bytes(6).hex()
    assert replies[1][:4] == "005b"
