"""The ledger of a worker: it counts what all workers hold, see server.shares."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from mcastsocks.server.shares import Shares
from mcastsocks.tables.tally import Counts, CountsByAccount


class SharedTally:
    """See tables.tally.Tally."""

    def __init__(self, shares: Shares, worker: int, *name: str) -> None:
        self._shares, self._worker, self._name = shares, worker, name
        self._parent = shares.name(*name)

    @property
    def total(self) -> int:
        return self._shares.count(self._parent)

    def __getitem__(self, key: object) -> int:
        return self._shares.count(self._shares.name(*self._name, key))

    def __len__(self) -> int:
        return self._shares.under(self._parent)

    def add(self, key: object) -> None:
        self._shares.add(self._worker, self._shares.name(*self._name, key), self._parent)

    def remove(self, key: object) -> None:
        """Raises KeyError for a key that this worker has not counted."""
        self._shares.remove(self._worker, self._shares.name(*self._name, key))


class SharedTallies:
    """See tables.tally.Tallies."""

    def __init__(self, shares: Shares, worker: int, name: str) -> None:
        self._shares, self._worker, self._name = shares, worker, name

    def count(self, account: object, key: object) -> int:
        return self._shares.count(self._shares.name(self._name, account, key))

    def different(self, account: object) -> int:
        return self._shares.under(self._shares.name(self._name, account))

    def add(self, account: object, key: object) -> None:
        self._shares.add(
            self._worker, self._shares.name(self._name, account, key), self._shares.name(self._name, account)
        )

    def remove(self, account: object, key: object) -> None:
        """Raises KeyError for what this worker has not counted."""
        self._shares.remove(self._worker, self._shares.name(self._name, account, key))


class SharedClaim:
    """See planes.interface.Claim."""

    def __init__(self, shares: Shares, worker: int, name: bytes) -> None:
        self._shares, self._worker, self._name = shares, worker, name
        self._row = shares.add(worker, name)

    @property
    def is_ours(self) -> bool:
        return self._shares.leader_at(self._row) == self._worker

    def close(self) -> None:
        self._shares.remove(self._worker, self._name)


class SharedLedger:
    """See tables.ledger.Ledger, and planes.interface.Claims."""

    def __init__(self, shares: Shares, worker: int) -> None:
        self._shares, self._worker = shares, worker

    def tally(self, name: str) -> Counts[Any]:
        return SharedTally(self._shares, self._worker, name)

    def tallies(self, name: str) -> CountsByAccount[Any, Any]:
        return SharedTallies(self._shares, self._worker, name)

    def turn(self) -> AbstractContextManager[object]:
        return self._shares

    def next_session(self) -> int:
        return self._shares.next_session()

    def claim(self, *name: object) -> SharedClaim:
        return SharedClaim(self._shares, self._worker, self._shares.name("claim", *name))

    def is_others(self, *name: object) -> bool:
        return self._shares.leader(self._shares.name("claim", *name)) not in (None, self._worker)
