"""Cutting whole things into parts, many at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcastsocks.planes.batch.layouts import Ints


class Parts(NamedTuple):
    """For each part: which whole it is of, where in it the part begins, how long it is."""

    whole: Ints
    offset: Ints
    length: Ints


def cut(lengths: Ints, unit: Ints) -> Parts:
    """Every length into parts of its unit (at least 1), the last one of what is left; one of zero is one part."""
    counts = np.maximum(-(-lengths // unit), 1)
    ends = counts.cumsum()
    whole = np.arange(len(lengths)).repeat(counts)
    offset = (np.arange(len(whole)) - (ends - counts)[whole]) * unit[whole]
    return Parts(whole, offset, np.minimum(unit[whole], lengths[whole] - offset))
