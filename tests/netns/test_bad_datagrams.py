"""Datagrams that must go nowhere, each dropped and counted by its reason."""

from __future__ import annotations

import pytest

from tests import scapy_layers as layers
from tests.netns.client import RawClient
from tests.netns.lab import CLIENT, REMOTE, SECOND, Lab, wait_for
from tests.netns.relay import RelayProcess

CRAFTED = {
    "runt": bytes(7),
    "reserved-bits": bytes(layers.Datagram(RSV=0x04, AID=1, DATA=b"x")),
    "bad-fragment": bytes(layers.datagram(1, b"x", frag=0x80, dgid=1)),
}


@pytest.mark.parametrize("reason", CRAFTED)
def test_a_malformed_datagram_is_dropped_and_counted(lab: Lab, relay: RelayProcess, reason: str) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        aid = client.associate(remote.getsockname())
        octets = CRAFTED[reason]
        client.udp.sendto(octets[:4] + (aid.to_bytes(4) + octets[8:])[: len(octets) - 4], client.relay)
        client.send(aid, b"afterwards")
        assert remote.recvfrom(100)[0] == b"afterwards"
        assert relay.drops() == {reason: 1}


def test_an_unknown_aid_is_dropped(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        aid = client.associate(remote.getsockname())
        client.send(aid ^ 0x8000_0000, b"one bit off")
        client.send(0, b"zero")
        client.send(aid, b"afterwards")
        assert remote.recvfrom(100)[0] == b"afterwards"
        assert relay.drops() == {"unknown-aid": 2}


def test_a_released_aid_is_unknown(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client:
        aid = client.associate((REMOTE[4], 5000))
        assert client.release(aid) == 0
        client.send(aid, b"too late")
        wait_for("the drop", lambda: relay.drops() == {"unknown-aid": 1})


def test_a_datagram_from_another_address_or_port_is_dropped(lab: Lab, relay: RelayProcess) -> None:
    """Even with the right AID: whoever saw it on the wire gains nothing."""
    with (
        RawClient(lab.client) as client,
        lab.outside.udp(REMOTE[4]) as remote,
        lab.client.udp(SECOND[4], client.local[1]) as other_address,
        lab.client.udp(CLIENT[4]) as other_port,
    ):
        aid = client.associate(remote.getsockname())
        for sock in (other_address, other_port):
            sock.sendto(bytes(layers.datagram(aid, b"not mine")), client.relay)
        client.send(aid, b"mine")
        assert remote.recvfrom(100)[0] == b"mine"
        assert relay.drops() == {"wrong-address": 1, "wrong-port": 1}


def test_a_foreign_address_cannot_teach_an_endpoint(lab: Lab, relay: RelayProcess) -> None:
    with (
        RawClient(lab.client) as client,
        lab.outside.udp(REMOTE[4]) as remote,
        lab.client.udp(SECOND[4]) as thief,
    ):
        aid = client.associate(remote.getsockname(), local=("0.0.0.0", 0))
        thief.sendto(bytes(layers.datagram(aid, b"mine now")), client.relay)
        client.send(aid, b"still mine")
        data, source = remote.recvfrom(100)
        assert data == b"still mine"
        remote.sendto(b"answer", source)
        assert client.receive() == (aid, b"answer")
        assert relay.drops() == {"wrong-address": 1}


def test_the_aid_of_another_client_is_of_no_use(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, RawClient(lab.client, "alice", address=SECOND[4]) as other:
        aid = client.associate((REMOTE[4], 5000))
        other.send(aid, b"stolen")
        wait_for("the drop", lambda: relay.drops() == {"wrong-address": 1})
        assert other.request(6, 3, aid=aid).REPLY == 0x10
        assert other.request(7, aid=aid, ttl=1).REPLY == 0x10
        assert other.request(5, 0x07, aid=aid, LOCAL=other.local, REMOTE=(REMOTE[4], 5000)).REPLY == 0x10
        assert client.release(aid) == 0
