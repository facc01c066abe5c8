"""A group in MM-mode, where plain programs stand on both sides and neither knows of the relay."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.netns.client import MM, MULTICAST, RECEIVE, SEND, RawClient
from tests.netns.lab import CLIENT, REMOTE, Host, Lab, wait_for

RULES = """
[[rules]]
name = "everybody, groups as groups"
allow = true
do = ["receive-group", "send-group"]
groups = ["239.77.0.0/16"]
ports = "5000-5999"
max_ttl = 16
modes = ["mm"]
"""

both_ways = pytest.mark.parametrize("way", ["inward", "outward"])


@dataclass(frozen=True)
class Side:
    """A host, its interface and its address there."""

    host: Host
    link: str
    address: str

    def wait_for_member(self, group: str) -> None:
        """Until a program on the host has joined."""
        wait_for(f"a member of {group}", lambda: group in self.host.memberships(4, self.link))


def open_group(lab: Lab, client: RawClient, group: tuple[str, int], way: str) -> tuple[Side, Side]:
    """Ask the relay for the group; the side that sends and the side that receives."""
    inside, outside = Side(lab.client, "in", CLIENT[4]), Side(lab.outside, "out", REMOTE[4])
    if way == "inward":
        reply = client.bind(RECEIVE | MULTICAST | MM, group)
        sides = outside, inside
    else:
        reply = client.bind(SEND | MULTICAST | MM, group, ttl=4, local=(CLIENT[4], 0))
        sides = inside, outside
    assert int(reply.FLAGS) & MM, "MM-mode was chosen"
    return sides


def datagrams_crossed(counters: dict[str, int], way: str) -> tuple[int, int]:
    """What came to the relay on one side and what it sent on the other."""
    came, went = ("outside", "inside") if way == "inward" else ("inside", "outside")
    return counters[f"received_{came}"], counters[f"sent_{went}"]
