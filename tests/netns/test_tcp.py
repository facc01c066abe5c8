"""CONNECT and BIND across the border: octets, endings, failures, and who may go where."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests import scapy_layers as layers
from tests.netns.client import Refused
from tests.netns.lab import (
    ANNEX_BORDER,
    BORDER,
    CLIENT,
    INSIDE,
    PORT,
    REMOTE,
    SECOND,
    STRANGER,
    Host,
    Lab,
    wait_for,
)
from tests.netns.nameserver import Nameserver
from tests.netns.relay import RelayProcess
from tests.netns.socks_client import RULES, Address, SocksClient, read_exactly
from tests.netns.test_borders import TWO_OUTSIDES
from tests.netns.test_many import resident_octets

both_versions = pytest.mark.parametrize("version", [4, 6])
each_way = pytest.mark.parametrize("by_client", [True, False], ids=["by the client", "by the remote"])

BULK_OCTETS = 50 << 20
HELD_OCTETS = 32 << 20
"""What the buffers of four kernels and of the relay may hold of a stream that nobody reads."""
MARGIN_OCTETS = 4 << 20
RESET = struct.pack("ii", 1, 0)
DEAD_AFTER_S = 5
"""As tests.netns.relay configures it."""

NAMES = {
    "both.example": (REMOTE[6], REMOTE[4]),
    "partly.example": (STRANGER[4], REMOTE[4], "127.0.0.1", INSIDE[4]),
    "within.example": ("127.0.0.1", INSIDE[4], INSIDE[6], BORDER[4], SECOND[4], "::1"),
}
NOT_THE_STRANGER = f'[[rules]]\nname = "not there"\nallow = false\nto = ["{STRANGER[4]}"]\n{RULES}'


@pytest.fixture
def relay(start_relay: Callable[..., RelayProcess]) -> RelayProcess:
    return start_relay(rules=RULES)


@pytest.fixture(scope="module")
def nameserver(lab: Lab) -> Iterator[Nameserver]:
    with Nameserver(lab.outside, REMOTE[4], NAMES) as server, lab.relay.asking(REMOTE[4]):
        yield server


def listener(host: Host, address: str, port: int = 0) -> socket.socket:
    sock = host.open_socket(6 if ":" in address else 4, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen()
    return sock


def accepted(listening: socket.socket) -> tuple[socket.socket, Address]:
    sock, peer = listening.accept()
    sock.settimeout(10)
    return sock, peer[:2]


@contextmanager
def stream(lab: Lab, version: int = 4) -> Iterator[tuple[SocksClient, socket.socket]]:
    """A client and the remote that it has been connected to."""
    with SocksClient(lab.client) as client, listener(lab.outside, REMOTE[version]) as listening:
        client.connect(listening.getsockname()[:2])
        remote, _ = accepted(listening)
        with remote:
            yield client, remote


def is_reset(sock: socket.socket) -> bool:
    """It is ended by a reset, now or soon, and not by an end of stream."""
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize(("inside", "outside"), [(4, 4), (4, 6), (6, 4), (6, 6)])
def test_a_stream_crosses_and_comes_from_the_border(lab: Lab, relay: RelayProcess, inside: int, outside: int) -> None:
    with SocksClient(lab.client, version=inside) as client, listener(lab.outside, REMOTE[outside]) as listening:
        bound = client.connect(listening.getsockname()[:2])
        remote, peer = accepted(listening)
        with remote:
            assert bound == peer, "the reply tells what the remote sees"
            assert peer[0] == BORDER[outside]
            client.tcp.sendall(b"question")
            assert read_exactly(remote, 8) == b"question"
            remote.sendall(b"answer")
            assert client.read(6) == b"answer"


def test_a_name_is_resolved_by_the_relay(
    lab: Lab, nameserver: Nameserver, start_relay: Callable[..., RelayProcess]
) -> None:
    start_relay(rules=RULES)
    with SocksClient(lab.client) as client, listener(lab.outside, REMOTE[6]) as listening:
        bound = client.connect(("both.example", listening.getsockname()[1]))
        remote, peer = accepted(listening)
        remote.close()
        assert peer == bound
    assert "both.example" in nameserver.asked


def test_a_silent_address_is_joined_by_the_next_after_a_quarter_of_a_second(
    lab: Lab, nameserver: Nameserver, start_relay: Callable[..., RelayProcess]
) -> None:
    """RFC 8305: the name has an IPv6 address that answers nothing, and is preferred."""
    start_relay(rules=RULES)
    with (
        lab.outside.filtering(f"ip6 daddr {REMOTE[6]} tcp dport 1024-65535 drop"),
        SocksClient(lab.client) as client,
        listener(lab.outside, REMOTE[4]) as listening,
    ):
        began = time.monotonic()
        bound = client.connect(("both.example", listening.getsockname()[1]))
        took_s = time.monotonic() - began
        remote, peer = accepted(listening)
        remote.close()
        assert peer == bound
        assert bound[0] == BORDER[4]
        assert 0.24 < took_s < 1


def test_a_names_denied_addresses_are_not_tried(
    lab: Lab, nameserver: Nameserver, start_relay: Callable[..., RelayProcess]
) -> None:
    start_relay(rules=NOT_THE_STRANGER)
    with (
        SocksClient(lab.client) as client,
        listener(lab.outside, STRANGER[4]) as denied,
        listener(lab.outside, REMOTE[4], denied.getsockname()[1]) as allowed,
    ):
        client.connect(("partly.example", denied.getsockname()[1]))
        accepted(allowed)[0].close()
        denied.setblocking(False)
        with pytest.raises(BlockingIOError):
            denied.accept()


@pytest.mark.parametrize("command", ["CONNECT", "BIND"])
def test_a_name_whose_addresses_are_all_denied_is_denied(
    lab: Lab, nameserver: Nameserver, start_relay: Callable[..., RelayProcess], command: str
) -> None:
    """DNS rebinding: a name outside that points at what is inside."""
    start_relay(rules=RULES)
    with SocksClient(lab.client) as client, pytest.raises(Refused) as refused:
        client.request(command, ("within.example", 80))
    assert refused.value.code == 0x02


def test_a_name_that_does_not_exist_is_an_unreachable_host(
    lab: Lab, nameserver: Nameserver, start_relay: Callable[..., RelayProcess]
) -> None:
    start_relay(rules=RULES)
    with SocksClient(lab.client) as client, pytest.raises(Refused) as refused:
        client.connect(("nowhere.example", 80))
    assert refused.value.code == 0x04


FAILURES = {
    "nobody listens": ("", REMOTE[4], 0x05),
    "nobody listens, IPv6": ("", REMOTE[6], 0x05),
    "the network cannot be reached": ("tcp dport 9999 reject with icmp type net-unreachable", REMOTE[4], 0x03),
    "the host cannot be reached": ("tcp dport 9999 reject with icmp type host-unreachable", REMOTE[4], 0x04),
    "a filter says so": ("tcp dport 9999 reject with icmp type admin-prohibited", REMOTE[4], 0x04),
    "the network cannot be reached, IPv6": ("tcp dport 9999 reject with icmpv6 type no-route", REMOTE[6], 0x03),
    "the host cannot be reached, IPv6": ("tcp dport 9999 reject with icmpv6 type addr-unreachable", REMOTE[6], 0x04),
    "there is no such host": ("", "10.77.2.99", 0x04),
    "there is no route": ("", "192.0.2.1", 0x03),
    "there is no route, IPv6": ("", "2001:db8::1", 0x03),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_told_by_its_reply(lab: Lab, relay: RelayProcess, failure: str) -> None:
    rule, address, code = FAILURES[failure]
    with (
        lab.outside.filtering(rule),
        SocksClient(lab.client) as client,
        pytest.raises(Refused) as refused,
    ):
        client.connect((address, 9999))
    assert refused.value.code == code


def test_what_the_relays_own_routes_prohibit_is_not_allowed(lab: Lab, relay: RelayProcess) -> None:
    lab.relay.run("ip", "route", "add", "prohibit", "198.51.100.0/24")
    try:
        with SocksClient(lab.client) as client, pytest.raises(Refused) as refused:
            client.connect(("198.51.100.1", 80))
        assert refused.value.code == 0x02
    finally:
        lab.relay.run("ip", "route", "del", "prohibit", "198.51.100.0/24")


def test_a_remote_that_does_not_answer_is_given_up_in_time(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(rules=RULES, limits="connect_timeout_s = 1")
    with lab.outside.filtering("tcp dport 9999 drop"), SocksClient(lab.client) as client:
        with pytest.raises(Refused) as refused:
            client.connect((REMOTE[4], 9999))
        assert refused.value.code == 0x06
    relay.wait_for_record("refused", why=f"{REMOTE[4]}: no answer in time")
    assert lab.relay.sockets("tcp", BORDER[4], 0) == 0


OWN = [
    *(INSIDE[4], BORDER[4], SECOND[4], CLIENT[4], INSIDE[6], BORDER[6], SECOND[6]),
    *("127.0.0.1", "127.9.9.9", "::1", "169.254.1.1", "fe80::1", "::ffff:127.0.0.1", "::ffff:10.77.2.1"),
    *("224.0.0.1", "239.77.1.2", "ff15::1", "255.255.255.255", "0.0.0.1"),
]


@pytest.mark.parametrize("command", ["CONNECT", "BIND"])
def test_nobody_gets_at_the_relay_or_the_inside_by_a_rule_for_everything(
    lab: Lab, relay: RelayProcess, command: str
) -> None:
    for address in OWN:
        with SocksClient(lab.client) as client, pytest.raises(Refused) as refused:
            client.request(command, (address, PORT))
        assert refused.value.code == 0x02, address


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_an_address_of_nobody_is_invalid(lab: Lab, relay: RelayProcess, address: str) -> None:
    with SocksClient(lab.client) as client, pytest.raises(Refused) as refused:
        client.connect((address, 80))
    assert refused.value.code == 0x09


@each_way
def test_half_a_stream_may_end_and_the_other_goes_on(lab: Lab, relay: RelayProcess, by_client: bool) -> None:
    with stream(lab) as (client, remote):
        first, second = (client.tcp, remote) if by_client else (remote, client.tcp)
        first.sendall(b"that was all")
        first.shutdown(socket.SHUT_WR)
        assert read_exactly(second, 12) == b"that was all"
        assert not second.recv(1)
        for _ in range(3):
            second.sendall(b"but I have more")
            assert read_exactly(first, 15) == b"but I have more"
        second.shutdown(socket.SHUT_WR)
        assert not first.recv(1)
    relay.wait_for_record("connect-end", reason=f"closed by {'client' if by_client else 'remote'}")


@each_way
def test_a_reset_is_passed_on_as_one(lab: Lab, relay: RelayProcess, by_client: bool) -> None:
    """A stream cut short must not look whole."""
    with stream(lab) as (client, remote):
        one, other = (client.tcp, remote) if by_client else (remote, client.tcp)
        one.sendall(b"half of some")
        assert read_exactly(other, 12) == b"half of some"
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.close()
        assert is_reset(other)
    relay.wait_for_record("connect-end", reason=f"reset by {'client' if by_client else 'remote'}")


class Bulk:
    """One direction: random octets, sent as fast as they are taken, and what comes of them at the other end."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self._source, self._sink = source, sink
        for sock in (source, sink):
            sock.settimeout(60)
        self.sent, self.received = hashlib.sha256(), hashlib.sha256()
        self.octets_sent = self.octets_received = 0
        self._threads: list[threading.Thread] = []

    def start_sending(self) -> None:
        self._start(self._send)

    def start_receiving(self) -> None:
        self._start(self._receive)

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(timeout=120)
        assert self.octets_sent == self.octets_received == BULK_OCTETS
        assert self.sent.digest() == self.received.digest()

    def is_held_up(self) -> bool:
        """The kernel takes no more of it, for half a second."""
        return self.octets_sent > 0 and not select.select([], [self._source], [], 0.5)[1]

    def _start(self, target: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=target, daemon=True))
        self._threads[-1].start()

    def _send(self) -> None:
        source = random.Random(1)
        while self.octets_sent < BULK_OCTETS:
            octets = source.randbytes(1 << 18)
            self._source.sendall(octets)
            self.sent.update(octets)
            self.octets_sent += len(octets)
        self._source.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while octets := self._sink.recv(1 << 18):
            self.received.update(octets)
            self.octets_received += len(octets)


