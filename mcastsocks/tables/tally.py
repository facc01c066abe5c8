"""Counts by key that forget a key when its count is back at zero."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)


class Tally(Generic[_Key]):
    def __init__(self) -> None:
        self._counts: dict[_Key, int] = {}

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

    def remove(self, key: _Key) -> None:
        """Raises KeyError for a key that is not counted."""
        if self._counts[key] == 1:
            del self._counts[key]
        else:
            self._counts[key] -= 1
