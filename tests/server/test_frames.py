"""TCP-encapsulated datagrams for a client that reads slowly: the oldest go, and nothing grows (mcast §4.4)."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.server.frames import Channels, FrameQueue
from mcastsocks.wire.control import Encapsulated
from mcastsocks.wire.datagram import MAX_FRAME_OCTETS
from tests.server.loopback import run
from tests.vectors import octets
from tests.wire.strategies import quick

ROOM = 256 * 1024
LARGE = bytes(30_000)


async def popped(queue: FrameQueue, count: int) -> list[bytes]:
    return [await queue.pop() for _ in range(count)]


async def left(queue: FrameQueue) -> list[int]:
    """The AIDs of all that waits, in order; what is pushed here marks the end, and may take one more's place."""
    queue.push(0, b"")
    aids: list[int] = []
    while (frame := await queue.pop()) != Encapsulated(0, b"").encode():
        aids.append(int.from_bytes(frame[3:7], "big"))
    return aids


def test_frames_are_the_golden_octets_in_the_order_they_came() -> None:
    async def exchange() -> None:
        queue = FrameQueue()
        assert queue.push(0xDEADBEEF, b"ping") == queue.push(5, b"") == []
        assert await popped(queue, 2) == [octets("encapsulated datagram"), octets("encapsulated datagram, empty")]

    run(exchange())


def test_reported_sender_is_part_of_the_body() -> None:
    async def exchange() -> None:
        queue = FrameQueue()
        queue.push(5, bytes.fromhex("01c63364090fa0") + b"hi")
        name = "encapsulated with the sender (REPORT-SOURCE granted, relay to client)"
        assert await queue.pop() == octets(name)

    run(exchange())


def test_pop_waits_for_a_frame() -> None:
    async def exchange() -> None:
        queue = FrameQueue()
        for body in (b"first", b"second"):
            waiting = asyncio.create_task(queue.pop())
            await asyncio.sleep(0)
            assert not waiting.done()
            queue.push(1, body)
            assert await waiting == Encapsulated(1, body).encode()

    run(exchange())


def test_whoever_gives_up_waiting_takes_no_frame_along() -> None:
    async def exchange() -> None:
        queue = FrameQueue()
        waiting = asyncio.create_task(queue.pop())
        await asyncio.sleep(0)
        queue.push(1, b"kept")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await queue.pop() == Encapsulated(1, b"kept").encode()

    run(exchange())


def test_the_oldest_make_room_for_the_newest() -> None:
    async def exchange() -> None:
        queue = FrameQueue()
        dropped = [aid for number in range(1, 21) for aid in queue.push(number, LARGE)]
        kept = await left(queue)
        assert dropped == list(range(1, len(dropped) + 1))
        assert dropped + kept == list(range(1, 21))
        assert (len(kept) + 1) * len(LARGE) > ROOM >= len(kept) * len(LARGE)

    run(exchange())


def test_one_large_frame_may_cost_many_small_ones() -> None:
    async def exchange() -> None:
        queue, number = FrameQueue(), 0
        while not queue.push(number + 1, bytes(1000)):
            number += 1
        dropped = queue.push(0xFFFF, bytes(MAX_FRAME_OCTETS))
        assert dropped[0] == 2, "the first one went before"
        assert 50 < len(dropped) < 70
        assert (await left(queue))[-1] == 0xFFFF

    run(exchange())


def test_largest_frame_is_never_dropped_for_itself() -> None:
    async def exchange() -> None:
        queue = FrameQueue()
        dropped = [queue.push(number, bytes(MAX_FRAME_OCTETS)) for number in range(1, 6)]
        assert dropped == [[], [], [], [1], [2]]
        assert [len(frame) for frame in await popped(queue, 3)] == [0xFFFF] * 3

    run(exchange())


@pytest.mark.parametrize("size", [0, 1, 10])
def test_many_small_frames_are_bounded_too(size: int) -> None:
    async def exchange() -> None:
        queue = FrameQueue()
        dropped = sum(len(queue.push(1, bytes(size))) for _ in range(10_000))
        kept = len(await left(queue))
        assert dropped + kept in (10_000, 9_999)
        assert 1_000 < kept < 3_000

    run(exchange())


def test_room_is_given_back_by_what_is_read() -> None:
    async def exchange() -> None:
        queue = FrameQueue()
        for _ in range(100):
            assert queue.push(1, LARGE) == []
            await queue.pop()

    run(exchange())


@quick
@given(st.lists(st.none() | st.sampled_from((0, 1, 5_000, 65_528)), max_size=60))
def test_what_comes_out_and_what_was_dropped_is_all_that_went_in_and_in_order(steps: list[int | None]) -> None:
    """A number is the size of a datagram that comes, None is a client that reads one."""

    async def exchange() -> None:
        queue, waiting = FrameQueue(), list[int]()
        for number, size in enumerate(steps, 1):
            if size is not None:
                waiting.append(number)
                dropped = queue.push(number, bytes(size))
                assert dropped == waiting[: len(dropped)]
                del waiting[: len(dropped)]
                assert number in waiting
            elif waiting:
                assert int.from_bytes((await queue.pop())[3:7], "big") == waiting.pop(0)
        kept = await left(queue)
        assert kept in (waiting, waiting[1:])

    run(exchange())


# --- channels ---


def test_datagram_finds_its_own_channel() -> None:
    async def exchange() -> None:
        channels = Channels()
        first, second = channels.open(1), channels.open(2)
        assert channels.push(2, 5, b"second") == channels.push(1, 6, b"first") == []
        assert await first.pop() == Encapsulated(6, b"first").encode()
        assert await second.pop() == Encapsulated(5, b"second").encode()

    run(exchange())


def test_datagram_for_a_channel_that_is_gone_is_dropped() -> None:
    channels = Channels()
    assert channels.push(1, 5, b"early") == [5]
    channels.open(1)
    assert channels.push(1, 5, b"in time") == []
    channels.close(1)
    assert channels.push(1, 5, b"late") == [5]
    channels.close(1)


def test_drops_of_one_channel_are_told_and_leave_the_others_alone() -> None:
    async def exchange() -> None:
        channels = Channels()
        channels.open(1)
        other = channels.open(2)
        channels.push(2, 9, b"kept")
        dropped = [aid for number in range(20) for aid in channels.push(1, number, LARGE)]
        assert dropped == list(range(len(dropped)))
        assert dropped
        assert await left(other) == [9]

    run(exchange())
