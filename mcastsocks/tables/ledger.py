"""Where everything is counted that has a limit."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from mcastsocks.tables.tally import Counts, CountsByAccount, Tallies, Tally


class Ledger(Protocol):
    """Opens tallies by name. Who asks whether there is room and then takes it, does both in one `turn`."""

    def tally(self, name: str) -> Counts[Any]:
        """Keys are plain values, which have a repr of their own."""

    def tallies(self, name: str) -> CountsByAccount[Any, Any]:
        """The same by account."""

    def turn(self) -> AbstractContextManager[object]:
        """Nobody else counts meanwhile. Short: others wait for it."""

    def next_session(self) -> int:
        """A number that no other session has."""


class OwnLedger:
    """Of a process that is the whole relay."""

    def __init__(self) -> None:
        self._turn: nullcontext[None] = nullcontext()
        self._sessions = itertools.count(1)

    def tally(self, name: str) -> Counts[Any]:
        return Tally()

    def tallies(self, name: str) -> CountsByAccount[Any, Any]:
        return Tallies()

    def turn(self) -> AbstractContextManager[object]:
        return self._turn

    def next_session(self) -> int:
        return next(self._sessions)
