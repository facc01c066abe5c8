"""What one worker of several does in MM-mode, and leaves to the others."""

from __future__ import annotations

import pytest

from mcastsocks.planes.counters import DropReason
from mcastsocks.tables.changes import RemoveEntry
from tests.planes.bench import LOOPBACK, PLANES, Bench, on_plane

every_plane = pytest.mark.parametrize("plane", PLANES)
BURST = 20


class TwoWorkers:
    """The claims of one, and each of its claims. `claimed` are the names that it holds now."""

    def __init__(self) -> None:
        self.is_ours = False
        self.others: set[tuple[object, ...]] = set()
        self.claimed: list[tuple[object, ...]] = []

    def claim(self, *name: object) -> Claimed:
        self.claimed.append(name)
        return Claimed(self, name)

    def is_others(self, *name: object) -> bool:
        return name in self.others


class Claimed:
    def __init__(self, workers: TwoWorkers, name: tuple[object, ...]) -> None:
        self._workers, self._name = workers, name

    @property
    def is_ours(self) -> bool:
        return self._workers.is_ours

    def close(self) -> None:
        self._workers.claimed.remove(self._name)


@every_plane
def test_a_group_that_another_worker_multicasts_is_left_to_it(plane: str) -> None:
    claims = TwoWorkers()

    async def test(bench: Bench) -> None:
        group, client, sender = bench.group(), bench.udp(), bench.udp()
        listens = bench.add(bench.udp(), group, sends=False, mm=True)
        counters = bench.plane.counters()

        async def burst(dropped: int, sent_inside: int) -> None:
            for number in range(BURST):
                sender.sendto(b"%d" % number, (str(group.host), group.port))
            await bench.settled(lambda: counters.drops[DropReason.OTHER_WORKER] == dropped)
            await bench.settled(lambda: counters.sent_inside == sent_inside)

        await burst(dropped=BURST, sent_inside=0)
        copied = bench.add(client, group, channel=2, sends=False)
        await burst(dropped=BURST, sent_inside=BURST)
        assert [await bench.received(client) for _ in range(BURST)] == [(copied, b"%d" % n) for n in range(BURST)]
        bench.apply(RemoveEntry(copied))
        claims.is_ours = True
        await burst(dropped=BURST, sent_inside=2 * BURST)
        claims.others.add(("heard inside", ("", group), sender.getsockname()))
        await burst(dropped=2 * BURST, sent_inside=2 * BURST)
        assert claims.claimed == [("multicasts inside", ("", group))]
        bench.apply(RemoveEntry(listens))
        assert not claims.claimed

    on_plane(plane, test, inside=LOOPBACK, claims=claims)


@every_plane
def test_a_sender_inside_that_another_worker_takes_is_left_to_it(plane: str) -> None:
    claims = TwoWorkers()

    async def test(bench: Bench) -> None:
        group, talker = bench.group(), bench.udp()
        host, port = talker.getsockname()
        member = bench.member(group)
        sends = bench.add(talker, group, receives=False, ttl=1, mm=True)
        counters = bench.plane.counters()
        where = (str(group.host), group.port)
        talker.sendto(b"the other's", where)
        await bench.settled(lambda: counters.drops[DropReason.OTHER_WORKER] == 1)
        claims.is_ours = True
        talker.sendto(b"ours", where)
        await bench.settled(lambda: counters.sent_outside == 1)
        claims.others.add(("takes inside", group, host, 0))
        talker.sendto(b"of any port of that host", where)
        await bench.settled(lambda: counters.drops[DropReason.OTHER_WORKER] == 2)
        heard = [(await bench.receive(member))[0] for _ in range(4)]
        assert sorted(heard) == sorted([b"the other's", b"ours", b"ours", b"of any port of that host"])
        assert ("takes inside", group, host, port) in claims.claimed
        assert [name[:2] for name in claims.claimed[1:]] == [("heard inside", ("", group))]
        bench.apply(RemoveEntry(sends))
        assert not claims.claimed

    on_plane(plane, test, inside=LOOPBACK, claims=claims)
