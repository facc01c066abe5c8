"""What a batch comes to for each of those it belongs to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch.layouts import Ints


def sums(numbers: Ints | NDArray[np.int32], octets: Ints) -> list[tuple[int, int, int]]:
    """Number, datagrams and octets, for each number that occurs; most batches have one."""
    if not len(numbers):
        return []
    if not np.count_nonzero(numbers != numbers[0]):
        return [(int(numbers[0]), len(numbers), int(octets.sum()))]
    datagrams, totals = np.bincount(numbers), np.bincount(numbers, octets)
    (found,) = datagrams.nonzero()
    return list(zip(found.tolist(), datagrams[found].tolist(), totals[found].astype(np.int64).tolist(), strict=True))
