"""Nothing is left behind, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from pyroute2 import IPRoute

from tests.netns.client import BOTH, MULTICAST, RECEIVE, SEND, RawClient
from tests.netns.lab import GROUP, REMOTE, SECOND, Lab, wait_for
from tests.netns.relay import RelayProcess

DEAD_CLIENT_S = 5


def held(lab: Lab, version: int = 4) -> dict[str, int]:
    return lab.relay.memberships(version, "out")


@pytest.mark.parametrize("version", [4, 6])
def test_closing_the_channel_leaves_every_group_at_once(lab: Lab, relay: RelayProcess, version: int) -> None:
    before, sockets = held(lab, version), relay.counters()["udp_sockets"]
    client = RawClient(lab.client, version=version)
    for port in range(5400, 5410):
        client.bind(BOTH | MULTICAST, (GROUP[version], port), ttl=1)
    assert held(lab, version)[GROUP[version]] == 10
    client.close()
    wait_for("the memberships to go", lambda: held(lab, version) == before, timeout_s=1)
    record = relay.wait_for_record("session-end", reason="closed by client")
    assert record["associations"] == 10
    counters = relay.counters()
    assert counters["associations"] == 0
    assert counters["udp_sockets"] == sockets


def test_a_killed_client_is_forgotten_at_once(lab: Lab, relay: RelayProcess) -> None:
    before = held(lab)
    client = lab.client.popen(
        *(sys.executable, "-m", "mcastsocks", "join", f"{GROUP[4]}:5420"),
        *("--relay", "socks5://alice:secret@10.77.1.1"),
        stderr=subprocess.PIPE,
    )
    assert client.stderr is not None
    assert client.stderr.readline().startswith(b"joined")
    assert held(lab)[GROUP[4]] == 1
    client.send_signal(signal.SIGKILL)
    wait_for("the membership to go", lambda: held(lab) == before, timeout_s=2)
    client.wait()
    client.stderr.close()
    relay.wait_for_record("association-end", remote=f"{GROUP[4]}:5420")


def test_a_client_whose_link_is_cut_is_forgotten_in_time(lab: Lab, relay: RelayProcess) -> None:
    """One is idle, the other is owed an acknowledgement when the link goes: keepalive finds the first, the
    user timeout the second."""
    before = held(lab)
    with RawClient(lab.client) as idle, RawClient(lab.client, "bob", address=SECOND[4]) as owed:
        idle.join((GROUP[4], 5430))
        owed.join((GROUP[4], 5431))
        assert held(lab)[GROUP[4]] == 2
        with lab.client.entered(), IPRoute() as route:
            index = route.link_lookup(ifname="in")[0]
            route.link("set", index=index, state="down")
        try:
            cut = time.monotonic()
            wait_for("the memberships to go", lambda: held(lab) == before, timeout_s=DEAD_CLIENT_S + 3)
            assert time.monotonic() - cut > 1, "they did not go because of something else"
            relay.wait_for_record("session-end", user="alice", reason="client dead")
            relay.wait_for_record("session-end", user="bob", reason="client dead")
        finally:
            lab.restore_client_link()


def test_sigterm_releases_everything_and_says_so(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    before = held(lab)
    relay = start_relay()
    with RawClient(lab.client) as client:
        client.join((GROUP[4], 5440))
        assert relay.stop() == 0
        assert held(lab) == before
        assert client.is_closed()
    relay.wait_for_record("association-end", remote=f"{GROUP[4]}:5440", reason="shutdown")
    relay.wait_for_record("relay-end")


def test_release_of_one_direction_keeps_the_other(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client:
        group = (GROUP[4], 5450)
        aid = int(client.bind(BOTH | MULTICAST, group, ttl=1).AID)
        assert client.release(aid, RECEIVE) == 0
        assert GROUP[4] not in held(lab)
        assert client.release(aid, RECEIVE) == 0x13, "no longer held"
        assert client.request(7, aid=aid, ttl=3).REPLY == 0
        assert client.release(aid, BOTH) == 0, "both bits with one held"
        assert client.release(aid, SEND) == 0x10
    relay.wait_for_record("association-end", reason="released")


def test_records_tell_who_did_what(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        host, port = remote.getsockname()
        aid = client.associate((host, port))
        client.send(aid, b"twelve octets"[:12])
        data, source = remote.recvfrom(100)
        remote.sendto(b"abc", source)
        client.receive()
    start = relay.wait_for_record("association-start", remote=f"{host}:{port}")
    assert (start["user"], start["client"], start["what"]) == ("alice", client.address, "receive+send-unicast")
    assert start["rule"] == "desk may ask the outside"
    end = relay.wait_for_record("association-end", remote=f"{host}:{port}")
    assert len(data) == end["to_remote_octets"] == 12
    assert (end["to_remote_datagrams"], end["to_client_datagrams"], end["to_client_octets"]) == (1, 1, 3)
    assert end["reason"] == "closed by client"
    assert end["duration_s"] >= 0
