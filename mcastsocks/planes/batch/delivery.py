"""Giving messages to the kernel, and what became of each."""

from __future__ import annotations

import ctypes
import errno
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch import libc
from mcastsocks.planes.batch.layouts import MMSGHDR, Ints
from mcastsocks.planes.batch.offload import REFUSALS
from mcastsocks.planes.counters import Counters, reason_of

Outcomes = NDArray[np.int32]
"""Zero for what was sent, otherwise the errno."""

_OWN = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.EINVAL})
"""Errors that are never left over from an earlier datagram."""


class Delivery:
    """Messages sent from one descriptor, in order."""

    def __init__(self) -> None:
        self._send = libc.calls().send

    def push(self, fd: int, messages: int, outcomes: Outcomes, counts: Ints | None = None) -> int:
        """Send len(outcomes) messages that lie at an address; how many were dealt with.

        That is all of them, unless one of several datagrams, by `counts`, is refused for being that: then those
        before it, and its outcome says why. A full socket buffer (EAGAIN) ends it for the rest.
        """
        total, done = len(outcomes), 0
        while done < total:
            done += max(self._send(fd, messages + done * MMSGHDR.itemsize, total - done, libc.MSG_DONTWAIT), 0)
            if done == total:
                break
            why = self._try_again(fd, messages + done * MMSGHDR.itemsize)
            if why == errno.EAGAIN:
                outcomes[done:] = why
                return total
            outcomes[done] = why
            if why in REFUSALS and counts is not None and counts[done] > 1:
                return done
            done += 1
        return done

    def _try_again(self, fd: int, message: int) -> int:
        """The first that was not sent, alone: its own errno, or zero.

        The kernel reports an ICMP error of one destination on the next send to any (IP_RECVERR), and drops the errno
        when some messages were sent before: what comes now is this message's own.
        """
        for _ in range(2):
            if self._send(fd, message, 1, libc.MSG_DONTWAIT) > 0:
                return 0
            if ctypes.get_errno() in _OWN:
                break
        return ctypes.get_errno()


class Dropping(Protocol):
    """Who knows whose the rows are."""

    def count_dropped(self, rows: Ints) -> None: ...


def count_failures(whose: Dropping, counters: Counters, rows: Ints, errnos: Outcomes) -> None:
    """Datagrams that the kernel did not take: an element for each."""
    whose.count_dropped(rows)
    counters.drops.update(reason_of(OSError(number, "")) for number in errnos.tolist())
