"""A relay that sends what a rule names on through another one.

client ── "in" ── relay ── "out" ── another relay, in the outside host: its clients are at 10.77.2.1, and it reaches
                                    the server at 10.77.2.3 in the same host
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import scapy_layers as layers
from tests.netns.client import RawClient
from tests.netns.lab import CLIENT, INSIDE, PORT, REMOTE, STRANGER, Lab, wait_for
from tests.netns.relay import PASSWORDS, RelayProcess

UPSTREAM = f"""
[[upstream]]
name = "hub"
relay = "socks5://{REMOTE[4]}:{PORT}"
"""
RULES = f"""
[[rules]]
name = "the server is reached through the hub"
allow = true
to = ["{STRANGER[4]}"]
upstream = "hub"
[[rules]]
name = "the rest directly"
allow = true
"""
HUB = f"""
[inside]
listen = ["{REMOTE[4]}:{PORT}"]
[outside]
interface = "out"
[auth]
methods = ["none"]
[[rules]]
name = "what the relay asks for"
allow = true
to = ["{STRANGER[4]}"]
ports = "5000-5999"
"""


@contextmanager
def hub(lab: Lab, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    config = folder / "hub.toml"
    config.write_text(HUB)
    process = lab.outside.popen(
        sys.executable, "-m", "mcastsocks", "relay", "-c", str(config), stdout=subprocess.DEVNULL
    )

    def listens() -> bool:
        with lab.relay.open_socket(4, socket.SOCK_STREAM) as sock:
            return sock.connect_ex((REMOTE[4], PORT)) == 0

    try:
        wait_for("the hub", listens)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture
def relay(lab: Lab, tmp_path: Path, start_relay: Callable[..., RelayProcess]) -> Iterator[RelayProcess]:
    with hub(lab, tmp_path):
        yield start_relay(rules=RULES, outside=UPSTREAM)


def request(lab: Lab, command: int, destination: tuple[str, int]) -> tuple[socket.socket, object]:
    """The connection and the reply to a request of RFC 1928."""
    client = RawClient(lab.client, enter=False)
    client.udp.close()
    client.tcp.sendall(bytes(layers.Request(CMD=command, DST=destination)))
    return client.tcp, layers.Reply(client.read(10))


def listener(lab: Lab, address: str) -> socket.socket:
    sock = lab.outside.open_socket(4, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, 5000))
    sock.listen()
    return sock


def test_connect_goes_through_the_upstream_of_its_rule(lab: Lab, relay: RelayProcess) -> None:
    with listener(lab, STRANGER[4]) as server:
        tcp, reply = request(lab, 1, (STRANGER[4], 5000))
        assert reply.REP == 0  # type: ignore[attr-defined]
        there, peer = server.accept()
        assert peer[0] == REMOTE[4], "the server sees the hub"
        assert reply.BND.pair == peer[:2]  # type: ignore[attr-defined]
        with tcp, there:
            there.settimeout(10)
            tcp.sendall(b"through two relays")
            assert there.recv(100) == b"through two relays"
            there.sendall(b"and back")
            assert tcp.recv(100) == b"and back"
    assert relay.wait_for_record("connect-start")["upstream"] == "hub"
    relay.wait_for_record("connect-end", to_remote_octets=18, to_client_octets=8)


def test_what_the_upstream_refuses_is_refused_with_its_reply(lab: Lab, relay: RelayProcess) -> None:
    for port, code in ((6000, 0x02), (5001, 0x05)):
        tcp, reply = request(lab, 1, (STRANGER[4], port))
        tcp.close()
        assert reply.REP == code  # type: ignore[attr-defined]
    refused = relay.wait_for_record("refused", command="connect")
    assert refused["why"].startswith(f"upstream socks5://{REMOTE[4]}:{PORT}: ")


def datagram(destination: tuple[str, int], data: bytes) -> bytes:
    return bytes(3) + b"\x01" + socket.inet_aton(destination[0]) + destination[1].to_bytes(2) + data


def test_datagrams_go_through_it_and_come_back_with_their_source(lab: Lab, relay: RelayProcess) -> None:
    tcp, reply = request(lab, 3, ("0.0.0.0", 0))
    door = reply.BND.pair  # type: ignore[attr-defined]
    assert door[0] == INSIDE[4]
    with tcp, lab.client.udp(CLIENT[4]) as udp, lab.outside.udp(STRANGER[4], 5000) as server:
        for data in (b"one", b"", bytes(1400)):
            udp.sendto(datagram((STRANGER[4], 5000), data), door)
            octets, seen = server.recvfrom(2000)
            assert (octets, seen[0]) == (data, REMOTE[4])
            server.sendto(data + b"!", seen)
            assert udp.recvfrom(2000) == (datagram((STRANGER[4], 5000), data + b"!"), door)
        udp.sendto(datagram((STRANGER[4], 6000), b"refused there"), door)
        with lab.outside.udp(REMOTE[4], 5000) as direct:
            udp.sendto(datagram((REMOTE[4], 5000), b"directly"), door)
            octets, seen = direct.recvfrom(100)
            assert (octets, seen[0]) == (b"directly", "10.77.2.1")
            direct.sendto(b"hello", seen)
            assert udp.recvfrom(100)[0] == datagram((REMOTE[4], 5000), b"hello")


def test_an_upstream_that_comes_back_is_used_again(
    lab: Lab, tmp_path: Path, start_relay: Callable[..., RelayProcess]
) -> None:
    relay = start_relay(rules=RULES, outside=UPSTREAM)
    tcp, reply = request(lab, 3, ("0.0.0.0", 0))
    door = reply.BND.pair  # type: ignore[attr-defined]
    with tcp, lab.client.udp(CLIENT[4]) as udp, lab.outside.udp(STRANGER[4], 5000) as server:
        udp.sendto(datagram((STRANGER[4], 5000), b"nobody there"), door)
        wait_for("the drop", lambda: relay.drops().get("unreachable") == 1)
        for _ in range(2):
            with hub(lab, tmp_path):
                server.settimeout(0.2)

                def arrives() -> bool:
                    udp.sendto(datagram((STRANGER[4], 5001), b"wakes nobody"), door)
                    udp.sendto(datagram((STRANGER[4], 5000), b"now"), door)
                    try:
                        return server.recv(100) == b"now"
                    except TimeoutError:
                        return False

                wait_for("a datagram through the hub", arrives)


def test_the_password_of_an_upstream_is_in_a_file_of_its_own(
    lab: Lab, tmp_path: Path, start_relay: Callable[..., RelayProcess]
) -> None:
    """The upstream here is the relay's own kind, which bob may not use for this."""
    secret = tmp_path / "hub.secret"
    secret.write_text(PASSWORDS["alice"])
    secret.chmod(0o600)
    upstream = UPSTREAM.replace("socks5://", "socks5://alice@") + 'password_file = "hub.secret"\n'
    with hub(lab, tmp_path):  # it asks for no password, and takes the greeting that offers one
        start_relay(rules=RULES, outside=upstream)
        with listener(lab, STRANGER[4]) as server:
            tcp, reply = request(lab, 1, (STRANGER[4], 5000))
            assert reply.REP == 0  # type: ignore[attr-defined]
            server.accept()[0].close()
            tcp.close()
