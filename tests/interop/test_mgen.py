"""MGEN on both sides of a group in MM-mode; its log has a line for each datagram, with its number."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.interop.crossing import RULES, both_ways, datagrams_crossed, open_group
from tests.interop.program import needs, program
from tests.netns.client import RawClient
from tests.netns.lab import BORDER, INSIDE, Lab
from tests.netns.relay import RelayProcess

pytestmark = needs(mgen="mgen")


@both_ways
def test_mgen_receives_each_datagram_in_order(lab: Lab, start_relay: Callable[..., RelayProcess], way: str) -> None:
    group, port, count, octets = "239.77.9.11", 5402, 100, 512
    relay = start_relay(rules=RULES)
    with RawClient(lab.client) as client:
        sender, receiver = open_group(lab, client, (group, port), way)
        listen = ("event", f"JOIN {group} INTERFACE {receiver.link}", "event", f"LISTEN UDP {port}")
        talk = ("event", f"ON 1 UDP DST {group}/{port} PERIODIC [200 {octets}] COUNT {count}")
        with program(receiver.host, "mgen", "flush", *listen) as mgen:
            mgen.wait_for("LISTEN proto>UDP")
            receiver.wait_for_member(group)
            with program(sender.host, "mgen", "interface", sender.link, "ttl", "4", *talk) as source:
                assert source.finish() == 0, source.said
            mgen.wait_for(rf"seq>{count - 1} .*\n")
    heard = re.findall(rf"RECV proto>UDP flow>1 seq>(\d+) src>([\d.]+)/.* dst>{group}/{port} .*size>(\d+)", mgen.said)
    relayed_by = INSIDE[4] if way == "inward" else BORDER[4]
    assert heard == [(str(number), relayed_by, str(octets)) for number in range(count)]
    assert datagrams_crossed(relay.counters(), way) == (count, count)
    assert relay.drops() == {}
