"""What becomes of each message, with a kernel that answers as it is told."""

from __future__ import annotations

import ctypes
import errno

import numpy as np
import pytest

from mcastsocks.planes.batch.delivery import Delivery
from mcastsocks.planes.batch.layouts import MMSGHDR
from mcastsocks.planes.batch.libc import Calls

BASE = 4096


class Kernel:
    """`answers` are how many messages were sent, or a negative errno, in the order of the calls."""

    def __init__(self, *answers: int) -> None:
        self._answers = iter(answers)
        self.asked: list[tuple[int, int]] = []

    def send(self, fd: int, messages: int, count: int, flags: int) -> int:
        self.asked.append(((messages - BASE) // MMSGHDR.itemsize, count))
        answer = next(self._answers)
        if answer < 0:
            ctypes.set_errno(-answer)
            return -1
        return answer


def push(monkeypatch: pytest.MonkeyPatch, kernel: Kernel, counts: list[int]) -> tuple[int, list[int]]:
    monkeypatch.setattr("mcastsocks.planes.batch.libc.calls", lambda: Calls(kernel.send, kernel.send))
    outcomes = np.zeros(len(counts), np.int32)
    done = Delivery().push(3, BASE, outcomes, np.array(counts))
    return done, outcomes.tolist()


def test_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(4)
    assert push(monkeypatch, kernel, [1] * 4) == (4, [0] * 4)
    assert kernel.asked == [(0, 4)]


def test_rest_is_sent_after_a_partial_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stopped it: the kernel does not say."""
    kernel = Kernel(2, 1, 3)
    assert push(monkeypatch, kernel, [1] * 6) == (6, [0] * 6)
    assert kernel.asked == [(0, 6), (2, 1), (3, 3)]


def test_error_of_the_first_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(-errno.ECONNREFUSED, 1, 2)
    assert push(monkeypatch, kernel, [1] * 3) == (3, [0] * 3)


def test_error_that_stays_is_that_messages_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stays = [-errno.ENETUNREACH] * 2
    kernel = Kernel(1, *stays, 1)
    assert push(monkeypatch, kernel, [1] * 3) == (3, [0, errno.ENETUNREACH, 0])


def test_full_buffer_ends_it_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(1, -errno.EAGAIN)
    assert push(monkeypatch, kernel, [1] * 4) == (4, [0] + [errno.EAGAIN] * 3)


def test_full_queue_of_one_interface_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(-errno.ENOBUFS, -errno.ENOBUFS, 2)
    assert push(monkeypatch, kernel, [1] * 3) == (3, [errno.ENOBUFS, 0, 0])


@pytest.mark.parametrize("why", [errno.EINVAL, errno.EMSGSIZE, errno.EIO])
def test_refused_run_is_left_to_the_caller(monkeypatch: pytest.MonkeyPatch, why: int) -> None:
    kernel = Kernel(1, *[-why] * 2)
    assert push(monkeypatch, kernel, [1, 5, 1]) == (1, [0, why, 0])


def test_single_datagram_that_is_too_large_is_not_a_refused_run(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(1, *[-errno.EMSGSIZE] * 2, 1)
    assert push(monkeypatch, kernel, [5, 1, 5]) == (3, [0, errno.EMSGSIZE, 0])
