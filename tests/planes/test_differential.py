"""The same random traffic of every kind through each plane: the same comes out, and is counted the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.planes import associate
from mcastsocks.planes.batch import source_headers, ways
from tests.planes.bench import LOOPBACK, PLANES, Bench, on_plane
from tests.planes.socks_traffic import SocksTraffic
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


def observe_socks(plane: str, seed: int, fragments: bool) -> Observed:
    observed: list[Observed] = []
    traffic: list[SocksTraffic] = []

    def ask(channel: int, destination: Endpoint) -> None:
        traffic[0].ask(channel, destination)

    async def test(bench: Bench) -> None:
        traffic.append(SocksTraffic(bench, seed))
        observed.append(await traffic[0].run(_STEPS))

    on_plane(plane, test, ask=ask, socks_fragments=fragments, fragment_above=1000 if fragments else None)
    return observed[0]


@pytest.mark.parametrize("slot_bits", [16, 3])
@pytest.mark.parametrize("seed", range(6))
def test_the_same_traffic_comes_out_of_every_plane(seed: int, slot_bits: int) -> None:
    """With 3 bits, most associations find their slot taken."""
    compare({plane: observe(plane, seed, slot_bits) for plane in PLANES})


@pytest.mark.parametrize("memory", ["ample", "scarce"])
@pytest.mark.parametrize("fragments", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_same_traffic_of_udp_associates_comes_out_of_every_plane(
    seed: int, fragments: bool, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is scarce ways, remotes that may answer, and rows of tables are given up all the time."""
    if memory == "scarce":
        for module, bound, few in (
            (associate, "_ROUTES", 4),
            (associate, "_REMOTES", 3),
            (ways, "_ROWS", 4),
            (source_headers, "_ROWS", 3),
        ):
            monkeypatch.setattr(module, bound, few)
    compare({plane: observe_socks(plane, seed, fragments) for plane in PLANES})


def compare(observed: dict[str, Observed]) -> None:
    reference = observed["portable"]
    assert reference.counters["sent_inside"] > 50, "there was something to compare"
    assert reference.counters["sent_outside"] > 50
    for plane in _others:
        other = observed[plane]
        assert other.results == reference.results, plane
        assert other.counters == reference.counters, plane
        assert other.traffic == reference.traffic, plane
        assert other.datagrams == reference.datagrams, plane
        assert other.unordered == reference.unordered, plane
