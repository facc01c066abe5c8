"""Which of an outside's shared ports an association leaves by.

A remote's answers are told apart by its address alone (mcast §4.5), so no two clients may be seen by one remote at the
same port. Ports are numbers here, given out from the lowest; who else uses a number does not matter, as long as it is
for other remotes. A number that a client has left for a remote rests, because what that remote still sends is not the
next client's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

REST_S = 60.0
"""Longer than the answer to anything, and than most who send without being asked."""

_MOST_RESTING = 65_536
"""Remotes without clients that are remembered; with more than that, those that have rested longest are forgotten."""


@dataclass(slots=True)
class _Holding:
    number: int
    uses: int = 0


@dataclass(slots=True)
class _Remote:
    """`left` are numbers with the time that each was left at; `following` was never given out."""

    held: dict[Hashable, _Holding] = field(default_factory=dict)
    left: deque[tuple[float, int]] = field(default_factory=deque)
    following: int = 0


class SharedPorts:
    """Counts how often a client uses a number for a remote."""

    def __init__(self) -> None:
        self._remotes: dict[Hashable, _Remote] = {}
        self._resting: deque[tuple[float, Hashable]] = deque()

    def __len__(self) -> int:
        """Remotes that are remembered."""
        return len(self._remotes)

    def take(self, remote: Hashable, client: Hashable, now: float) -> int:
        """The number that this client has for this remote, or gets."""
        self._forget(now)
        found = self._remotes.get(remote)
        if found is None:
            found = self._remotes[remote] = _Remote()
        holding = found.held.get(client)
        if holding is None:
            if found.left and found.left[0][0] + REST_S <= now:
                number = found.left.popleft()[1]
            else:
                number = found.following
                found.following += 1
            holding = found.held[client] = _Holding(number)
        holding.uses += 1
        return holding.number

    def give_back(self, remote: Hashable, client: Hashable, now: float) -> None:
        """Once for each time that it was taken. Raises KeyError for more."""
        found = self._remotes[remote]
        holding = found.held[client]
        holding.uses -= 1
        if not holding.uses:
            del found.held[client]
            found.left.append((now, holding.number))
            if not found.held:
                self._resting.append((now, remote))
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Remotes that nobody has used for long. One that was used meanwhile stands behind again, or has a client."""
        resting = self._resting
        while resting and (resting[0][0] + REST_S <= now or len(resting) > _MOST_RESTING):
            since, remote = resting.popleft()
            found = self._remotes.get(remote)
            if found is not None and not found.held and found.left[-1][0] == since:
                del self._remotes[remote]
