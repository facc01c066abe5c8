"""What a batch comes to for each of those it belongs to."""

from __future__ import annotations

import numpy as np
import pytest

from mcastsocks.planes.batch.sums import sums


@pytest.mark.parametrize(
    ("numbers", "octets", "expected"),
    [
        ([], [], []),
        ([5], [7], [(5, 1, 7)]),
        ([5, 5, 5], [1, 2, 3], [(5, 3, 6)]),
        ([5, 0, 5, 9], [1, 10, 100, 0], [(0, 1, 10), (5, 2, 101), (9, 1, 0)]),
    ],
)
def test_datagrams_and_octets_by_number(
    numbers: list[int], octets: list[int], expected: list[tuple[int, int, int]]
) -> None:
    assert sums(np.array(numbers, np.int64), np.array(octets, np.int64)) == expected
