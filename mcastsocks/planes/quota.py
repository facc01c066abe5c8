"""How many sockets a plane may hold."""

from __future__ import annotations

import errno


class Quota:
    """Counts descriptors; `held` never passes `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def take(self) -> None:
        """Before a socket is opened. Raises OSError (EMFILE)."""
        if self.held >= self._most:
            raise OSError(errno.EMFILE, f"the relay is full: {self._most} UDP sockets")
        self.held += 1

    def give_back(self) -> None:
        """After one was closed, or could not be opened."""
        self.held -= 1
