"""Full means a reply, never a crash."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.netns.client import BOTH, RECEIVE, UNICAST, RawClient, Refused
from tests.netns.lab import GROUP, INSIDE, REMOTE, Lab, wait_for
from tests.netns.relay import RULES, RelayProcess


@pytest.mark.parametrize(
    ("limits", "second"),
    [
        ("associations_per_user = 1", (GROUP[4], 5301)),
        ("associations = 1", (GROUP[4], 5301)),
        ("groups_per_user = 1", (GROUP[4], 5301)),
        ("groups = 1", (GROUP[4], 5301)),
    ],
)
def test_full_means_a_reply(
    lab: Lab, start_relay: Callable[..., RelayProcess], limits: str, second: tuple[str, int]
) -> None:
    relay = start_relay(limits=limits)
    with RawClient(lab.client) as client:
        aid = client.join((GROUP[4], 5300))
        with pytest.raises(Refused) as refused:
            client.join(second)
        assert refused.value.code == 0x01
        assert client.release(aid, RECEIVE) == 0
        assert client.join(second), "there is room again"
    assert "limit" in relay.wait_for_record("refused")["why"] or "full" in relay.wait_for_record("refused")["why"]


def test_no_more_udp_sockets_means_a_reply(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    start_relay(limits="udp_sockets = 4")  # two of them face clients
    with RawClient(lab.client) as client:
        aids = [client.join((GROUP[4], port)) for port in (5300, 5301)]
        with pytest.raises(Refused) as refused:
            client.join((GROUP[4], 5302))
        assert refused.value.code == 0x01
        assert client.release(aids[0], RECEIVE) == 0
        assert client.associate((REMOTE[4], 5000))


def test_connections_beyond_the_limit_are_told_so(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits="connections = 1")
    with RawClient(lab.client):
        with pytest.raises(Refused) as refused:
            RawClient(lab.client)
        assert refused.value.code == 0xFF
    wait_for("the first to be gone", lambda: relay.counters()["connections"] == 0)
    RawClient(lab.client).close()


def test_a_client_that_says_nothing_is_given_up(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits="handshake_timeout_s = 0.3")
    with lab.client.open_socket(4, 1) as silent:
        silent.connect((INSIDE[4], 1080))
        assert silent.recv(1) == b""
    relay.wait_for_record("refused", why="handshake timeout")


def test_descriptors_are_refused_before_they_run_out(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    """Each LOCAL port of its own costs a socket; the relay stops short of EMFILE and serves on."""
    relay = start_relay(limits="udp_sockets = 300\nconnections = 16", rules=RULES)
    with RawClient(lab.client) as client:
        replies = [
            client.request(5, BOTH | UNICAST, LOCAL=(client.address, port), REMOTE=(REMOTE[4], 5000)).REPLY
            for port in range(20_000, 20_320)
        ]
        assert set(replies[:290]) == {0}
        assert set(replies[300:]) == {1}
    wait_for("everything to be given back", lambda: relay.counters()["udp_sockets"] == 2)
