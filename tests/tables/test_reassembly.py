"""Fragments until they are whole (mcast §4.5): in any order, and never more of them than the limits allow."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.tables.reassembly import LAST, QueueEnd, Reassembly, ReassemblyLimits
from mcastsocks.wire.datagram import HEADER_OCTETS, Datagram, fragments
from tests.vectors import octets
from tests.wire.strategies import quick

AID, OTHER, DGID = 0xDEADBEEF, 5, 7
MOST = 65_507
LIMITS = ReassemblyLimits(queues_per_association=3, octets=1 << 20, timeout_s=5.0)


class Bench:
    """Queues, how they ended, and a clock that the test turns."""

    def __init__(self, limits: ReassemblyLimits = LIMITS) -> None:
        self.ends: Counter[QueueEnd] = Counter()
        self.reassembly = Reassembly(limits, self.ends)
        self.now = 100.0

    def add(self, frag: int, body: bytes = b"x", *, aid: int = AID, dgid: int = DGID, most: int = MOST) -> bytes | None:
        return self.reassembly.add(aid, dgid, frag, body, most, self.now)

    def add_datagram(self, datagram: bytes, most: int = MOST) -> bytes | None:
        piece = Datagram.parse(datagram)
        return self.add(piece.frag, datagram[HEADER_OCTETS:], aid=piece.aid, dgid=piece.dgid, most=most)

    def is_empty(self) -> bool:
        return (len(self.reassembly), self.reassembly.octets) == (0, 0)


# --- whole ---


@pytest.mark.parametrize("backwards", [False, True])
def test_golden_fragments_are_one_datagram_in_either_order(backwards: bool) -> None:
    bench = Bench()
    names = ["fragment 1 of DGID 7", "fragment 2, the last, of DGID 7"]
    first, second = reversed(names) if backwards else names
    assert bench.add_datagram(octets(first)) is None
    assert bench.add_datagram(octets(second)) == b"first second"
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.COMPLETE: 1}, True)


def test_golden_fragments_with_the_sender_have_it_once_in_front() -> None:
    bench = Bench()
    assert bench.add_datagram(octets("extension: fragment 2, no second sender block")) is None
    assert bench.add_datagram(octets("extension: fragment 1 with the sender")) == (
        bytes.fromhex("01c63364090fa0") + b"first"
    )


def test_only_piece_of_a_datagram_is_whole_at_once() -> None:
    bench = Bench()
    assert bench.add(LAST | 1, b"all") == b"all"
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.COMPLETE: 1}, True)


@pytest.mark.parametrize("empty", [1, 2, 3])
def test_piece_may_be_empty(empty: int) -> None:
    bench, bodies = Bench(), {1: b"a", 2: b"b", 3: b"c"} | {empty: b""}
    assert bench.add(1, bodies[1]) is None
    assert bench.add(LAST | 3, bodies[3]) is None
    assert bench.add(2, bodies[2]) == b"".join(bodies.values())


def test_127_pieces_are_one_datagram_whichever_comes_first() -> None:
    bench, pieces = Bench(), [bytes((position,)) for position in range(1, 128)]
    for position in Random(1).sample(range(1, 128), 127):
        whole = bench.add(position | (LAST if position == 127 else 0), pieces[position - 1])
    assert whole == b"".join(pieces)
    assert bench.is_empty()


@st.composite
def cuts_in_disorder(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, bytes]]]:
    """A body, and its pieces with their FRAG in any order, some of them more than once."""
    body = draw(st.binary(max_size=300))
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=12)))
    bounds = [0, *cuts, len(body)]
    pieces = [
        (position | (LAST if position == len(bounds) - 1 else 0), body[start:end])
        for position, (start, end) in enumerate(pairwise(bounds), 1)
    ]
    return body, draw(st.permutations(pieces))


@quick
@given(cuts_in_disorder(), st.data())
def test_any_cuts_in_any_order_with_repeats_come_whole(
    drawn: tuple[bytes, list[tuple[int, bytes]]], data: st.DataObject
) -> None:
    body, pieces = drawn
    bench = Bench()
    for count, (frag, piece) in enumerate(pieces[:-1], 1):
        assert bench.add(frag, piece) is None
        repeated = data.draw(st.sampled_from(pieces[:count]))
        assert bench.add(*repeated) is None
    assert bench.add(*pieces[-1]) == body
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.COMPLETE: 1}, True)


@quick
@given(st.binary(max_size=600), st.integers(HEADER_OCTETS + 5, 200), st.randoms(use_true_random=False))
def test_what_the_relay_cuts_comes_whole(body: bytes, room: int, random: Random) -> None:
    bench = Bench()
    pieces = fragments(0, DGID, AID, body, room)
    assert pieces is not None
    random.shuffle(pieces)
    wholes = [bench.add_datagram(piece) for piece in pieces]
    assert wholes == [None] * (len(pieces) - 1) + [body]
    assert bench.is_empty()


def test_largest_body_that_udp_carries_comes_whole_and_no_larger_one() -> None:
    for size, whole in ((MOST, True), (MOST + 1, False)):
        bench = Bench()
        pieces = fragments(0, DGID, AID, bytes(size), 1472)
        assert pieces is not None
        last = [bench.add_datagram(piece) for piece in pieces][-1]
        assert last == (bytes(size) if whole else None)
        assert bench.ends == {QueueEnd.COMPLETE if whole else QueueEnd.TOO_LARGE: 1}
        assert bench.is_empty()


def test_queues_are_told_apart_by_aid_and_dgid() -> None:
    bench = Bench()
    for aid, dgid in ((AID, 7), (AID, 8), (OTHER, 7)):
        assert bench.add(1, f"{aid}/{dgid}".encode(), aid=aid, dgid=dgid) is None
    assert len(bench.reassembly) == 3
    for aid, dgid in ((OTHER, 7), (AID, 8), (AID, 7)):
        assert bench.add(LAST | 2, b"!", aid=aid, dgid=dgid) == f"{aid}/{dgid}!".encode()
    assert bench.is_empty()


def test_dgid_is_free_again_once_its_datagram_is_whole() -> None:
    bench = Bench()
    for body in (b"old", b"new"):
        assert bench.add(1, body) is None
        assert bench.add(LAST | 2, b"") == body


# --- contradictions ---


@pytest.mark.parametrize(
    "pieces",
    [
        [(1, b"a"), (1, b"b")],
        [(2, b"a"), (2, b"")],
        [(LAST | 3, b"a"), (LAST | 3, b"b")],
        [(LAST | 3, b"a"), (LAST | 2, b"a")],  # a second end
        [(LAST | 2, b"a"), (LAST | 3, b"a")],
        [(LAST | 2, b"a"), (2, b"a")],  # the end is not the end
        [(2, b"a"), (LAST | 2, b"a")],
        [(LAST | 2, b"a"), (3, b"b")],  # beyond the end
        [(3, b"b"), (LAST | 2, b"a")],
        [(2, b"b"), (LAST | 1, b"a")],
    ],
)
def test_pieces_that_contradict_each_other_end_the_queue(pieces: list[tuple[int, bytes]]) -> None:
    bench = Bench()
    bench.add(1, b"kept", aid=OTHER)
    others = bench.reassembly.octets
    for frag, body in pieces:
        assert bench.add(frag, body) is None
    assert bench.ends == {QueueEnd.CONTRADICTED: 1}
    assert (len(bench.reassembly), bench.reassembly.octets) == (1, others)


def test_repeat_is_ignored_and_takes_no_room() -> None:
    bench = Bench()
    bench.add(2, b"b")
    bench.add(LAST | 3, b"c")
    held = bench.reassembly.octets
    for _ in range(3):
        assert bench.add(2, b"b") is None
        assert bench.add(LAST | 3, b"c") is None
    assert bench.reassembly.octets == held
    assert bench.add(1, b"a") == b"abc"


def test_what_follows_a_contradiction_starts_anew() -> None:
    bench = Bench()
    bench.add(1, b"a")
    bench.add(1, b"b")
    assert bench.add(1, b"c") is None
    assert bench.add(LAST | 2, b"d") == b"cd"


# --- bounds ---


@pytest.mark.parametrize("most", [0, 1, 10])
def test_body_beyond_what_is_carried_is_given_up_as_soon_as_it_is_known(most: int) -> None:
    bench = Bench()
    assert bench.add(1, bytes(most), most=most) is None
    assert len(bench.reassembly) == 1
    assert bench.add(3, b"x", most=most) is None
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.TOO_LARGE: 1}, True)
    assert bench.add(LAST | 1, bytes(most), most=most) == bytes(most)


def test_association_has_its_bound_and_its_oldest_queue_makes_room() -> None:
    bench = Bench()
    bench.add(1, b"other's", aid=OTHER)
    for dgid in range(LIMITS.queues_per_association + 1):
        bench.add(1, bytes((dgid,)), dgid=dgid)
    assert bench.ends == {QueueEnd.DISPLACED: 1}
    assert len(bench.reassembly) == LIMITS.queues_per_association + 1
    assert bench.add(LAST | 2, b"", aid=OTHER) == b"other's", "others are left alone"
    for dgid in range(1, LIMITS.queues_per_association + 1):
        assert bench.add(LAST | 2, b"", dgid=dgid) == bytes((dgid,))
    assert bench.is_empty()


def test_a_further_piece_displaces_nobody_where_every_queue_is_in_use() -> None:
    bench = Bench()
    for position in (1, 2, 3):
        for dgid in range(LIMITS.queues_per_association):
            assert bench.add(position, b"x", dgid=dgid) is None
    assert bench.ends == {}


def test_at_least_four_datagrams_of_an_association_are_put_together_at_once() -> None:
    """mcast §4.5, with the limits that a relay has."""
    bench = Bench(ReassemblyLimits())
    for dgid in range(4):
        assert bench.add(1, b"a", dgid=dgid) is None
    assert [bench.add(LAST | 2, b"b", dgid=dgid) for dgid in range(4)] == [b"ab"] * 4
    assert ReassemblyLimits().timeout_s >= 5


def test_the_bound_for_all_ends_the_oldest_queues_of_whomever() -> None:
    bench = Bench(ReassemblyLimits(queues_per_association=3, octets=10_000, timeout_s=5))
    for aid in range(1, 5):
        bench.add(1, bytes(3000), aid=aid)
        assert bench.reassembly.octets <= 10_000
    assert bench.ends == {QueueEnd.DISPLACED: 1}
    assert [bench.add(LAST | 2, b"", aid=aid) for aid in (2, 3, 4, 1)] == [bytes(3000)] * 3 + [None]


def test_no_piece_is_kept_that_is_beyond_the_bound_for_all_by_itself() -> None:
    bench = Bench(ReassemblyLimits(queues_per_association=3, octets=10_000, timeout_s=5))
    assert bench.add(1, bytes(10_001)) is None
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.DISPLACED: 1}, True)
    assert bench.add(LAST | 1, bytes(10_001)) == bytes(10_001), "what is whole waits for nothing"


def test_empty_pieces_are_bounded_too() -> None:
    bench = Bench(ReassemblyLimits(queues_per_association=3, octets=10_000, timeout_s=5))
    for aid in range(1, 1001):
        bench.add(1, b"", aid=aid)
    assert 0 < len(bench.reassembly) < 100
    assert bench.reassembly.octets <= 10_000


# --- time and release ---


def test_queue_ends_when_its_time_is_over_counted_from_its_first_piece() -> None:
    bench = Bench()
    bench.add(1, b"a")
    bench.now += LIMITS.timeout_s - 0.001
    bench.add(2, b"b")
    assert bench.ends == {}
    bench.now += 0.001
    bench.reassembly.expire(bench.now)
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.TIMED_OUT: 1}, True)


def test_piece_that_comes_too_late_completes_nothing() -> None:
    bench = Bench()
    bench.add(1, b"a")
    bench.now += LIMITS.timeout_s
    assert bench.add(LAST | 2, b"b") is None
    assert (bench.ends, len(bench.reassembly)) == ({QueueEnd.TIMED_OUT: 1}, 1)
    assert bench.add(1, b"A") == b"Ab"


def test_a_piece_of_anyone_ends_what_is_over_and_nothing_younger() -> None:
    bench = Bench()
    for dgid in range(3):
        bench.add(1, dgid=dgid)
        bench.now += 2
    bench.add(1, aid=OTHER)  # 6 s after the first
    assert (bench.ends, len(bench.reassembly)) == ({QueueEnd.TIMED_OUT: 1}, 3)


def test_released_association_leaves_nothing_and_takes_nobody_along() -> None:
    bench = Bench()
    for dgid in (1, 2):
        bench.add(1, dgid=dgid)
    bench.add(1, b"kept", aid=OTHER)
    bench.reassembly.release(AID)
    assert (bench.ends, len(bench.reassembly)) == ({QueueEnd.RELEASED: 2}, 1)
    assert bench.add(LAST | 2, b"", aid=OTHER) == b"kept"
    bench.reassembly.release(AID)
    bench.reassembly.release(OTHER)
    assert bench.is_empty()
    assert bench.ends == {QueueEnd.RELEASED: 2, QueueEnd.COMPLETE: 1}


def test_released_queues_do_not_count_against_the_association_any_more() -> None:
    bench = Bench()
    for _ in range(3):
        for dgid in range(LIMITS.queues_per_association):
            bench.add(1, dgid=dgid)
        bench.reassembly.release(AID)
    assert bench.ends == {QueueEnd.RELEASED: 3 * LIMITS.queues_per_association}


strays = st.lists(
    st.tuples(
        st.sampled_from((1, 2, 3)),  # AID
        st.integers(0, 5),  # DGID
        st.integers(1, 4),
        st.booleans(),
        st.binary(max_size=3),
        st.sampled_from((0.0, 0.5, 3.0)),
    ),
    max_size=80,
)


@quick
@given(strays)
def test_memory_is_bounded_all_the_time_and_zero_in_the_end(
    pieces: list[tuple[int, int, int, bool, bytes, float]],
) -> None:
    """Whatever comes: every queue that was begun ends in exactly one way."""
    bench = Bench(ReassemblyLimits(queues_per_association=2, octets=1500, timeout_s=5))
    wholes = 0
    for aid, dgid, position, last, body, pause in pieces:
        whole = bench.add(position | (LAST if last else 0), body, aid=aid, dgid=dgid, most=8)
        wholes += whole is not None
        assert whole is None or len(whole) <= 8
        assert len(bench.reassembly) <= 3 * 2
        assert 0 <= bench.reassembly.octets <= 1500
        assert (len(bench.reassembly) == 0) == (bench.reassembly.octets == 0)
        bench.now += pause
    assert bench.ends[QueueEnd.COMPLETE] == wholes
    left, ended = len(bench.reassembly), bench.ends.total()
    bench.reassembly.expire(bench.now + 5)
    assert bench.is_empty()
    assert bench.ends.total() == ended + left
