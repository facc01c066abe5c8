"""Runs and their limits."""

from __future__ import annotations

import numpy as np
import pytest

from mcastsocks.planes.batch.runs import RunLimits, find_runs
from mcastsocks.planes.batch.spans import cut

LIMITS = RunLimits(4, 1000)
A, B = 0, 1


def runs(to: list[int], octets: list[int], largest: int = 0xFFFF, limits: RunLimits = LIMITS) -> list[tuple[int, int]]:
    found = find_runs((np.array(to),), np.array(octets), np.full(len(to), largest), limits)
    return list(zip(found.first.tolist(), found.length.tolist(), strict=True))


@pytest.mark.parametrize(
    ("to", "octets", "expected"),
    [
        ([A], [10], [(0, 1)]),
        ([A, B, A], [10, 10, 10], [(0, 1), (1, 1), (2, 1)]),
        ([A, A, B, B], [10] * 4, [(0, 2), (2, 2)]),
        ([A] * 9, [10] * 9, [(0, 4), (4, 4), (8, 1)]),
        ([A] * 3, [400] * 3, [(0, 2), (2, 1)]),
        ([A] * 2, [2000] * 2, [(0, 1), (1, 1)]),
        ([A] * 3, [0] * 3, [(0, 1), (1, 1), (2, 1)]),
        ([A] * 3, [10, 10, 7], [(0, 3)]),
        ([A] * 3, [10, 10, 11], [(0, 2), (2, 1)]),
        ([A] * 3, [10, 10, 0], [(0, 2), (2, 1)]),
        ([A, A, B], [10, 10, 7], [(0, 2), (2, 1)]),
        ([A] * 4, [10, 10, 7, 7], [(0, 2), (2, 2)]),
        ([A] * 5, [10] * 4 + [7], [(0, 4), (4, 1)]),
        ([A] * 3, [450, 450, 101], [(0, 2), (2, 1)]),
        ([A] * 3, [450, 450, 100], [(0, 3)]),
        ([A] * 5, [10, 10, 7, 10, 10], [(0, 3), (3, 2)]),
    ],
)
def test_runs(to: list[int], octets: list[int], expected: list[tuple[int, int]]) -> None:
    assert runs(to, octets) == expected


def test_nothing_larger_than_the_path_takes_runs() -> None:
    assert runs([A] * 3, [10] * 3, largest=9) == [(0, 1), (1, 1), (2, 1)]


def test_random_rows_are_covered_within_limits() -> None:
    random = np.random.default_rng(1)
    for _ in range(300):
        count = int(random.integers(1, 60))
        to, octets = random.integers(0, 2, count), random.choice([0, 5, 10, 300], count)
        position = 0
        for first, length in runs(to.tolist(), octets.tolist()):
            part = octets[first : first + length]
            assert first == position
            assert length == 1 or (length <= LIMITS.segments and part.sum() <= LIMITS.octets and part.min() > 0)
            assert len(set(to[first : first + length].tolist())) == 1
            assert set(part[:-1].tolist()) <= {int(part[0])}
            assert part[-1] <= part[0]
            position += length
        assert position == count


def test_cut_keeps_everything() -> None:
    parts = cut(np.array([7, 0, 3, 6]), np.array([3, 3, 3, 3]))
    assert parts.whole.tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert parts.offset.tolist() == [0, 3, 6, 0, 0, 0, 3]
    assert parts.length.tolist() == [3, 3, 1, 0, 3, 3, 3]
