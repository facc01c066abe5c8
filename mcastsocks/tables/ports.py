"""Which of a range of UDP ports each UDP ASSOCIATE uses: nothing in its datagrams names it (RFC 1928 §7).

Clients that have announced their endpoint share a port, as their datagrams tell them apart. One that has not is known
by its address alone until its first datagram, so it needs a port that no other such client of that address has.
"""

from __future__ import annotations

from collections.abc import Iterator

from mcastsocks.address import IPAddress, SockAddr

_Use = tuple[IPAddress, int, SockAddr]  # our own address and port; the client, port 0 while it is unknown


class DoorPorts:
    """Of all our addresses. What is taken is given back with the association."""

    def __init__(self, ports: range) -> None:
        self._ports = ports
        self._taken: set[_Use] = set()

    def free(self, inside: IPAddress, client: SockAddr) -> Iterator[int]:
        """The ports on which this client could be told from all others, lowest first."""
        return (port for port in self._ports if (inside, port, client) not in self._taken)

    def take(self, inside: IPAddress, port: int, client: SockAddr) -> None:
        self._taken.add((inside, port, client))

    def give_back(self, inside: IPAddress, port: int, client: SockAddr) -> None:
        self._taken.remove((inside, port, client))
