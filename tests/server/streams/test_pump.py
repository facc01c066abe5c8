"""What goes in on one side comes out on the other, ends and resets included."""

from __future__ import annotations

import asyncio
import errno
import random
import socket

import pytest

from mcastsocks.liveness import detect_dead_peer
from mcastsocks.server.streams import direction
from mcastsocks.server.streams.carriers import COPY_OCTETS
from mcastsocks.server.streams.direction import SPLICE_AFTER
from mcastsocks.server.streams.pipes import PIPE_OCTETS, PipePool
from mcastsocks.server.streams.pump import Ending, Octets, Pumps
from tests.server.streams.pairs import (
    Line,
    descriptors,
    drop,
    fill,
    line,
    pair,
    receive_all,
    receive_slowly,
    received,
    reset,
    run,
    send_random,
    until,
)

MIB = 1 << 20


async def both_ways(made: Line, up: int, down: int, seed: int) -> None:
    """Random data both ways at once; the hashes and the counts agree."""
    sent_up, sent_down, got_up, got_down = await asyncio.gather(
        send_random(made.client, up, seed),
        send_random(made.remote, down, seed + 1),
        receive_slowly(made.remote, seed + 2),
        receive_slowly(made.client, seed + 3),
    )
    assert (got_up, got_down) == (sent_up, sent_down)
    assert await made.ending() in (Ending.CLIENT_CLOSED, Ending.REMOTE_CLOSED)
    assert made.octets == Octets(up, down)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most_pipes", [0, 1, 4])
def test_random_data_arrives_whole_both_ways(seed: int, most_pipes: int) -> None:
    """Copies alone; one pipe that both directions want, so that rounds go by pipe and by copy; pipes for all."""

    async def test() -> None:
        async with line(most_pipes=most_pipes, buffer_octets=None if seed % 2 else 20_000) as made:
            await both_ways(made, 6 * MIB, 4 * MIB, seed)

    run(test())


@pytest.mark.parametrize("splice_after", [0, 1, COPY_OCTETS, COPY_OCTETS + 1])
def test_nothing_is_lost_where_copies_end_and_splices_begin(monkeypatch: pytest.MonkeyPatch, splice_after: int) -> None:
    monkeypatch.setattr(direction, "SPLICE_AFTER", splice_after)

    async def test() -> None:
        async with line() as made:
            await both_ways(made, MIB + 1, MIB - 1, splice_after)

    run(test())


def test_young_streams_take_no_pipe() -> None:
    async def test() -> None:
        async with line() as made:
            await both_ways(made, SPLICE_AFTER - 1, SPLICE_AFTER - 1, 1)
            assert made.pool.made == 0

    run(test())


def test_older_streams_take_a_pipe_and_give_it_back() -> None:
    async def test() -> None:
        async with line() as made:
            await both_ways(made, 3 * MIB, 3 * MIB, 1)
            assert (made.pool.made > 0, made.pool.in_use) == (True, 0)

    run(test())


def test_what_the_client_sent_early_goes_first() -> None:
    early = random.Random(1).randbytes(300_000)

    async def test() -> None:
        async with line(early=early, buffer_octets=20_000) as made:
            await asyncio.get_running_loop().sock_sendall(made.client, b"and the rest")
            made.client.shutdown(socket.SHUT_WR)
            assert await receive_all(made.remote) == early + b"and the rest"
            made.remote.shutdown(socket.SHUT_WR)
            assert await made.ending() == Ending.CLIENT_CLOSED
            assert made.octets.to_remote == len(early) + len(b"and the rest")

    run(test())


@pytest.mark.parametrize("by_client", [True, False])
def test_half_close_is_passed_on_and_the_other_direction_goes_on(by_client: bool) -> None:
    async def test() -> None:
        async with line() as made:
            loop = asyncio.get_running_loop()
            first, second = (made.client, made.remote) if by_client else (made.remote, made.client)
            await loop.sock_sendall(first, b"question")
            first.shutdown(socket.SHUT_WR)
            assert await receive_all(second) == b"question"
            for part in (b"a long ", b"answer"):
                await loop.sock_sendall(second, part)
                assert await loop.sock_recv(first, 100) == part
            assert not made.pumping.done()
            second.shutdown(socket.SHUT_WR)
            assert await receive_all(first) == b""
            assert await made.ending() == (Ending.CLIENT_CLOSED if by_client else Ending.REMOTE_CLOSED)

    run(test())


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize("moved", [0, 3 * MIB])
def test_reset_is_told_and_passed_on_as_a_reset(by_client: bool, moved: int) -> None:
    async def test() -> None:
        async with line() as made:
            loop = asyncio.get_running_loop()
            first, second = (made.client, made.remote) if by_client else (made.remote, made.client)
            sending = asyncio.create_task(loop.sock_sendall(first, bytes(moved)))
            await drop(second, moved)
            await sending
            reset(first)
            assert await made.ending() == (Ending.CLIENT_RESET if by_client else Ending.REMOTE_RESET)
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(second, 1)

    run(test())


