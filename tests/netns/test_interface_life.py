"""The outside interface, or its address, goes and comes back under a relay that has joined groups there."""

from __future__ import annotations

import pytest
from pyroute2 import IPRoute

from tests.netns.client import BOTH, MULTICAST, UNICAST, RawClient
from tests.netns.lab import BORDER, GROUP, REMOTE, Capture, Lab, wait_for
from tests.netns.relay import RelayProcess
from tests.netns.test_groups import outside_sender, udp_to


@pytest.mark.parametrize("version", [4, 6])
def test_an_interface_that_comes_back_gets_its_memberships_again(lab: Lab, relay: RelayProcess, version: int) -> None:
    group, other = (GROUP[version], 5950), (GROUP[version], 5951)
    with RawClient(lab.client, version=version) as client:
        aid = int(client.bind(BOTH | MULTICAST, group, ttl=3).AID)
        lab.unplug_outside()
        relay.wait_for_record("outside-lost")
        lab.plug_outside()
        relay.wait_for_record("outside-renewed", groups=1)
        assert lab.relay.memberships(version, "out")[group[0]] == 1
        with outside_sender(lab, version) as sender, Capture(lab.outside, "out") as outside:
            sender.sendto(b"after all", group)
            assert client.receive() == (aid, b"after all")
            client.send(aid, b"and out again")
            outside.wait_for("the datagram", udp_to(*group), count=2)
            assert client.join(other), "and others can be joined"


def test_without_its_address_the_outside_is_refused_and_with_it_again_served(lab: Lab, relay: RelayProcess) -> None:
    group, remote = (GROUP[4], 5952), (REMOTE[4], 5000)
    with RawClient(lab.client) as client:
        aid = client.join(group)

        def answer() -> int:
            return int(client.request(5, BOTH | UNICAST, LOCAL=client.local, REMOTE=remote).REPLY)

        with lab.relay.entered(), IPRoute() as route:
            index = route.link_lookup(ifname="out")[0]
            route.addr("del", index=index, address=BORDER[4], prefixlen=24)
            try:
                wait_for("a refusal: there is no address to speak from", lambda: answer() == 0x08)
            finally:
                route.addr("add", index=index, address=BORDER[4], prefixlen=24)
        wait_for("it to be served again", lambda: answer() == 0x00)
        assert lab.relay.memberships(4, "out")[group[0]] == 1
        with outside_sender(lab, 4) as sender:
            sender.sendto(b"after all", group)
            assert client.receive() == (aid, b"after all")


def test_an_address_that_comes_up_later_is_protected_as_the_relays_own(lab: Lab, relay: RelayProcess) -> None:
    later = "10.77.2.9"
    with RawClient(lab.client) as client, lab.relay.entered(), IPRoute() as route:
        index = route.link_lookup(ifname="out")[0]
        assert client.associate((later, 5000)), "somebody else's address so far"
        route.addr("add", index=index, address=later, prefixlen=24)
        try:
            wait_for(
                "the refusal", lambda: client.request(5, 7, LOCAL=client.local, REMOTE=(later, 5001)).REPLY == 0x02
            )
        finally:
            route.addr("del", index=index, address=later, prefixlen=24)
