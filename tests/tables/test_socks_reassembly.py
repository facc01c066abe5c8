"""Fragments of RFC 1928 (§7): in order or not at all, one queue a sender, and never more than the limits allow."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.address import Endpoint, parse_endpoint
from mcastsocks.tables.reassembly import LAST, QueueEnd, ReassemblyLimits
from mcastsocks.tables.socks_reassembly import SocksReassembly
from mcastsocks.wire.socks_datagram import fragments, parse_header
from tests.vectors import octets
from tests.wire.strategies import endpoints, quick

HOST = parse_endpoint("198.51.100.7:53")
ELSEWHERE = parse_endpoint("198.51.100.8:53")
MOST = 65_507
LIMITS = ReassemblyLimits(octets=1 << 20, timeout_s=5.0)


class Bench:
    """Queues, how they ended, and a clock that the test turns."""

    def __init__(self, limits: ReassemblyLimits = LIMITS) -> None:
        self.ends: Counter[QueueEnd] = Counter()
        self.reassembly: SocksReassembly[str] = SocksReassembly(limits, self.ends)
        self.now = 100.0

    def add(
        self, frag: int, body: bytes = b"x", *, by: str = "alice", to: Endpoint = HOST, most: int = MOST
    ) -> bytes | None:
        return self.reassembly.add(by, frag, to, body, most, self.now)

    def add_datagram(self, datagram: bytes) -> bytes | None:
        frag, to, end = parse_header(datagram)
        return self.add(frag, datagram[end:], to=to)

    def is_empty(self) -> bool:
        return (len(self.reassembly), self.reassembly.octets) == (0, 0)


# --- whole ---


def test_golden_fragment_completes_what_came_before_it() -> None:
    bench = Bench()
    assert bench.add(1, b"head") is None
    assert bench.add_datagram(octets("1928 datagram, fragment 2, the last")) == b"headtail"
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.COMPLETE: 1}, True)


def test_only_piece_of_a_datagram_is_whole_at_once() -> None:
    bench = Bench()
    assert bench.add(LAST | 1, b"all") == b"all"
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.COMPLETE: 1}, True)


def test_standalone_datagram_is_whole_and_no_queue() -> None:
    bench = Bench()
    assert bench.add_datagram(octets("1928 datagram IPv4")) == b"query"
    assert bench.add(0, b"") == b""
    assert (bench.ends, bench.is_empty()) == ({}, True)


@quick
@given(endpoints, st.binary(max_size=600), st.integers(5, 200))
def test_what_is_cut_comes_whole_again_and_again(endpoint: Endpoint, body: bytes, width: int) -> None:
    bench = Bench()
    pieces = fragments(endpoint, body, 262 + width)
    assert pieces is not None
    for _ in range(3):
        assert [bench.add_datagram(piece) for piece in pieces] == [None] * (len(pieces) - 1) + [body]
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.COMPLETE: 3}, True)


def test_127_pieces_are_one_datagram() -> None:
    bench = Bench()
    for position in range(1, 127):
        assert bench.add(position, bytes((position,))) is None
    assert bench.add(LAST | 127, b"\x7f") == bytes(range(1, 128))


def test_senders_have_a_queue_each() -> None:
    bench = Bench()
    for sender in ("alice", "bob"):
        assert bench.add(1, sender.encode(), by=sender) is None
    for sender in ("alice", "bob"):
        assert bench.add(LAST | 2, b"!", by=sender) == f"{sender}!".encode()
    assert bench.is_empty()


def test_piece_that_comes_twice_in_a_row_is_taken_once() -> None:
    bench = Bench()
    for body in (b"a", b"b"):
        for _ in range(3):
            assert bench.add(1 if body == b"a" else 2, body) is None
    assert bench.add(LAST | 3, b"c") == b"abc"
    assert bench.ends == {QueueEnd.COMPLETE: 1}


# --- abandoned ---


@pytest.mark.parametrize("lower", [1, 2, LAST | 1, LAST | 2])
def test_lower_position_abandons_what_was_collected(lower: int) -> None:
    bench = Bench()
    for position in (1, 2, 3):
        bench.add(position, b"old")
    bench.add(lower, b"new")
    assert bench.ends[QueueEnd.DISPLACED] == 1
    assert bench.add(LAST | 4, b"") is None, "nothing old is ever delivered"


def test_first_piece_of_the_next_datagram_begins_a_queue_in_place_of_the_old() -> None:
    for old in ((1,), (1, 2, 3)):
        bench = Bench()
        for position in old:
            bench.add(position, b"old")
        assert bench.add(1, b"new") is None
        assert bench.add(LAST | 2, b"er") == b"newer"
        assert bench.ends == {QueueEnd.DISPLACED: 1, QueueEnd.COMPLETE: 1}
        assert bench.is_empty()


def test_standalone_datagram_is_below_every_position() -> None:
    bench = Bench()
    bench.add(1, by="bob")
    bench.add(1)
    assert bench.add(0, b"whole") == b"whole"
    assert (bench.ends, len(bench.reassembly)) == ({QueueEnd.DISPLACED: 1}, 1)
    assert bench.add(LAST | 2) is None
    assert bench.add(LAST | 2, by="bob") == b"xx", "others are left alone"


@pytest.mark.parametrize(
    ("frag", "body", "to"),
    [
        (4, b"d", HOST),  # 3 can never come any more
        (LAST | 4, b"d", HOST),
        (2, b"B", HOST),
        (LAST | 2, b"b", HOST),  # the end is not where it was
        (3, b"c", ELSEWHERE),
        (2, b"b", ELSEWHERE),
    ],
)
def test_contradiction_abandons_what_was_collected(frag: int, body: bytes, to: Endpoint) -> None:
    bench = Bench()
    bench.add(1, b"a")
    bench.add(2, b"b")
    assert bench.add(frag, body, to=to) is None
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.CONTRADICTED: 1}, True)


@pytest.mark.parametrize("frag", [2, 127, LAST | 2, LAST | 127])
def test_piece_without_a_beginning_is_counted_and_not_kept(frag: int) -> None:
    bench = Bench()
    assert bench.add(frag) is None
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.CONTRADICTED: 1}, True)


# --- bounds ---


@pytest.mark.parametrize("most", [0, 1, 10])
def test_body_beyond_what_is_carried_is_given_up_as_soon_as_it_is_known(most: int) -> None:
    bench = Bench()
    assert bench.add(1, bytes(most), most=most) is None
    assert bench.add(2, b"x", most=most) is None
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.TOO_LARGE: 1}, True)
    assert bench.add(LAST | 1, bytes(most), most=most) == bytes(most)


def test_the_bound_for_all_ends_the_oldest_queues_of_whomever() -> None:
    bench = Bench(ReassemblyLimits(octets=10_000))
    for sender in "abcd":
        bench.add(1, bytes(3000), by=sender)
        assert bench.reassembly.octets <= 10_000
    assert bench.ends == {QueueEnd.DISPLACED: 1}
    assert [bench.add(LAST | 2, b"", by=sender) for sender in "bcda"] == [bytes(3000)] * 3 + [None]


def test_no_piece_is_kept_that_is_beyond_the_bound_for_all_by_itself() -> None:
    bench = Bench(ReassemblyLimits(octets=10_000))
    assert bench.add(1, bytes(10_001)) is None
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.DISPLACED: 1}, True)


def test_the_bound_for_all_may_be_used_to_its_last_octet() -> None:
    bench = Bench()
    bench.add(1, bytes(1000))
    limited = Bench(ReassemblyLimits(octets=bench.reassembly.octets))
    assert limited.add(1, bytes(1000)) is None
    assert limited.add(LAST | 2, b"") == bytes(1000)
    assert limited.ends == {QueueEnd.COMPLETE: 1}


def test_empty_pieces_are_bounded_too() -> None:
    bench = Bench(ReassemblyLimits(octets=10_000))
    for sender in range(1000):
        bench.add(1, b"", by=str(sender))
    assert 0 < len(bench.reassembly) < 100
    assert bench.reassembly.octets <= 10_000


# --- time and release ---


def test_timer_is_at_least_five_seconds() -> None:
    """RFC 1928 §7, with the limits that a relay has."""
    assert ReassemblyLimits().timeout_s >= 5


def test_queue_ends_when_its_time_is_over_counted_from_its_first_piece() -> None:
    bench = Bench()
    bench.add(1)
    bench.now += LIMITS.timeout_s - 0.001
    bench.add(2)
    assert bench.ends == {}
    bench.now += 0.001
    bench.reassembly.expire(bench.now)
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.TIMED_OUT: 1}, True)


def test_piece_that_comes_too_late_completes_nothing() -> None:
    bench = Bench()
    bench.add(1)
    bench.now += LIMITS.timeout_s
    assert bench.add(LAST | 2) is None
    assert (bench.ends, bench.is_empty()) == ({QueueEnd.TIMED_OUT: 1, QueueEnd.CONTRADICTED: 1}, True)


def test_queue_begun_anew_has_all_its_time_and_the_oldest_still_ends_first() -> None:
    bench = Bench()
    bench.add(1, b"old")
    bench.now += 1
    bench.add(1, by="bob")
    bench.now += 3
    bench.add(1, b"new")
    bench.now += 2  # six seconds after the first, five after bob's
    bench.reassembly.expire(bench.now)
    assert bench.ends == {QueueEnd.DISPLACED: 1, QueueEnd.TIMED_OUT: 1}
    assert bench.add(LAST | 2, b"er") == b"newer"


def test_released_sender_leaves_nothing_and_takes_nobody_along() -> None:
    bench = Bench()
    bench.add(1)
    bench.add(1, b"kept", by="bob")
    bench.reassembly.release("alice")
    bench.reassembly.release("alice")
    assert (bench.ends, len(bench.reassembly)) == ({QueueEnd.RELEASED: 1}, 1)
    assert bench.add(LAST | 2, b"", by="bob") == b"kept"


strays = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 4),
        st.booleans(),
        st.sampled_from((HOST, HOST, ELSEWHERE)),
        st.binary(max_size=3),
        st.sampled_from((0.0, 0.5, 3.0)),
    ),
    max_size=80,
)


@quick
@given(strays)
def test_memory_is_bounded_all_the_time_and_zero_in_the_end(
    pieces: list[tuple[str, int, bool, Endpoint, bytes, float]],
) -> None:
    """Whatever comes: every queue that was begun ends in exactly one way."""
    bench = Bench(ReassemblyLimits(octets=800, timeout_s=5))
    wholes = 0
    for sender, position, last, to, body, pause in pieces:
        frag = position | (LAST if last and position else 0)
        whole = bench.add(frag, body, by=sender, to=to, most=8)
        wholes += whole is not None and frag != 0
        assert whole is None or len(whole) <= 8
        assert len(bench.reassembly) <= 3
        assert 0 <= bench.reassembly.octets <= 800
        assert (len(bench.reassembly) == 0) == (bench.reassembly.octets == 0)
        bench.now += pause
    assert bench.ends[QueueEnd.COMPLETE] == wholes
    left, ended = len(bench.reassembly), bench.ends.total()
    bench.reassembly.expire(bench.now + 5)
    assert bench.is_empty()
    assert bench.ends.total() == ended + left