def test_reset_after_an_answer_in_full_loses_none_of_it() -> None:
    """A server that answers without reading the whole question, and resets what comes still."""
    answer = random.Random(2).randbytes(100_000)

    async def test() -> None:
        async with line() as made:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(made.remote, answer)
            made.remote.shutdown(socket.SHUT_WR)
            await until(lambda: made.octets.to_client == len(answer))
            reset(made.remote)
            while not made.pumping.done():
                await loop.sock_sendall(made.client, b"more question")
                await asyncio.sleep(0)
            assert await made.ending() == Ending.REMOTE_RESET
            received = bytearray()
            while len(received) < len(answer):
                received += await loop.sock_recv(made.client, MIB)
            assert received == answer

    run(test())


def test_idle_stream_ends_and_is_reset() -> None:
    async def test() -> None:
        async with line(idle_s=0.05) as made:
            assert await made.ending() == Ending.IDLE
            for sock in (made.client, made.remote):
                with pytest.raises(ConnectionResetError):
                    await asyncio.get_running_loop().sock_recv(sock, 1)

    run(test())


def test_octets_in_one_direction_keep_both_from_being_idle() -> None:
    async def test() -> None:
        async with line(idle_s=0.6) as made:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            while loop.time() < begun + 1.2:
                await loop.sock_sendall(made.remote, b"tick")
                assert await loop.sock_recv(made.client, 100)
                await asyncio.wait([made.pumping], timeout=0.05)
            assert not made.pumping.done()
            assert await made.ending() == Ending.IDLE

    run(test())


@pytest.mark.parametrize("most_pipes", [0, 4])
def test_reader_that_reads_nothing_holds_its_sender_up(most_pipes: int) -> None:
    """Beyond the kernel's buffers the relay takes one carrier's octets and no more; later all of it arrives."""

    async def test() -> None:
        async with line(most_pipes=most_pipes, buffer_octets=30_000) as made:
            loop = asyncio.get_running_loop()
            sending = asyncio.create_task(loop.sock_sendall(made.client, bytes(2 * MIB)))
            await drop(made.remote, 2 * MIB)
            await sending
            sent, quiet_at = 0, loop.time()
            while loop.time() < quiet_at + 0.1:  # until a while passes in which nothing more is taken
                if more := fill(made.client):
                    sent, quiet_at = sent + more, loop.time()
                await asyncio.sleep(0)
            assert sent < (PIPE_OCTETS if most_pipes else COPY_OCTETS) + 500_000
            assert made.pool.in_use == (1 if most_pipes else 0)
            await loop.sock_sendall(made.remote, b"the other direction goes on")
            assert await loop.sock_recv(made.client, 100) == b"the other direction goes on"
            made.client.shutdown(socket.SHUT_WR)
            assert len(await receive_all(made.remote)) == sent

    run(test())


@pytest.mark.parametrize("moved", [0, 3 * MIB])
def test_urgent_octets_stay_in_their_place(moved: int) -> None:
    """splice stops before them; neither they nor what follows, nor the end of the stream, may be lost or spun upon."""

    async def test() -> None:
        async with line() as made:
            loop = asyncio.get_running_loop()
            sending = asyncio.create_task(loop.sock_sendall(made.client, bytes(moved)))
            await drop(made.remote, moved)
            await sending
            for part in (b"one", b"two"):
                made.client.send(part)
                made.client.send(b"!", socket.MSG_OOB)
                assert await received(made.remote, len(part) + 1) == part + b"!"
            made.client.send(b"three")
            made.client.send(b"!", socket.MSG_OOB)
            made.client.send(b"four")
            made.client.shutdown(socket.SHUT_WR)
            assert await receive_all(made.remote) == b"three!four"

    run(test())


def test_reader_that_pauses_is_not_taken_for_dead() -> None:
    """detect_dead_peer makes the kernel give up a window that stays closed; a stream's may."""

    async def test() -> None:
        (client, inside), (outside, remote) = pair(), pair()
        for sock in (inside, outside):
            detect_dead_peer(sock, 3)
        pumping = asyncio.create_task(Pumps(PipePool(0)).pump(inside, outside, early=b"", idle_s=60, octets=Octets()))
        user_timeouts = [1]
        while any(user_timeouts):
            await asyncio.sleep(0)
            user_timeouts = [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for each in (inside, outside)]
        assert inside.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        pumping.cancel()
        await asyncio.wait([pumping])
        client.close()
        remote.close()

    run(test())


