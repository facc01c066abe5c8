"""A relay that sends what a rule names on through another one.

client ── "in" ── relay ── "out" ── another relay, in the outside host: its clients are at 10.77.2.1, and it reaches
                                    the server at 10.77.2.3 in the same host
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP

from mcastsocks.client import Association, RelayUrl
from mcastsocks.planes.counters import DropReason
from mcastsocks.server.resolver import Resolver
from mcastsocks.server.sections import Limits
from mcastsocks.server.upstream import Upstream
from mcastsocks.server.upstream_channel import UpstreamChannel
from tests import scapy_layers as layers
from tests.netns import test_encapsulated as encapsulated
from tests.netns.client import BOTH, MM, MULTICAST, RECEIVE, SEND, UNICAST, RawClient, Refused
from tests.netns.lab import CLIENT, GROUP, INSIDE, PORT, REMOTE, SECOND, STRANGER, Capture, Lab, wait_for
from tests.netns.relay import PASSWORDS, RelayProcess
from tests.netns.test_groups import both_versions, outside_sender, udp_to
from tests.netns.test_sources import EXTENDED, REPORT_SOURCE, filtered

UPSTREAM = f"""
[[upstream]]
name = "hub"
relay = "socks5://{REMOTE[4]}:{PORT}"
"""
RULES = f"""
[[rules]]
name = "the server is reached through the hub"
allow = true
to = ["{STRANGER[4]}", "{STRANGER[6]}"]
upstream = "hub"
[[rules]]
name = "and so are groups"
allow = true
do = ["receive-group", "send-group"]
groups = ["239.77.0.0/16", "232.77.0.0/16", "ff15::/16"]
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
do = ["connect", "bind", "udp"]
to = ["{STRANGER[4]}", "{STRANGER[6]}"]
ports = "5000-5999"
[[rules]]
name = "groups that are watched"
allow = true
do = ["receive-group"]
groups = ["239.77.0.0/16", "232.77.0.0/16", "ff15::/16"]
ports = "5000-5999"
[[rules]]
name = "groups that are talked to"
allow = true
do = ["send-group"]
groups = ["239.77.1.0/24"]
max_ttl = 8
"""
ANY_PORT = f"""
[[rules]]
name = "any port of it"
allow = true
do = ["udp"]
to = ["{STRANGER[4]}"]
"""
WITHOUT_EXTENSIONS = """
from mcastsocks.cli.main import run
from mcastsocks.server import features
features.EXTENSIONS = ()
run()
"""


@contextmanager
def hub(
    lab: Lab, folder: Path, more_rules: str = "", program: tuple[str, str] = ("-m", "mcastsocks")
) -> Iterator[subprocess.Popen[bytes]]:
    config = folder / "hub.toml"
    config.write_text(HUB + more_rules)
    process = lab.outside.popen(sys.executable, *program, "relay", "-c", str(config), stdout=subprocess.DEVNULL)

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
    assert refused["why"].startswith("upstream hub: ")


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


# The enhanced mode


def reason(reply: Any) -> str:
    """REASON of a reply that has it alone."""
    [option] = reply.OPTIONS
    assert option.TYPE == 5
    return bytes(option.VALUE).decode()


def group_at(lab: Lab, port: int) -> tuple[str, int]:
    """A group that nobody has joined."""
    assert GROUP[4] not in lab.outside.memberships(4, "out")
    return GROUP[4], port


def is_joined(lab: Lab, version: int = 4) -> bool:
    """Outside; and never by the relay."""
    assert GROUP[version] not in lab.relay.memberships(version, "out")
    return GROUP[version] in lab.outside.memberships(version, "out")


def test_an_association_goes_through_the_upstream_of_its_rule(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(STRANGER[4], 5000) as server:
        reply = client.bind(BOTH | UNICAST, (STRANGER[4], 5000))
        assert reply.LOCAL.pair == client.relay
        for data in (b"question", b"", bytes(1400), bytes(60_000)):
            client.send(reply.AID, data)
            got, seen = server.recvfrom(70_000)
            assert (got, seen) == (data, reply.REMOTE.pair), "the server sees the hub"
            server.sendto(got, seen)
            assert client.receive() == (reply.AID, data)
        assert seen[0] == REMOTE[4]
        aid = client.associate((REMOTE[4], 5001))
        with lab.outside.udp(REMOTE[4], 5001) as direct:
            client.send(aid, b"directly")
            assert direct.recvfrom(100)[1][0] == "10.77.2.1"
    assert relay.wait_for_record("association-start", what="receive+send-unicast", upstream="hub")["outside"] == (
        f"{REMOTE[4]}:{reply.REMOTE.pair[1]}"
    )
    moved = {"to_remote_datagrams": 4, "to_remote_octets": 61_408, "to_client_datagrams": 4}
    relay.wait_for_record("association-end", **moved, reason="closed by client")


def test_a_remote_of_a_family_that_the_upstream_speaks(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(STRANGER[6], 5000) as server:
        reply = client.bind(BOTH | UNICAST, (STRANGER[6], 5000))
        client.send(reply.AID, b"four to six")
        data, seen = server.recvfrom(100)
        assert (data, seen[:2]) == (b"four to six", reply.REMOTE.pair)
        server.sendto(b"and back", seen)
        assert client.receive() == (reply.AID, b"and back")


def test_any_port_of_a_host_answers_and_is_reported(
    lab: Lab, tmp_path: Path, start_relay: Callable[..., RelayProcess]
) -> None:
    with hub(lab, tmp_path, ANY_PORT), lab.outside.udp(STRANGER[4], 5000) as server:
        start_relay(rules=RULES, outside=UPSTREAM)
        client = RawClient(lab.client)
        reply = client.bind(RECEIVE | UNICAST | REPORT_SOURCE, (STRANGER[4], 0))
        server.sendto(b"hello", reply.REMOTE.pair)
        octets, _ = client.udp.recvfrom(100)
        assert octets == bytes(layers.datagram(int(reply.AID), b"hello", source=server.getsockname()))
        client.close()


@both_versions
def test_a_group_is_joined_by_the_upstream_alone_and_left_with_the_channel(
    lab: Lab, relay: RelayProcess, version: int
) -> None:
    group = (GROUP[version], 5300)
    with RawClient(lab.client) as client, outside_sender(lab, version, STRANGER[version]) as sender:
        assert not is_joined(lab, version)
        aid = client.join(group)
        assert is_joined(lab, version)
        for data in (b"news", b"", bytes(1400)):
            sender.sendto(data, group)
            assert client.receive() == (aid, data)
    wait_for("the hub to leave", lambda: not is_joined(lab, version))
    wait_for("the hub only to listen", lambda: lab.outside.sockets("tcp", REMOTE[4], PORT) == 1)


def test_senders_are_reported_and_filtered_by_the_upstream(lab: Lab, relay: RelayProcess) -> None:
    group = group_at(lab, 5301)
    with (
        RawClient(lab.client) as client,
        outside_sender(lab, 4, STRANGER[4]) as sender,
        outside_sender(lab, 4) as other,
    ):
        reply = filtered(client, group, STRANGER[4], flags=REPORT_SOURCE)
        assert reply.REPLY == 0
        other.sendto(b"unwanted", group)
        sender.sendto(b"news", group)
        wanted = bytes(layers.datagram(int(reply.AID), b"news", source=sender.getsockname()))
        assert client.udp.recvfrom(100)[0] == wanted
        assert filtered(client, group, REMOTE[4], aid=int(reply.AID)).REPLY == 0
        sender.sendto(b"unwanted now", group)
        other.sendto(b"wanted now", group)
        assert client.receive() == (reply.AID, b"wanted now")


def test_what_is_sent_to_a_group_has_the_ttl_that_the_upstream_allows(lab: Lab, relay: RelayProcess) -> None:
    group = group_at(lab, 5302)

    def seen(ttl: int, data: bytes) -> None:
        [packet] = outside.wait_for("the datagram", lambda packet: udp_to(*group)(packet) and data in bytes(packet))
        assert (packet[IP].src, packet[IP].ttl) == (REMOTE[4], ttl)

    with Capture(lab.outside, "out") as outside, RawClient(lab.client) as client:
        with pytest.raises(Refused, match="X'15'"):
            client.send_to_group(group, 9)
        aid = client.send_to_group(group, 3)
        client.send(aid, b"three hops")
        seen(3, b"three hops")
        assert client.request(7, aid=aid, ttl=8).REPLY == 0
        refused = client.request(7, EXTENDED, aid=aid, ttl=9)
        assert (refused.REPLY, refused.AID) == (0x15, aid)
        assert "upstream hub: " in reason(refused)
        client.send(aid, b"eight hops")
        seen(8, b"eight hops")
        assert not is_joined(lab)
    relay.wait_for_record("association-change", ttl=8)


def test_clients_of_one_group_hear_each_other_once(lab: Lab, relay: RelayProcess) -> None:
    group = group_at(lab, 5303)
    with RawClient(lab.client) as client, RawClient(lab.client, "bob", address=SECOND[4]) as other:
        first = client.bind(BOTH | MULTICAST, group, ttl=1)
        assert first.REMOTE.pair == group
        second = other.bind(BOTH | MULTICAST, group, ttl=1)
        client.send(first.AID, b"from the first")
        assert other.receive() == (second.AID, b"from the first")
        other.send(second.AID, b"from the second")
        assert client.receive() == (first.AID, b"from the second")
        assert client.receives_nothing()


def test_directions_are_added_and_given_up_there_too(lab: Lab, relay: RelayProcess) -> None:
    group = group_at(lab, 5304)
    with RawClient(lab.client) as client, outside_sender(lab, 4, STRANGER[4]) as sender:
        aid = client.send_to_group(group)
        assert not is_joined(lab)
        assert client.join(group, aid=aid) == aid
        assert is_joined(lab)
        sender.sendto(b"both", group)
        assert client.receive() == (aid, b"both")
        assert client.release(aid, RECEIVE) == 0
        wait_for("the hub to leave", lambda: not is_joined(lab))
        assert client.join(group, aid=aid) == aid
        assert client.release(aid, SEND) == 0
        sender.sendto(b"still", group)
        assert client.receive() == (aid, b"still")
        assert client.release(aid) == 0
        assert client.release(aid) == 0x10
        wait_for("the hub to leave", lambda: not is_joined(lab))


def test_what_the_upstream_refuses_is_told_with_its_code_and_reason(lab: Lab, relay: RelayProcess) -> None:
    group_at(lab, 5305)
    cases = [
        (RECEIVE | MULTICAST, (GROUP[4], 6000), 0x11, 0),
        (SEND | MULTICAST, ("239.77.2.1", 5305), 0x12, 0),
        (BOTH | MULTICAST, ("239.77.2.1", 5305), 0x12, RECEIVE | MULTICAST),
        (RECEIVE | SEND | UNICAST, (STRANGER[4], 7), 0x02, 0),
    ]
    with RawClient(lab.client) as client:
        for flags, remote, code, possible in cases:
            reply = client.request(5, flags | EXTENDED, ttl=1, LOCAL=client.local, REMOTE=remote)
            assert (reply.REPLY, reply.FLAGS) == (code, possible | EXTENDED), remote
            assert reply.AID == 0
            assert "upstream hub: " in reason(reply)
        assert "239.77.2.1" not in lab.outside.memberships(4, "out"), "what was had is given back"
        aid = client.join(("239.77.2.1", 5305))
        with pytest.raises(Refused, match="X'12'"):
            client.bind(SEND | MULTICAST, ("239.77.2.1", 5305), aid=aid, ttl=1)
        with outside_sender(lab, 4, STRANGER[4]) as sender:
            sender.sendto(b"as before", ("239.77.2.1", 5305))
            assert client.receive() == (aid, b"as before")
    session = relay.wait_for_record("session-end")
    assert (session["associations"], session["refusals"]) == (1, 5)


def test_clients_that_have_their_datagrams_encapsulated(lab: Lab, relay: RelayProcess) -> None:
    group = group_at(lab, 5306)
    with RawClient(lab.client) as client, outside_sender(lab, 4, STRANGER[4]) as sender:
        aid = encapsulated.encapsulated(client, BOTH | MULTICAST, group, ttl=1)
        sender.sendto(b"news", group)
        assert encapsulated.receive(client) == (aid, b"news")
        with Capture(lab.outside, "out") as outside:
            encapsulated.send(client, aid, b"answer")
            outside.wait_for("the answer", lambda packet: udp_to(*group)(packet) and b"answer" in bytes(packet))
        encapsulated.send(client, aid, bytes(65_507))  # more than goes behind a header between the relays
        wait_for("the drop", lambda: relay.drops().get("too-large") == 1)


def test_requests_that_name_one_association_are_executed_in_their_order(lab: Lab, relay: RelayProcess) -> None:
    group = group_at(lab, 5307)
    with RawClient(lab.client) as client:
        aid = client.send_to_group(group)
        wanted = [
            (5, RECEIVE | MULTICAST, 0, 0),
            (7, 0, 5, 0),
            (6, SEND, 0, 0),
            (7, 0, 6, 0x13),
            (5, SEND | MULTICAST, 9, 0x15),
            (6, BOTH, 0, 0),
            (6, BOTH, 0, 0x10),
        ]
        for tid, (command, flags, ttl, _) in enumerate(wanted, 1000):
            request = layers.ControlRequest(UDPCMD=command, FLAGS=flags, RSVD=ttl, TID=tid, AID=aid)
            client.tcp.sendall(bytes(request))
        replies = [client.read_reply() for _ in wanted]
        assert [(reply.TID, reply.REPLY) for reply in replies] == [
            (tid, code) for tid, (*_, code) in enumerate(wanted, 1000)
        ]
    assert not is_joined(lab)


def test_many_associations_share_one_channel_to_the_upstream(lab: Lab, relay: RelayProcess) -> None:
    count = 300
    with RawClient(lab.client) as client, lab.outside.udp(STRANGER[4], 5000) as server:
        requests = [
            layers.ControlRequest(
                UDPCMD=5, FLAGS=BOTH | UNICAST, TID=tid, LOCAL=client.local, REMOTE=(STRANGER[4], 5000)
            )
            for tid in range(count)
        ]
        client.tcp.sendall(b"".join(map(bytes, requests)))
        replies = [client.read_reply() for _ in requests]
        assert {reply.REPLY for reply in replies} == {0}
        assert lab.outside.sockets("tcp", REMOTE[4], PORT) == 2, "one listens, one is the channel"
        for reply in replies:
            client.send(reply.AID, b"%d" % reply.AID)
            assert server.recv(100) == b"%d" % reply.AID


def test_associations_end_with_their_upstream(
    lab: Lab, tmp_path: Path, start_relay: Callable[..., RelayProcess]
) -> None:
    relay = start_relay(rules=RULES, outside=UPSTREAM)
    group = group_at(lab, 5308)
    with RawClient(lab.client) as client, outside_sender(lab, 4, STRANGER[4]) as sender:
        with pytest.raises(Refused, match="X'01'"):
            client.join(group)
        for _ in range(2):
            with hub(lab, tmp_path):
                aid = client.join(group)
                sender.sendto(b"news", group)
                assert client.receive() == (aid, b"news")
            ended = relay.wait_for_record("association-end", aid=f"{aid:08x}")
            assert ended["reason"].startswith("upstream lost: ")
            assert ended["to_client_datagrams"] == 1
            assert client.request(7, aid=aid, ttl=1).REPLY == 0x10
            assert client.release(aid) == 0x10
        before = relay.drops().get("unknown-aid", 0)
        client.send(aid, b"too late")
        wait_for("the drop", lambda: relay.drops().get("unknown-aid") == before + 1)


def test_nothing_stays_of_what_a_client_did_not_wait_for(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client:
        for port in range(5400, 5450):
            remote = (GROUP[4], port)
            request = layers.ControlRequest(
                UDPCMD=5, FLAGS=RECEIVE | MULTICAST, TID=port, LOCAL=client.local, REMOTE=remote
            )
            client.tcp.sendall(bytes(request))
    relay.wait_for_record("session-end")
    wait_for("the hub to leave", lambda: not is_joined(lab))
    wait_for("the end of the channel", lambda: lab.outside.sockets("tcp", REMOTE[4], PORT) == 1)
    assert relay.counters()["associations"] == 0
    assert relay.stop() == 0
    assert not [line for line in relay.errors if "Traceback" in line or "never" in line]


def test_there_is_no_mm_mode_through_an_upstream(
    lab: Lab, tmp_path: Path, start_relay: Callable[..., RelayProcess]
) -> None:
    rule = '[[rules]]\nname = "{0}"\nallow = true\ngroups = ["{1}"]\nmodes = {2}\nupstream = "hub"\n'
    either, only = rule.format("either", GROUP[4], '["mm", "mu"]'), rule.format("only", "239.77.9.9", '["mm"]')
    with hub(lab, tmp_path):
        start_relay(rules=either + only, outside=UPSTREAM, inside='interface = "in"')
        with RawClient(lab.client) as client:
            reply = client.bind(RECEIVE | MULTICAST | MM, (GROUP[4], 5309))
            assert reply.LOCAL.pair == client.relay, "in MU-mode, whatever was preferred"
            assert not reply.FLAGS & MM
            with pytest.raises(Refused, match="X'01'"):
                client.join(("239.77.9.9", 5309))


def test_an_upstream_that_lists_no_extensions_of_ours(
    lab: Lab, tmp_path: Path, start_relay: Callable[..., RelayProcess]
) -> None:
    group = group_at(lab, 5310)
    with hub(lab, tmp_path, program=("-c", WITHOUT_EXTENSIONS)), lab.outside.udp(STRANGER[4], 5000) as server:
        start_relay(rules=RULES, outside=UPSTREAM)
        with RawClient(lab.client) as client, outside_sender(lab, 4, STRANGER[4]) as sender:
            reply = client.bind(BOTH | UNICAST | REPORT_SOURCE, (STRANGER[4], 5000))
            server.sendto(b"hello", reply.REMOTE.pair)
            octets, _ = client.udp.recvfrom(100)
            assert octets == bytes(layers.datagram(int(reply.AID), b"hello", source=server.getsockname()))
            with pytest.raises(Refused) as refused:
                client.bind(RECEIVE | MULTICAST | REPORT_SOURCE, group)
            assert (refused.value.code, refused.value.flags) == (0x01, RECEIVE | MULTICAST)
            unfiltered = filtered(client, group, STRANGER[4])
            assert (unfiltered.REPLY, unfiltered.FLAGS) == (0x01, EXTENDED)
            assert reason(unfiltered).endswith("filters no sources")
            aid = client.join(group)
            sender.sendto(b"news", group)
            assert client.receive() == (aid, b"news")


def test_requests_that_wait_for_an_upstream_are_bounded(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(rules=RULES, outside=UPSTREAM)
    most, more = 1024, 6
    with lab.outside.open_socket(4, socket.SOCK_STREAM) as silent, RawClient(lab.client) as client:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        silent.bind((REMOTE[4], PORT))
        silent.listen()
        flags, remote = BOTH | UNICAST | EXTENDED, (STRANGER[4], 5000)
        requests = [
            layers.ControlRequest(UDPCMD=5, FLAGS=flags, TID=tid, LOCAL=client.local, REMOTE=remote)
            for tid in range(most + more)
        ]
        client.tcp.sendall(b"".join(map(bytes, requests)))
        refused = [client.read_reply() for _ in range(more)]
        assert [reply.TID for reply in refused] == list(range(most, most + more))
        assert {reply.REPLY for reply in refused} == {0x01}
        assert "too many requests" in reason(refused[0])
        assert relay.counters()["associations"] == most
        with RawClient(lab.client, "bob") as other, lab.outside.udp(REMOTE[4], 5000) as direct:
            other.send(other.associate((REMOTE[4], 5000)), b"not held up")
            assert direct.recv(100) == b"not held up"
    relay.wait_for_record("session-end", user="alice", associations=0)
    wait_for("nothing to be left", lambda: relay.counters()["associations"] == 0)


def test_datagrams_that_wait_for_an_upstream_are_bounded() -> None:
    class Stuck(Association):
        """As if the path were full for ever."""

        max_data_octets = 65_499

        def __init__(self) -> None:
            pass

        async def send(self, data: bytes) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        channel, stuck = UpstreamChannel(Upstream("hub", RelayUrl("192.0.2.1"), Resolver(1, 1, 1), Limits())), Stuck()
        assert channel.send(stuck, bytes(65_500)) is DropReason.TOO_LARGE
        taken = 0
        while channel.send(stuck, b"") is None:
            taken += 1
        assert channel.send(stuck, b"") is DropReason.BUFFER_FULL
        assert 1_000 < taken < 100_000
        await channel.close()

    asyncio.run(main())


def test_a_relay_that_stops_leaves_nothing_at_the_upstream(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client:
        client.join(group_at(lab, 5311))
        assert is_joined(lab)
        assert relay.stop() == 0
        wait_for("the hub to leave", lambda: not is_joined(lab))
    relay.wait_for_record("association-end", reason="shutdown")
    relay.wait_for_record("session-end", reason="shutdown")
    assert not [line for line in relay.errors if "Traceback" in line or "never" in line]
