"""iperf 2 on both sides of a group in MM-mode; loss is what iperf itself counts."""

from __future__ import annotations

from collections.abc import Callable

from tests.interop.crossing import RULES, both_ways, datagrams_crossed, open_group
from tests.interop.program import needs, program
from tests.netns.client import RawClient
from tests.netns.lab import Capture, Lab
from tests.netns.relay import RelayProcess
from tests.netns.test_groups import udp_to

pytestmark = needs(iperf="iperf")


@both_ways
def test_iperf_counts_no_loss(lab: Lab, start_relay: Callable[..., RelayProcess], way: str) -> None:
    group, port, relay = "239.77.9.10", 5400, start_relay(rules=RULES)
    with RawClient(lab.client) as client:
        sender, receiver = open_group(lab, client, (group, port), way)
        for side in (sender, receiver):  # iperf names no interface when it joins or sends
            side.host.run("ip", "route", "replace", f"{group}/32", "dev", side.link)
        serve = ("stdbuf", "-oL", "iperf", "-s", "-u", "-B", group, "-p", str(port), "-i", "1")
        load = ("iperf", "-c", group, "-u", "-p", str(port), "-b", "1M", "-t", "2", "-T", "4")
        with Capture(sender.host, sender.link) as wire, program(receiver.host, *serve) as server:
            receiver.wait_for_member(group)
            with program(sender.host, *load) as iperf:
                assert iperf.finish() == 0, iperf.said
            total = server.wait_for(r" 0\.0000-2\.\d+ sec .* (\d+)/ *(\d+) \(([^)]*)\)")
            assert "out-of-order" not in server.said
            sent = len(wire.wait_for("what iperf sent", udp_to(group, port), count=int(total[2])))
    assert sent > 2 * 1_000_000 / 8 / 1470
    # Not the client's own count: iperf 2.1.8 says one more than it puts on the wire.
    assert total.groups() == ("0", str(sent), "0%")
    assert datagrams_crossed(relay.counters(), way) == (sent, sent)
    assert relay.drops() == {}
