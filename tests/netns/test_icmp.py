"""ICMP errors, full queues and an interface that goes away: each counted where it belongs, nobody else disturbed."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

from tests.netns.client import BOTH, SEND, RawClient
from tests.netns.lab import BORDER, REMOTE, SECOND, STRANGER, Host, Lab, wait_for
from tests.netns.relay import RelayProcess

both_versions = pytest.mark.parametrize("version", [4, 6])
NOBODY = {4: "10.77.2.99", 6: "fd77:2::99"}
_REFUSING = 5999
_EXTENDED = 0x8000
_MORE_THAN_FITS = 20_000


@pytest.fixture(params=["portable", "batch"])
def relay(request: pytest.FixtureRequest, start_relay: Callable[..., RelayProcess]) -> RelayProcess:
    """One that moves datagrams so."""
    return start_relay(limits=f'dead_client_s = 5\n[plane]\nkind = "{request.param}"')


@contextmanager
def impatient(host: Host) -> Iterator[None]:
    """Neighbours that do not answer are given up soon."""
    paths = [f"/proc/sys/net/{protocol}/neigh/out/retrans_time_ms" for protocol in ("ipv4", "ipv6")]
    before = [host.call(Path(path).read_text) for path in paths]
    for path in paths:
        host.write(path, "50")
    try:
        yield
    finally:
        for path, value in zip(paths, before, strict=True):
            host.write(path, value)


@contextmanager
def standing_still(relay: RelayProcess) -> Iterator[None]:
    """What is sent meanwhile, it finds at once."""
    relay.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        relay.process.send_signal(signal.SIGCONT)


def end_of(client: RawClient, relay: RelayProcess, aid: int) -> dict[str, Any]:
    """The record of an association that is released now."""
    assert client.release(aid) == 0
    return relay.wait_for_record("association-end", aid=f"{aid:08x}")


def received(sock: socket.socket, count: int) -> list[bytes]:
    return [sock.recv(65_535) for _ in range(count)]


@both_versions
def test_a_port_that_refuses_is_told_and_costs_the_others_nothing(lab: Lab, relay: RelayProcess, version: int) -> None:
    """Eight destinations on one outside socket, of which one refuses."""
    remotes = [lab.outside.udp((REMOTE, STRANGER)[number % 2][version]) for number in range(7)]
    with RawClient(lab.client, version=version) as client:
        refused = client.associate((REMOTE[version], _REFUSING))
        aids = [client.associate(remote.getsockname()[:2]) for remote in remotes]
        for number in range(40):
            for aid in aids:
                client.send(refused, b"anybody there?")
                client.send(aid, number.to_bytes(2))
        for remote in remotes:
            assert received(remote, 40) == [number.to_bytes(2) for number in range(40)]
            remote.close()
        wait_for("the error", lambda: relay.counters().get("icmp.port-unreachable"))
        assert not relay.drops()
        assert {end_of(client, relay, aid)["errors"] for aid in aids} == {0}
        ended = end_of(client, relay, refused)
    assert ended["last_error"] == "port-unreachable"
    assert ended["errors"] == relay.counters()["icmp.port-unreachable"]


@both_versions
def test_a_host_that_is_not_there_is_told(lab: Lab, relay: RelayProcess, version: int) -> None:
    with impatient(lab.relay), RawClient(lab.client, version=version) as client:
        with lab.outside.udp(REMOTE[version]) as remote:
            missing, aid = client.associate((NOBODY[version], 5000)), client.associate(remote.getsockname()[:2])
            client.send(missing, b"anybody there?")
            wait_for("the error", lambda: relay.counters().get("icmp.host-unreachable"))
            client.send(aid, b"you are")
            assert remote.recv(100) == b"you are"
        assert end_of(client, relay, aid)["errors"] == 0
        assert end_of(client, relay, missing)["last_error"] == "host-unreachable"
        assert not relay.drops()


@both_versions
def test_a_smaller_path_is_told_and_bursts_go_on(lab: Lab, relay: RelayProcess, version: int) -> None:
    """A router says that 1,300 octets are too many; larger datagrams go in IP fragments from then on, none is lost."""
    with RawClient(lab.client, version=version) as client, lab.outside.udp(REMOTE[version]) as remote:
        aid = client.associate(remote.getsockname()[:2])
        client.send(aid, bytes(1400))
        source = remote.recvfrom(2000)[1]
        say_too_big(lab.outside, version, source[1], remote.getsockname()[1])
        wait_for("the error", lambda: relay.counters().get("icmp.too-big") == 1)
        with standing_still(relay):
            for number in range(30):
                client.send(aid, number.to_bytes(2) + bytes(1398))
        assert [octets[:2] for octets in received(remote, 30)] == [number.to_bytes(2) for number in range(30)]
        assert not relay.drops()
        ended = end_of(client, relay, aid)
    assert (ended["errors"], ended["last_error"]) == (1, "too-big")


def say_too_big(outside: Host, version: int, sport: int, dport: int) -> None:
    """What a router would send that has the datagram from the border in hand."""
    quoted = UDP(sport=sport, dport=dport, len=1408)
    if version == 4:
        kind, octets = (
            socket.IPPROTO_ICMP,
            bytes(ICMP(type=3, code=4, nexthopmtu=1300) / IP(src=BORDER[4], dst=REMOTE[4], len=1428) / quoted),
        )
    else:
        about = IPv6(src=BORDER[6], dst=REMOTE[6], plen=1408) / quoted
        whole = IPv6(src=STRANGER[6], dst=BORDER[6]) / ICMPv6PacketTooBig(mtu=1300) / about
        kind, octets = socket.IPPROTO_ICMPV6, bytes(whole)[40:]
    with outside.entered():
        sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_RAW, kind)
    with sock:
        sock.sendto(octets, (BORDER[version], 0))


def test_an_interface_that_is_down_is_unreachable_and_back_when_it_is_up(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        aid, group = client.associate(remote.getsockname()), client.send_to_group(("239.77.1.2", 5400))
        lab.relay.run("ip", "link", "set", "out", "down")
        try:
            for each in (aid, group):
                for _ in range(20):
                    client.send(each, b"lost")
            wait_for("the drops", lambda: sum(relay.drops().values()) == 40)
            assert relay.drops() == {"unreachable": 40}
        finally:
            lab.relay.run("ip", "link", "set", "out", "up")
            lab.relay.run("ip", "address", "replace", f"{BORDER[6]}/64", "dev", "out")
        client.send(aid, b"there again")
        assert remote.recv(100) == b"there again"
        assert end_of(client, relay, aid)["dropped_datagrams"] == 20


def test_a_full_queue_of_the_interface_is_counted(lab: Lab, relay: RelayProcess) -> None:
    """The kernel tells (ENOBUFS) of what its own queue has no room for, and the other outside traffic goes on."""
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        aid = client.associate(remote.getsockname(), SEND)
        lab.relay.run(
            "tc", "qdisc", "replace", "dev", "out", "root", "tbf", "rate", "8kbit", "burst", "2kb", "limit", "2kb"
        )
        try:
            for number in range(100):
                client.send(aid, bytes(100 + number))
            wait_for("all to be dealt with", lambda: relay.counters()["received_inside"] == 100)
            counters = relay.counters()
        finally:
            lab.relay.run("tc", "qdisc", "del", "dev", "out", "root")
        assert relay.drops() == {"buffer-full": counters["drop.buffer-full"]}
        assert counters["sent_outside"] + counters["drop.buffer-full"] == 100
        assert counters["drop.buffer-full"] > 50
        client.send(aid, b"room again")
        while remote.recv(300) != b"room again":
            pass
        assert end_of(client, relay, aid)["dropped_datagrams"] == counters["drop.buffer-full"]


def test_a_receive_buffer_that_overruns_is_counted(lab: Lab, relay: RelayProcess) -> None:
    """The relay stands still while more comes than its buffer holds."""
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        aid = client.associate(remote.getsockname(), BOTH)
        assert relay.counters()["overruns"] == 0
        with standing_still(relay):
            for _ in range(_MORE_THAN_FITS):
                client.udp.sendto(aid.to_bytes(8) + b"x", client.relay)

        def accounted() -> int:
            counters = relay.counters()
            return counters["received_inside"] + counters["overruns"]

        wait_for("all to be read or counted", lambda: accounted() == _MORE_THAN_FITS)
        assert relay.counters()["overruns"] > 0


def test_a_later_refusal_tells_of_the_last_error(lab: Lab, relay: RelayProcess) -> None:
    """To a client that knows of options; nobody else's association is told of."""
    with RawClient(lab.client) as client, RawClient(lab.client, address=SECOND[4]) as other:
        aid = client.associate((REMOTE[4], _REFUSING))
        client.send(aid, b"anybody there?")
        wait_for("the error", lambda: relay.counters().get("icmp.port-unreachable"))
        refused = client.request(7, _EXTENDED, aid=aid, ttl=1)
        assert (refused.REPLY, refused.FLAGS) == (0x13, _EXTENDED)
        assert b"the last ICMP error was port-unreachable" in bytes(refused)
        assert b"ICMP" not in bytes(other.request(7, _EXTENDED, aid=aid, ttl=1))
        assert b"ICMP" not in bytes(client.request(7, aid=aid, ttl=1))