def test_stream_that_finds_no_pipe_left_goes_on_with_copies() -> None:
    async def test() -> None:
        async with line(most_pipes=1, buffer_octets=30_000) as stalled, line(shared=stalled.pool) as running:
            sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(stalled.client, bytes(4 * MIB)))
            await drop(stalled.remote, MIB + 100_000)
            await until(lambda: stalled.pool.in_use == 1)
            await both_ways(running, 3 * MIB, 3 * MIB, 1)
            assert stalled.pool.in_use == stalled.pool.made == 1
            await drop(stalled.remote, 3 * MIB - 100_000)
            await sending
            await until(lambda: stalled.pool.in_use == 0)

    run(test())


@pytest.mark.parametrize("moved", [0, 3 * MIB])
def test_cancelled_pump_gives_everything_back(moved: int) -> None:
    """A stalled one too, whose pipe holds octets: it is closed with them."""

    async def test() -> None:
        before = descriptors()
        async with line(buffer_octets=30_000) as made:
            loop = asyncio.get_running_loop()
            sending = asyncio.create_task(loop.sock_sendall(made.client, bytes(moved + 3 * MIB)))
            await drop(made.remote, moved)
            await until(lambda: made.octets.to_remote > moved and (not moved or made.pool.in_use == 1))
            made.pumping.cancel()
            await asyncio.wait([made.pumping, sending])
            assert made.pumping.cancelled()
            assert isinstance(sending.exception(), ConnectionResetError | BrokenPipeError)
            assert made.pool.made == 0
            assert descriptors() == before + 2
            with pytest.raises(ConnectionResetError):
                await receive_all(made.remote)

    run(test())


def test_busy_stream_does_not_starve_the_loop() -> None:
    """Between two turns of anybody else a stream moves a bounded number of octets."""

    async def test() -> None:
        async with line() as made:
            sending = asyncio.create_task(send_random(made.client, 30 * MIB, 1))
            receiving = asyncio.create_task(receive_slowly(made.remote, 1))
            most = before = 0
            while not receiving.done():
                await asyncio.sleep(0)
                most, before = max(most, made.octets.to_remote - before), made.octets.to_remote
            assert await sending == await receiving
            assert 0 < most <= 2 * PIPE_OCTETS

    run(test())


@pytest.mark.parametrize(
    ("number", "of_client", "of_remote"),
    [
        (errno.ECONNRESET, Ending.CLIENT_RESET, Ending.REMOTE_RESET),
        (errno.EPIPE, Ending.CLIENT_RESET, Ending.REMOTE_RESET),
        (errno.ETIMEDOUT, Ending.CLIENT_DEAD, Ending.REMOTE_DEAD),
        (errno.EHOSTUNREACH, Ending.CLIENT_DEAD, Ending.REMOTE_DEAD),
    ],
)
def test_endings_tell_the_dead_from_those_that_reset(number: int, of_client: Ending, of_remote: Ending) -> None:
    class Failing(socket.socket):
        def recv_into(self, *_: object) -> int:
            raise OSError(number, "as the kernel says")

    def failing(sock: socket.socket) -> socket.socket:
        return Failing(fileno=sock.detach())

    async def ending(client_fails: bool) -> Ending:
        (client, inside), (outside, remote) = pair(), pair()
        pool = PipePool(0)
        sides = (failing(inside), outside) if client_fails else (inside, failing(outside))
        (client if client_fails else remote).send(b"so that it is read")
        try:
            return await Pumps(pool).pump(*sides, early=b"", idle_s=60, octets=Octets())
        finally:
            client.close()
            remote.close()

    async def test() -> None:
        assert await ending(True) == of_client
        assert await ending(False) == of_remote

    run(test())


def test_own_failure_is_raised_and_no_sides_doing() -> None:
    class Failing(socket.socket):
        def send(self, *_: object) -> int:
            raise OSError(errno.ENOBUFS, "no room")

    async def test() -> None:
        (client, inside), (outside, remote) = pair(), pair()
        client.send(b"x")
        with pytest.raises(OSError, match="no room"):
            await Pumps(PipePool(0)).pump(
                inside, Failing(fileno=outside.detach()), early=b"", idle_s=60, octets=Octets()
            )
        client.close()
        remote.close()

    run(test())
