"""Which neighbours in a row of datagrams go to the kernel in one piece."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcastsocks.planes.batch.layouts import Ints
from mcastsocks.planes.batch.spans import cut


class Runs(NamedTuple):
    """For each run: its first datagram, and how many there are."""

    first: Ints
    length: Ints


class RunLimits(NamedTuple):
    """What one call may carry at most: datagrams, octets."""

    segments: int
    octets: int


def find_runs(alike: tuple[Ints, ...], octets: Ints, largest: Ints, limits: RunLimits) -> Runs:
    """Runs of one size (headers included) that are alike in everything else, in order, of one datagram at least.

    `largest` is the most octets that a datagram of a run may have. Empty ones stay alone: the kernel cannot cut them.
    """
    breaks = np.ones(len(octets), np.bool_)
    behind = breaks[1:]
    np.not_equal(octets[1:], octets[:-1], out=behind)
    for each in alike:
        behind |= each[1:] != each[:-1]
    first = breaks.nonzero()[0]
    if len(first) == len(octets):
        return Runs(first, np.ones(len(first), np.int64))
    count = np.empty_like(first)  # np.diff with an end takes eight times as long
    np.subtract(first[1:], first[:-1], out=count[:-1])
    count[-1] = len(octets) - first[-1]
    size = octets[first]
    most = np.minimum(limits.segments, limits.octets // np.maximum(size, 1))
    most[(size == 0) | (size > largest[first]) | (most == 0)] = 1
    if np.count_nonzero(count > most):
        parts = cut(count, most)
        first, count = first[parts.whole] + parts.offset, parts.length
    return _with_short_ends(Runs(first, count), alike, octets, limits)


def _with_short_ends(runs: Runs, alike: tuple[Ints, ...], octets: Ints, limits: RunLimits) -> Runs:
    """The last datagram of a run may be shorter: the end of a video frame, of a file."""
    first, count = runs
    size = octets[first]
    joins = (
        (count[:-1] > 1) & (count[:-1] < limits.segments) & (count[1:] == 1) & (size[1:] < size[:-1]) & (size[1:] > 0)
    )
    joins &= count[:-1] * size[:-1] + size[1:] <= limits.octets
    for each in alike:
        joins &= each[first[1:]] == each[first[:-1]]
    if not np.count_nonzero(joins):
        return runs
    count[:-1] += joins
    stays = np.append(True, ~joins)
    return Runs(first[stays], count[stays])
