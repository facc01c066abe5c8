"""A batch as flows: neighbours that are alike in all that says where they go, so that one of them is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch.layouts import Ints, Words

ENOUGH_FOR_FLOWS = 20
"""Fewer at once cost less one by one: flows have to be found first."""

FEW = 8
"""The same for ordinary datagrams between others, in a batch whose flows are found."""


class Flows(NamedTuple):
    """For each flow its first datagram, the one behind its last, and its octets in `names`; none for a datagram that
    is to be looked at by itself.
    """

    starts: list[int]
    ends: list[int]
    names: list[bytes]


class Table(Protocol):
    """Rows that are given up all at once."""

    @property
    def is_full(self) -> bool: ...

    def clear(self) -> None: ...


def flows_of(words: Words, plain: NDArray[np.bool_]) -> Flows:
    """`words` are what the datagrams of a flow have in common; only `plain` ones make flows."""
    begins = np.ones(len(words), np.bool_)
    behind = begins[1:]
    np.not_equal(words[1:, 0], words[:-1, 0], out=behind)
    for word in range(1, words.shape[1]):
        behind |= words[1:, word] != words[:-1, word]
    begins |= ~plain
    (first,) = begins.nonzero()
    starts, octets, width = first.tolist(), words[first].tobytes(), words.shape[1] * words.itemsize
    names = [octets[at : at + width] for at in range(0, len(octets), width)]
    if np.count_nonzero(plain) < len(plain):
        names = [name if is_plain else b"" for name, is_plain in zip(names, plain[first].tolist(), strict=True)]
    return Flows(starts, [*starts[1:], len(words)], names)


def sort_out(
    flows: Flows,
    table: Table,
    find: Callable[[int, bytes], int],
    many: Callable[[int, int, Ints], None],
    one: Callable[[int], None],
) -> None:
    """In order: ordinary neighbours at once, the others one by one.

    `find` gives the row for a datagram and its flow's name; 0 for what is not ordinary. `many` takes a range and the
    rows, `one` an index, and after that the same flow may have another row. No row is looked up before what comes
    earlier and is not ordinary has been dealt with, or kept while the table is cleared.
    """
    rows: list[int] = []
    counts: list[int] = []
    known: dict[bytes, int] = {}
    begun = 0

    def pass_on(end: int) -> None:
        nonlocal begun
        if end - begun < FEW and (begun or end < flows.ends[-1]):
            for index in range(begun, end):
                one(index)
        elif rows:
            many(begun, end, np.array(rows, np.int64).repeat(counts))
        rows.clear()
        counts.clear()
        begun = end

    for start, end, name in zip(*flows, strict=True):
        row = known.get(name, 0)
        if not row:
            if table.is_full:
                pass_on(start)
                table.clear()
                known.clear()
            row = find(start, name)
            if name and row:
                known[name] = row
        if row:
            rows.append(row)
            counts.append(end - start)
            continue
        pass_on(start)
        for index in range(start, end):
            one(index)
        known.clear()
        begun = end
    pass_on(flows.ends[-1])
