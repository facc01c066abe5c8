"""How many sockets a plane may hold."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable


class Quota:
    """Counts the sockets that are opened and closed by it; `held` never passes `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def open(
        self, opens: Callable[[], socket.socket], prepare: Callable[[socket.socket], None] | None = None
    ) -> socket.socket:
        """One more, and what has to be set on it. Raises OSError (EMFILE when there are enough); nothing stays open."""
        if self.held >= self._most:
            raise OSError(errno.EMFILE, f"the relay is full: {self._most} UDP sockets")
        sock = opens()
        self.held += 1
        try:
            if prepare is not None:
                prepare(sock)
        except OSError:
            self.close(sock)
            raise
        return sock

    def close(self, sock: socket.socket) -> None:
        sock.close()
        self.held -= 1
