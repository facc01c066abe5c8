"""Counts by key that forget a key when its count is back at zero."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Account = TypeVar("_Account", bound=Hashable)
_Counted = TypeVar("_Counted", bound=Hashable, contravariant=True)
_Holder = TypeVar("_Holder", bound=Hashable, contravariant=True)


class Counts(Protocol[_Counted]):
    """A Tally, or what looks like one and counts what several processes hold."""

    @property
    def total(self) -> int:
        """Of all keys together."""

    def __getitem__(self, key: _Counted) -> int: ...
    def __len__(self) -> int: ...
    def add(self, key: _Counted) -> None: ...
    def remove(self, key: _Counted) -> None: ...


class CountsByAccount(Protocol[_Holder, _Counted]):
    """The same for Tallies."""

    def count(self, account: _Holder, key: _Counted) -> int: ...
    def different(self, account: _Holder) -> int: ...
    def add(self, account: _Holder, key: _Counted) -> None: ...
    def remove(self, account: _Holder, key: _Counted) -> None: ...


class Tally(Generic[_Key]):
    def __init__(self) -> None:
        self._counts: dict[_Key, int] = {}
        self.total = 0

    def __getitem__(self, key: _Key) -> int:
        return self._counts.get(key, 0)

    def __contains__(self, key: _Key) -> bool:
        return key in self._counts

    def __len__(self) -> int:
        return len(self._counts)

    def __iter__(self) -> Iterator[_Key]:
        return iter(self._counts)

    def add(self, key: _Key) -> None:
        self._counts[key] = self[key] + 1
        self.total += 1

    def remove(self, key: _Key) -> None:
        """Raises KeyError for a key that is not counted."""
        if self._counts[key] == 1:
            del self._counts[key]
        else:
            self._counts[key] -= 1
        self.total -= 1


class Tallies(Generic[_Account, _Key]):
    """A tally for each account that has anything counted."""

    def __init__(self) -> None:
        self._of: dict[_Account, Tally[_Key]] = {}

    def count(self, account: _Account, key: _Key) -> int:
        return self._of[account][key] if account in self._of else 0

    def different(self, account: _Account) -> int:
        """How many keys it has."""
        return len(self._of.get(account, ()))

    def add(self, account: _Account, key: _Key) -> None:
        self._of.setdefault(account, Tally()).add(key)

    def remove(self, account: _Account, key: _Key) -> None:
        """Raises KeyError for what is not counted."""
        tally = self._of[account]
        tally.remove(key)
        if not tally:
            del self._of[account]
