"""Unicast associations across the border, and how a client's port is learnt."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import scapy_layers as layers
from tests.netns.client import RECEIVE, SEND, RawClient, Refused
from tests.netns.lab import BORDER, CLIENT, INSIDE, PORT, REMOTE, SECOND, STRANGER, THIRD, Lab, wait_for
from tests.netns.relay import RelayProcess

both_versions = pytest.mark.parametrize("version", [4, 6])


@both_versions
def test_a_datagram_and_its_answer(lab: Lab, relay: RelayProcess, version: int) -> None:
    with RawClient(lab.client, version=version) as client, lab.outside.udp(REMOTE[version]) as remote:
        reply = client.bind(RECEIVE | SEND | 0x04, remote.getsockname()[:2])
        assert reply.LOCAL.pair == (INSIDE[version], PORT)
        client.send(reply.AID, b"question")
        data, source = remote.recvfrom(100)
        assert data == b"question"
        assert source[:2] == reply.REMOTE.pair, "REMOTE tells what the outside sees"
        assert source[0] == BORDER[version]
        remote.sendto(b"answer", source)
        assert client.receive() == (reply.AID, b"answer")


@pytest.mark.parametrize(("inside", "outside"), [(4, 6), (6, 4)])
def test_families_inside_and_outside_may_differ(lab: Lab, relay: RelayProcess, inside: int, outside: int) -> None:
    with RawClient(lab.client, version=inside) as client, lab.outside.udp(REMOTE[outside]) as remote:
        aid = client.associate(remote.getsockname()[:2])
        client.send(aid, b"ping")
        data, source = remote.recvfrom(100)
        remote.sendto(data + b"-pong", source)
        assert client.receive() == (aid, b"ping-pong")


def test_associations_of_one_client_share_an_outside_port(lab: Lab, relay: RelayProcess) -> None:
    """Endpoint-independent mapping, as users of NAT expect."""
    with (
        RawClient(lab.client) as client,
        RawClient(lab.client, address=SECOND[4]) as other,
        lab.outside.udp(REMOTE[4]) as first,
        lab.outside.udp(STRANGER[4]) as second,
    ):
        replies = [client.bind(RECEIVE | SEND | 0x04, sock.getsockname()) for sock in (first, second)]
        assert replies[0].REMOTE.pair == replies[1].REMOTE.pair
        assert other.bind(RECEIVE | SEND | 0x04, first.getsockname()).REMOTE.pair != replies[0].REMOTE.pair


def test_only_the_remote_address_may_answer(lab: Lab, relay: RelayProcess) -> None:
    with (
        RawClient(lab.client) as client,
        lab.outside.udp(REMOTE[4]) as remote,
        lab.outside.udp(REMOTE[4]) as other_port,
        lab.outside.udp(STRANGER[4]) as stranger,
    ):
        aid = client.associate(remote.getsockname())
        client.send(aid, b"question")
        source = remote.recvfrom(100)[1]
        stranger.sendto(b"not asked", source)
        wait_for("the drop", lambda: relay.drops().get("unexpected-remote") == 1)
        other_port.sendto(b"same host", source)
        assert client.receive() == (aid, b"same host")
        assert client.receives_nothing()


def test_the_exact_port_wins_between_associations_of_one_host(lab: Lab, relay: RelayProcess) -> None:
    with (
        RawClient(lab.client) as client,
        lab.outside.udp(REMOTE[4]) as first,
        lab.outside.udp(REMOTE[4]) as second,
        lab.outside.udp(REMOTE[4]) as third,
    ):
        one, two = client.associate(first.getsockname()), client.associate(second.getsockname())
        anything = client.associate((REMOTE[4], 0), RECEIVE)
        client.send(one, b"hello")
        source = first.recvfrom(100)[1]
        for sock, aid in ((second, two), (first, one), (third, anything)):
            sock.sendto(b"answer", source)
            assert client.receive() == (aid, b"answer")


def test_a_send_only_association_brings_nothing_back(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        aid = client.associate(remote.getsockname(), SEND)
        client.send(aid, b"one way")
        source = remote.recvfrom(100)[1]
        remote.sendto(b"unwanted", source)
        wait_for("the drop", lambda: relay.drops().get("unexpected-remote") == 1)
        assert aid == client.bind(RECEIVE | 0x04, remote.getsockname(), aid=aid).AID
        remote.sendto(b"wanted now", source)
        assert client.receive() == (aid, b"wanted now")
        assert client.release(aid, RECEIVE) == 0
        remote.sendto(b"unwanted again", source)
        wait_for("the second drop", lambda: relay.drops().get("unexpected-remote") == 2)


def test_a_clients_port_is_learnt_once_and_pinned(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote, lab.client.udp(CLIENT[4]) as later:
        aid = client.associate(remote.getsockname(), local=("0.0.0.0", 0))
        client.send(aid, b"here I am")
        source = remote.recvfrom(100)[1]
        later.sendto(bytes.fromhex("00000000") + aid.to_bytes(4) + b"me too", client.relay)
        wait_for("the drop", lambda: relay.drops().get("wrong-port") == 1)
        remote.sendto(b"answer", source)
        assert client.receive() == (aid, b"answer")


def test_a_bare_header_shows_the_port_of_a_receiver_and_is_relayed_nowhere(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        reply = client.bind(RECEIVE | 0x04, remote.getsockname(), local=("0.0.0.0", 0))
        remote.sendto(b"too early", reply.REMOTE.pair)
        wait_for("the drop", lambda: relay.drops().get("endpoint-unknown") == 1)
        client.send(reply.AID, b"")
        wait_for("the hello", lambda: relay.counters()["hellos"] == 1)
        remote.sendto(b"in time", reply.REMOTE.pair)
        assert client.receive() == (reply.AID, b"in time")
        assert relay.counters()["sent_outside"] == 0


def test_nobody_aims_a_stream_at_a_third_party(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, pytest.raises(Refused) as refused:
        client.associate((REMOTE[4], 5000), local=(SECOND[4], 40000))
    assert refused.value.code == 0x02


@both_versions
def test_datagrams_up_to_what_udp_carries(lab: Lab, relay: RelayProcess, version: int) -> None:
    with RawClient(lab.client, version=version) as client, lab.outside.udp(REMOTE[version]) as remote:
        aid = client.associate(remote.getsockname()[:2])
        most = {4: 65_507, 6: 65_527}[version] - 8
        for octets in (0, 1, 1472, 1490, 16_384, most):
            client.send(aid, bytes(octets))
            data, source = remote.recvfrom(70_000)
            assert len(data) == octets
            remote.sendto(data, source)
            assert client.receive() == (aid, data)


def test_a_user_with_a_host_of_its_own_may_have_datagrams_sent_there_and_nobody_else(
    lab: Lab, start_relay: Callable[..., RelayProcess]
) -> None:
    """carol connects from one address and has her player at another, which the users file lists for her."""
    start_relay(rules='[[rules]]\nname = "all"\nallow = true\n')
    with lab.client.udp(SECOND[4]) as player, lab.outside.udp(REMOTE[4]) as remote:
        local, there = player.getsockname(), remote.getsockname()
        with RawClient(lab.client, "carol") as carol:
            aid = carol.associate(there, local=local)
            carol.send(aid, b"from the wrong host")
            player.sendto(bytes(layers.datagram(aid, b"from her player")), carol.relay)
            data, relayed = remote.recvfrom(100)
            assert data == b"from her player"
            remote.sendto(b"to her player", relayed)
            assert bytes(layers.Datagram(player.recv(100)).DATA) == b"to her player"
            with pytest.raises(Refused) as refused:
                carol.associate(there, local=(THIRD[4], 5000))
            assert refused.value.code == 0x02
        with RawClient(lab.client, "alice") as alice:
            with pytest.raises(Refused) as refused:
                alice.associate(there, local=local)
            assert refused.value.code == 0x02
