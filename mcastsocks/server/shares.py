"""What all workers of a relay count together: one table in memory that they share.

A row for each thing that is held, with a count for each worker, so that what a dead worker held is its column and
nothing else. Rows are found by a keyed digest of their name, which no client can aim at another's. There is room for
everything that limits allow; memory is taken for what is used.

Whoever changes anything has the table's lock, which the kernel releases when its holder dies. All that such a death
could leave half done is derived from names and counts, and `forget` derives it anew.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b

from mcastsocks.errors import LocalError
from mcastsocks.server.sections import Limits

_WORD = 4
_FREE, _USED, _SESSIONS, _HEADER_WORDS = range(4)
"""Words of the table: the first free row, rows ever used, sessions so far. Row 0 means none."""

_DIGEST_OCTETS = 16
_NEXT, _PARENT, _CHILDREN, _LEADER, _COUNTS = range(_DIGEST_OCTETS // _WORD, _DIGEST_OCTETS // _WORD + 5)
"""Words of a row, behind its digest: the next in its bucket, the row that it is counted under, how many are counted
under it, the worker that was here first of those who are, from 1; then a count for each worker."""

_NAMES = 16_384
"""Remembered, with their digests: each is needed several times for one request."""


class Shares:
    """The table. Made before the workers are, which inherit it; for one thread of each."""

    def __init__(self, workers: int, rows: int) -> None:
        self._workers, self._rows = workers, rows
        self._buckets, self._stride = 1 << rows.bit_length(), _COUNTS + workers
        self._first = _HEADER_WORDS + self._buckets - self._stride  # of row 0, which is none
        octets = _WORD * (self._first + (rows + 1) * self._stride)
        self._file = os.memfd_create("mcastsocks", os.MFD_CLOEXEC)
        os.ftruncate(self._file, octets)
        self._octets = mmap.mmap(self._file, octets)
        self._words = memoryview(self._octets).cast("I")
        self._key = secrets.token_bytes(32)
        self.name = lru_cache(maxsize=_NAMES)(self._name)
        self._depth = 0

    def __enter__(self) -> Shares:
        """Nobody else changes anything until the end; again does nothing."""
        if not self._depth:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1)  # the process's: flock's would be one for all who inherit it
        self._depth += 1
        return self

    def __exit__(self, *exception: object) -> None:
        self._depth -= 1
        if not self._depth:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1)

    def __len__(self) -> int:
        """Rows in use."""
        with self:
            return sum(self._is_live(at) for _, at in self._all())

    def _name(self, *parts: object) -> bytes:
        """What a row is found by. Asked by `name`, which remembers some."""
        return blake2b(repr(parts).encode(), digest_size=_DIGEST_OCTETS, key=self._key).digest()

    def count(self, name: bytes) -> int:
        """Of all workers."""
        with self:
            return self._total(self._at(row)) if (row := self._find(name)) else 0

    def under(self, name: bytes) -> int:
        """How many different ones are counted under it."""
        with self:
            return self._words[self._at(row) + _CHILDREN] if (row := self._find(name)) else 0

    def add(self, worker: int, name: bytes, parent: bytes = b"") -> int:
        """One more, there and under its parent; the row, which stays where it is while this worker counts there."""
        with self:
            words, under = self._words, (self._find(parent) or self._open(parent, 0)) if parent else 0
            row = self._find(name) or self._open(name, under)
            at = self._at(row)
            if not words[at + _LEADER]:
                words[at + _LEADER] = worker + 1
                if under:
                    words[self._at(under) + _CHILDREN] += 1
            words[at + _COUNTS + worker] += 1
            if under:
                words[self._at(under) + _COUNTS + worker] += 1
            return row

    def remove(self, worker: int, name: bytes) -> None:
        """One less. Raises KeyError for what this worker does not count."""
        with self:
            row, words = self._find(name), self._words
            at = self._at(row)
            if not row or not words[at + _COUNTS + worker]:
                raise KeyError(name)
            words[at + _COUNTS + worker] -= 1
            if under := words[at + _PARENT]:
                words[self._at(under) + _COUNTS + worker] -= 1
            if not words[at + _COUNTS + worker] and words[at + _LEADER] == worker + 1:
                self._pass_on(at)
            if words[at + _LEADER]:
                return
            self._close(row)
            if under:
                words[self._at(under) + _CHILDREN] -= 1
                if not self._is_live(self._at(under)):
                    self._close(under)

    def leader(self, name: bytes) -> int | None:
        """The worker that was first of those who count there."""
        with self:
            return self.leader_at(row) if (row := self._find(name)) else None

    def leader_at(self, row: int) -> int | None:
        """The same without the lock, for who counts there."""
        return self._words[self._at(row) + _LEADER] - 1 if self._words[self._at(row) + _LEADER] else None

    def next_session(self) -> int:
        with self:
            number = self._words[_SESSIONS] = self._words[_SESSIONS] % 0xFFFF_FFFF + 1
            return number

    def forget(self, worker: int) -> None:
        """It is dead, and holds nothing any more. What it may have been in the middle of is put in order."""
        with self:
            words = self._words
            for row, at in self._all():
                words[self._bucket(self._name_of(row))] = 0
                words[at + _COUNTS + worker] = words[at + _CHILDREN] = 0
            for _, at in self._all():
                if self._total(at) and (under := words[at + _PARENT]):
                    words[self._at(under) + _CHILDREN] += 1
            words[_FREE] = 0
            for row, at in self._all():
                if not words[at + _LEADER] or not words[at + _COUNTS + words[at + _LEADER] - 1]:
                    self._pass_on(at)
                if self._is_live(at):
                    self._link(row, self._bucket(self._name_of(row)))
                else:
                    self._link(row, _FREE)

    def _all(self) -> Iterator[tuple[int, int]]:
        return ((row, self._at(row)) for row in range(1, min(self._words[_USED], self._rows) + 1))

    def _at(self, row: int) -> int:
        return self._first + row * self._stride

    def _bucket(self, name: bytes) -> int:
        return _HEADER_WORDS + int.from_bytes(name[:8]) % self._buckets

    def _name_of(self, row: int) -> bytes:
        begin = _WORD * self._at(row)
        return self._octets[begin : begin + _DIGEST_OCTETS]

    def _total(self, at: int) -> int:
        return sum(self._words[at + _COUNTS : at + self._stride])

    def _is_live(self, at: int) -> bool:
        return bool(self._words[at + _CHILDREN] or self._total(at))

    def _find(self, name: bytes) -> int:
        row = self._words[self._bucket(name)]
        while row and self._name_of(row) != name:
            row = self._words[self._at(row) + _NEXT]
        return row

    def _open(self, name: bytes, under: int) -> int:
        """A new row without a count. Raises LocalError when there is none left, which limits prevent."""
        words = self._words
        if row := words[_FREE]:
            words[_FREE] = words[self._at(row) + _NEXT]
        else:
            if words[_USED] >= self._rows:
                raise LocalError("every row that workers share is in use")
            row = words[_USED] = words[_USED] + 1
        at = self._at(row)
        words[at + _CHILDREN] = words[at + _LEADER] = 0
        words[at + _PARENT] = under
        self._octets[_WORD * at : _WORD * at + _DIGEST_OCTETS] = name
        self._link(row, self._bucket(name))
        return row

    def _close(self, row: int) -> None:
        words, link = self._words, self._bucket(self._name_of(row))
        while words[link] != row:
            link = self._at(words[link]) + _NEXT
        words[link] = words[self._at(row) + _NEXT]
        self._link(row, _FREE)

    def _link(self, row: int, head: int) -> None:
        self._words[self._at(row) + _NEXT], self._words[head] = self._words[head], row

    def _pass_on(self, at: int) -> None:
        """To the next who counts there, if anybody does."""
        counts = self._words[at + _COUNTS : at + self._stride]
        self._words[at + _LEADER] = next((worker for worker, count in enumerate(counts, 1) if count), 0)


def rows_for(limits: Limits, workers: int) -> int:
    """As many as these limits let there be, and more: connections are also counted while they are being refused."""
    connections = workers * (2 * limits.connections + 1024)
    return 2 * connections + 8 * limits.associations + 4 * limits.groups + 64
