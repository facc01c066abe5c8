"""The same random traffic of every kind through each plane: the same comes out, and is counted the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mcastsocks.address import Endpoint
from tests.planes.bench import LOOPBACK, PLANES, Bench, on_plane
from tests.planes.traffic import IGNORED, Traffic
from tests.planes.witness import Observed

_STEPS = 160
_others = [plane for plane in PLANES if plane != "portable"]


def observe(plane: str, seed: int, slot_bits: int) -> Observed:
    observed: list[Observed] = []
    traffic: list[Traffic] = []

    def sink(channel: int, aid: int, body: bytes) -> Sequence[int]:
        return traffic[0].sink(channel, aid, body)

    def ask(channel: int, destination: Endpoint) -> None:
        traffic[0].ask(channel, destination)

    async def test(bench: Bench) -> None:
        traffic.append(Traffic(bench, seed))
        observed.append(await traffic[0].run(_STEPS))

    on_plane(
        plane,
        test,
        frozenset({IGNORED}),
        inside=LOOPBACK,
        sink=sink,
        ask=ask,
        slot_bits=slot_bits,
    )
    return observed[0]


@pytest.mark.parametrize("slot_bits", [16, 3])
@pytest.mark.parametrize("seed", range(6))
def test_the_same_traffic_comes_out_of_every_plane(seed: int, slot_bits: int) -> None:
    """With 3 bits, most associations find their slot taken."""
    reference = observe("portable", seed, slot_bits)
    assert reference.counters["sent_inside"] > 50, "there was something to compare"
    assert reference.counters["sent_outside"] > 50
    for plane in _others:
        other = observe(plane, seed, slot_bits)
        assert other.results == reference.results, plane
        assert other.counters == reference.counters, plane
        assert other.traffic == reference.traffic, plane
        assert other.datagrams == reference.datagrams, plane
        assert other.unordered == reference.unordered, plane