@both_versions
def test_fifty_mebibytes_both_ways_arrive_whole_and_are_held_by_nobody(
    lab: Lab, start_relay: Callable[..., RelayProcess], version: int
) -> None:
    """While neither end reads, both senders are held up and the relay does not grow."""
    relay = start_relay(rules=RULES)
    with stream(lab, version) as (client, remote):
        before = resident_octets(relay.pid)
        up, down = Bulk(client.tcp, remote), Bulk(remote, client.tcp)
        for direction in (up, down):
            direction.start_sending()
        for direction in (up, down):
            wait_for("the sender to be held up", direction.is_held_up, timeout_s=60)
            assert direction.octets_sent < HELD_OCTETS
        assert resident_octets(relay.pid) - before < MARGIN_OCTETS
        for direction in (up, down):
            direction.start_receiving()
        for direction in (up, down):
            direction.finish()
        assert resident_octets(relay.pid) - before < MARGIN_OCTETS
    relay.wait_for_record("connect-end", to_remote_octets=BULK_OCTETS, to_client_octets=BULK_OCTETS)


def test_a_stream_without_traffic_ends_after_its_time(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(rules=RULES, limits="idle_tcp_s = 1")
    with stream(lab) as (client, remote):
        began = time.monotonic()
        assert is_reset(client.tcp)
        assert is_reset(remote)
        assert time.monotonic() - began < 3
    relay.wait_for_record("connect-end", reason="idle")


@pytest.mark.parametrize("owing", [False, True], ids=["owing nothing", "owing an acknowledgement"])
@pytest.mark.parametrize("side", ["client", "remote"])
def test_who_is_behind_a_cut_link_is_noticed(lab: Lab, relay: RelayProcess, side: str, owing: bool) -> None:
    """Also one that is owed octets: TCP alone would go on for a quarter of an hour."""
    with stream(lab) as (client, remote):
        lost, left = (client.tcp, remote) if side == "client" else (remote, client.tcp)
        lost.sendall(b"here")
        assert read_exactly(left, 4) == b"here"
        with lab.client_cut() if side == "client" else lab.outside_cut():
            began = time.monotonic()
            if owing:
                left.sendall(b"are you there?")
            left.settimeout(3 * DEAD_AFTER_S)
            assert is_reset(left)
            assert time.monotonic() - began < DEAD_AFTER_S + 2
        relay.wait_for_record("connect-end", reason=f"{side} dead")


def test_a_reader_that_pauses_is_not_taken_for_dead(lab: Lab, relay: RelayProcess) -> None:
    """It answers the probes of its closed window for longer than the dead are waited for."""
    with stream(lab) as (client, remote):
        bulk = Bulk(remote, client.tcp)
        bulk.start_sending()
        wait_for("the sender to be held up", bulk.is_held_up, timeout_s=60)
        held_up = time.monotonic()
        wait_for("a long pause", lambda: time.monotonic() - held_up > 2 * DEAD_AFTER_S, timeout_s=3 * DEAD_AFTER_S)
        bulk.start_receiving()
        bulk.finish()


IDLE_CLIENT = """
import socket, sys
tcp = socket.create_connection((sys.argv[1], int(sys.argv[2])))
tcp.sendall(bytes.fromhex(sys.argv[3]))
print("asked", flush=True)
while tcp.recv(1):
    pass
"""


def test_a_killed_clients_connection_outside_is_gone_at_once(lab: Lab, relay: RelayProcess) -> None:
    with listener(lab.outside, REMOTE[4]) as listening:
        request = f"050102 0105{b'alice'.hex()}06{b'secret'.hex()} 05010001{socket.inet_aton(REMOTE[4]).hex()}"
        octets = f"{request}{listening.getsockname()[1]:04x}"
        program = lab.client.popen(
            sys.executable, "-c", IDLE_CLIENT, INSIDE[4], str(PORT), octets, stdout=subprocess.PIPE
        )
        remote, peer = accepted(listening)
        with remote, program:
            remote.sendall(b"x")
            relay.wait_for_record("connect-start")
            began = time.monotonic()
            program.kill()
            assert not remote.recv(1), "what was sent is whole, as far as TCP can tell"
            remote.close()
            wait_for("the relay's end to be gone", lambda: not lab.relay.sockets("tcp", *peer))
            assert time.monotonic() - began < 1
    relay.wait_for_record("connect-end")


def test_a_remote_that_goes_on_sending_to_a_killed_client_is_reset(lab: Lab, relay: RelayProcess) -> None:
    with stream(lab) as (client, remote):
        client.tcp.close()
        assert not remote.recv(1)
        began = time.monotonic()

        def is_over() -> bool:
            try:
                remote.sendall(b"still there?")
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        wait_for("the reset", is_over)
        assert time.monotonic() - began < 1
    wait_for("its socket to be gone", lambda: not lab.relay.sockets("tcp", BORDER[4], 0))


def test_a_client_may_end_its_half_before_it_is_connected(lab: Lab, relay: RelayProcess) -> None:
    with SocksClient(lab.client) as client, listener(lab.outside, REMOTE[4]) as listening:
        request = layers.Request(CMD="CONNECT", DST=listening.getsockname())
        client.tcp.sendall(bytes(request) + b"question")
        client.tcp.shutdown(socket.SHUT_WR)
        remote, peer = accepted(listening)
        with remote:
            assert client.read_reply().BND.pair == peer
            assert read_exactly(remote, 8) == b"question"
            assert not remote.recv(1)
            remote.sendall(b"answer")
            assert client.read(6) == b"answer"


def test_a_client_that_goes_while_its_connection_is_being_made_leaves_nothing(
    lab: Lab, start_relay: Callable[..., RelayProcess]
) -> None:
    """Its end may be half a close: the attempt goes on for its time."""
    relay = start_relay(rules=RULES, limits="connect_timeout_s = 2")
    with lab.outside.filtering("tcp dport 9999 drop"):
        with SocksClient(lab.client) as client:
            client.tcp.sendall(bytes(layers.Request(CMD="CONNECT", DST=(REMOTE[4], 9999))))
            wait_for("the attempt", lambda: lab.relay.sockets("tcp", BORDER[4], 0) == 1)
        wait_for("its socket to be gone", lambda: lab.relay.sockets("tcp", BORDER[4], 0) == 0)
    assert relay.counters()["connections"] == 0


@both_versions
def test_the_awaited_peer_connects_and_is_named(lab: Lab, relay: RelayProcess, version: int) -> None:
    """BIND, two replies (RFC 1928 §4)."""
    with SocksClient(lab.client) as client, lab.outside.open_socket(version, socket.SOCK_STREAM) as peer:
        bound = client.bind((REMOTE[version], 2000))
        assert bound[0] == BORDER[version]
        assert bound[1] > 0
        peer.bind((REMOTE[version], 0))
        peer.connect(bound)
        assert client.read_reply().BND.pair == peer.getsockname()[:2]
        peer.sendall(b"from outside")
        assert client.read(12) == b"from outside"
        client.tcp.sendall(b"from inside")
        assert read_exactly(peer, 11) == b"from inside"
        assert lab.relay.sockets("tcp", *bound) == 1, "nobody is awaited any more"


def test_a_stranger_is_not_the_awaited_peer(lab: Lab, relay: RelayProcess) -> None:
    with (
        SocksClient(lab.client) as client,
        lab.outside.open_socket(4, socket.SOCK_STREAM) as stranger,
        lab.outside.open_socket(4, socket.SOCK_STREAM) as peer,
    ):
        bound = client.bind((REMOTE[4], 2000))
        stranger.bind((STRANGER[4], 0))
        stranger.connect(bound)
        assert not stranger.recv(1)
        peer.bind((REMOTE[4], 0))
        peer.connect(bound)
        assert client.read_reply().BND.pair == peer.getsockname()


def test_an_awaited_peer_that_does_not_come_is_given_up(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    start_relay(rules=RULES, limits="bind_timeout_s = 1")
    with SocksClient(lab.client) as client:
        bound = client.bind((REMOTE[4], 2000))
        with pytest.raises(Refused) as refused:
            client.read_reply()
        assert refused.value.code == 0x06
    assert not lab.relay.sockets("tcp", *bound)


def test_a_client_that_goes_awaits_nobody(lab: Lab, relay: RelayProcess) -> None:
    with SocksClient(lab.client) as client:
        bound = client.bind((REMOTE[4], 2000))
        assert lab.relay.sockets("tcp", *bound) == 1
    wait_for("the listening socket to be gone", lambda: not lab.relay.sockets("tcp", *bound))


def test_with_two_outsides_a_stream_leaves_by_its_rules(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    """Both have a host of that address; the routing table prefers the first."""
    rules = """
[[rules]]
name = "alice goes to the annex"
allow = true
users = ["alice"]
via = "annex"
[[rules]]
name = "others go to the street"
allow = true
"""
    with lab.annex() as annex:
        start_relay(rules=rules, outside=TWO_OUTSIDES)
        with (
            listener(lab.outside, REMOTE[4]) as street,
            listener(annex, REMOTE[4], street.getsockname()[1]) as courtyard,
        ):
            for user, address, own, listening in (
                ("alice", CLIENT, ANNEX_BORDER, courtyard),
                ("carol", SECOND, BORDER, street),
            ):
                with SocksClient(lab.client, user, address=address[4]) as client:
                    bound = client.connect(street.getsockname())
                    remote, peer = accepted(listening)
                    remote.close()
                    assert bound == peer
                    assert peer[0] == own[4]


def test_with_two_outsides_a_peer_is_awaited_at_its_rules(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    with lab.annex() as annex:
        start_relay(rules='[[rules]]\nname = "annex"\nallow = true\nvia = "annex"\n', outside=TWO_OUTSIDES)
        with SocksClient(lab.client) as client, annex.open_socket(4, socket.SOCK_STREAM) as peer:
            bound = client.bind((REMOTE[4], 2000))
            assert bound[0] == ANNEX_BORDER[4]
            peer.bind((REMOTE[4], 0))
            peer.connect(bound)
            assert client.read_reply().BND.pair == peer.getsockname()
            client.tcp.sendall(b"welcome")
            assert read_exactly(peer, 7) == b"welcome"
