"""The two octet streams of a machine: what came in and was not yet understood, what is to go out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class Stream:
    """Base of both ends' machines."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._outgoing = bytearray()

    @property
    def octets_held(self) -> int:
        """What waits here, not yet understood: who reads on while an answer is owed stops when it becomes too much."""
        return len(self._received)

    def receive(self, octets: bytes) -> None:
        """Take what the peer sent; ask for events next."""
        self._received += octets

    def octets_to_send(self) -> bytes:
        """What is to be written now; it is handed out once."""
        return _emptied(self._outgoing)

    def _take(self, parse: Callable[[bytearray], tuple[_T, int] | None]) -> _T | None:
        """The next message by a parser of mcastsocks.wire; None leaves the octets for later."""
        parsed = parse(self._received)
        if parsed is None:
            return None
        message, size = parsed
        del self._received[:size]
        return message

    def _take_all(self) -> bytes:
        """What is no message of ours; handed out once, too."""
        return _emptied(self._received)


def _emptied(buffer: bytearray) -> bytes:
    octets = bytes(buffer)
    buffer.clear()
    return octets
