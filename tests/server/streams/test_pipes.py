"""Pipes are few, empty when they change hands, and copies are there when the kernel grants none."""

from __future__ import annotations

import errno
import fcntl
import socket

import pytest

from mcastsocks.server.streams.carriers import Copy
from mcastsocks.server.streams.pipes import PipePool
from tests.server.streams.pairs import descriptors, pair


@pytest.fixture
def ends() -> tuple[socket.socket, socket.socket]:
    return pair()


def test_pool_gives_no_more_than_its_most() -> None:
    pool = PipePool(2)
    first, second = pool.take(), pool.take()
    assert first is not None
    assert second is not None
    assert (pool.take(), pool.in_use) == (None, 2)
    pool.give_back(first)
    assert pool.take() is first
    pool.give_back(first)
    pool.give_back(second)
    assert (pool.made, pool.in_use) == (2, 0)
    pool.close()


def test_pipe_with_octets_left_is_not_given_out_again() -> None:
    before = descriptors()
    near, far = pair()
    pool = PipePool(1)
    pipe = pool.take()
    assert pipe is not None
    near.send(b"somebody's octets")
    far.setblocking(True)
    assert pipe.fill(far) == pipe.held > 0
    pool.give_back(pipe)
    near.close()
    far.close()
    assert (pool.made, descriptors()) == (0, before)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EMFILE])
def test_no_pipe_is_had_where_the_kernel_grants_none(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """EPERM: this user's pipes have all their pages (pipe(7)). It may grant one later."""

    def refuse(*_: object) -> int:
        raise OSError(number, "no")

    before = descriptors()
    pool = PipePool(2)
    with monkeypatch.context() as kernel:
        kernel.setattr(fcntl, "fcntl", refuse)
        assert (pool.take(), pool.made) == (None, 0)
    assert descriptors() == before
    assert pool.take() is not None


def test_copy_keeps_what_was_not_taken_apart_from_the_shared_buffer() -> None:
    near, far = pair(buffer_octets=20_000)
    shared = memoryview(bytearray(1 << 16))
    stalled, other = Copy(shared), Copy(shared)
    while stalled.held == 0:
        near.send(b"a" * 30_000)
        stalled.fill(far)
        stalled.drain(far)
    shared[:] = bytes(1 << 16)
    rest = stalled.held
    near.setblocking(True)
    assert rest > 0
    assert other.held == 0
    near.close()
    far.close()
