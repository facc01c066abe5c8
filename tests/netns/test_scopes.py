"""Scopes of groups: what crosses, what crosses only when a rule names it, and what never does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.netns.client import BOTH, MULTICAST, RECEIVE, RawClient, Refused
from tests.netns.lab import Lab
from tests.netns.relay import RelayProcess
from tests.netns.test_groups import outside_sender

EVERYTHING = """
[[rules]]
name = "every group"
allow = true
groups = ["224.0.0.0/4", "ff00::/8"]
"""
NAMED = (
    EVERYTHING
    + """
[[rules]]
name = "even these"
allow = true
groups = ["224.0.0.0/24", "ff01::/16", "ff02::/16", "ff12::77:0/112"]
"""
)
WIDER = ["ff03::77:1", "ff04::77:1", "ff05::77:1", "ff08::77:1", "ff0e::77:1", "ff15::77:1", "224.0.1.77", "239.77.1.1"]
LINK = ["ff02::77:1", "ff12::77:1", "224.0.0.177"]
INTERFACE = ["ff01::77:1", "ff11::77:1", "ff00::77:1"]


@pytest.mark.parametrize(("rules", "groups"), [(EVERYTHING, WIDER), (NAMED, [*WIDER, *LINK])])
def test_these_cross_both_ways(
    lab: Lab, start_relay: Callable[..., RelayProcess], rules: str, groups: list[str]
) -> None:
    start_relay(rules=rules)
    for group in groups:
        version = 6 if ":" in group else 4
        with RawClient(lab.client, version=version) as client, outside_sender(lab, version) as sender:
            aid = int(client.bind(BOTH | MULTICAST, (group, 5900), ttl=1).AID)
            sender.sendto(group.encode(), (group, 5900))
            assert client.receive() == (aid, group.encode())
            client.send(aid, b"out")


@pytest.mark.parametrize(("rules", "groups"), [(EVERYTHING, [*LINK, *INTERFACE]), (NAMED, INTERFACE)])
def test_these_do_not(lab: Lab, start_relay: Callable[..., RelayProcess], rules: str, groups: list[str]) -> None:
    start_relay(rules=rules)
    for group in groups:
        with RawClient(lab.client, version=6 if ":" in group else 4) as client:
            with pytest.raises(Refused) as refused:
                client.bind(RECEIVE | MULTICAST, (group, 5900))
            assert refused.value.code == 0x11, group
