"""How many TCP connections there are, in all, by user, and by address before the login."""

from __future__ import annotations

from mcastsocks.address import IPAddress
from mcastsocks.server.config import Limits
from mcastsocks.tables.tally import Tally

_BEING_REFUSED = 32
"""Connections beyond the limit that are still told so; more are closed at once."""


class Connections:
    """Counts, and the words for what is full. `most` may be below the limit set: descriptors end first."""

    def __init__(self, limits: Limits, most: int) -> None:
        self._limits, self._most = limits, most
        self._open = 0
        self._handshakes: Tally[IPAddress] = Tally()
        self._users: Tally[str] = Tally()

    def __len__(self) -> int:
        return self._open

    @property
    def overrun(self) -> bool:
        """There is no descriptor left even to say no."""
        return self._open >= self._most + _BEING_REFUSED

    def open(self, client: IPAddress) -> str | None:
        """A connection was accepted; why it has to be refused, or None."""
        self._open += 1
        self._handshakes.add(client)
        if self._open > self._most:
            return f"the relay is full: {self._most} connections"
        if self._handshakes[client] > self._limits.handshakes_per_client:
            return f"{client} has {self._limits.handshakes_per_client} connections that have not logged in"
        return None

    def log_in(self, client: IPAddress, account: str) -> str | None:
        """The client of a connection is known now; why it has to be refused, or None."""
        self._handshakes.remove(client)
        self._users.add(account)
        if self._users[account] > self._limits.connections_per_user:
            return f"{account} has {self._limits.connections_per_user} connections, the limit for one user"
        return None

    def close(self, client: IPAddress, account: str | None) -> None:
        """`account` as given to log_in, None when it never came to that."""
        self._open -= 1
        if account is None:
            self._handshakes.remove(client)
        else:
            self._users.remove(account)
