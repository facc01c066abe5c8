"""How many TCP connections there are, in all, by user, and by address before the login."""

from __future__ import annotations

from dataclasses import dataclass

from mcastsocks.address import IPAddress, site_of
from mcastsocks.server.sections import Limits
from mcastsocks.tables.ledger import Ledger, OwnLedger
from mcastsocks.tables.tally import Counts

_BEING_REFUSED, _BEING_REFUSED_OF_ONE = 32, 4
"""Connections beyond the limits, in all and of one address, that are still told so; more are closed at once."""


class Connections:
    """Counts, and the words for what is full. `most` of this process may be below the limit set: descriptors end first.

    The limits hold for all that the ledger counts.
    """

    def __init__(self, limits: Limits, most: int, ledger: Ledger | None = None) -> None:
        ledger = ledger or OwnLedger()
        self.limits, self._most = limits, most
        self._open = 0
        self.turned_away = 0
        self.handshakes: Counts[IPAddress] = ledger.tally("handshakes")
        self.users: Counts[str] = ledger.tally("connections of users")

    def __len__(self) -> int:
        return self._open

    def turns_away(self, client: IPAddress) -> bool:
        """Close at once: there is no descriptor left even to say no, or too many wait for that from this address."""
        crowd = self.handshakes[site_of(client)] >= self.limits.handshakes_per_client + _BEING_REFUSED_OF_ONE
        if crowd or self._open >= self._most + _BEING_REFUSED:
            self.turned_away += 1
            return True
        return False

    def open(self, client: IPAddress) -> Place:
        """A connection was accepted; its place is given back with `close`."""
        self._open += 1
        site = site_of(client)
        self.handshakes.add(site)
        return Place(self, site, self._full_for(site))

    def forget(self) -> None:
        self._open -= 1

    def _full_for(self, client: IPAddress) -> str | None:
        if self._open > self._most:
            return f"the relay is full: {self._most} connections"
        if self.handshakes.total + self.users.total > self.limits.connections:
            return f"the relay is full: {self.limits.connections} connections"
        if self.handshakes[client] > self.limits.handshakes_per_client:
            return f"{client} has {self.limits.handshakes_per_client} connections that have not logged in"
        return None


@dataclass(slots=True)
class Place:
    """One connection among them. `full` is why it has to be refused, or None."""

    _all: Connections
    _client: IPAddress
    full: str | None
    _account: str | None = None

    def log_in(self, account: str) -> str | None:
        """The client is known now; why it has to be refused, or None."""
        self._all.handshakes.remove(self._client)
        self._all.users.add(account)
        self._account = account
        most = self._all.limits.connections_per_user
        return f"{account} has {most} connections, the limit for one user" if self._all.users[account] > most else None

    def close(self) -> None:
        if self._account is None:
            self._all.handshakes.remove(self._client)
        else:
            self._all.users.remove(self._account)
        self._all.forget()
