"""Which association a datagram from outside belongs to, on one outside socket."""

from __future__ import annotations


class RemoteIndex:
    """The remotes that one client's associations expect datagrams from.

    Only the address of a remote must fit (mcast §4.5). Between several associations the exact port wins, then the
    oldest without a port, then the oldest of that address.
    """

    __slots__ = ("_by_address", "_exact")

    def __init__(self) -> None:
        self._exact: dict[tuple[str, int], tuple[int, ...]] = {}  # of one, nearly always: half of what a list takes
        self._by_address: dict[str, list[int]] = {}

    def add(self, host: str, port: int, aid: int) -> None:
        self._exact[host, port] = (*self._exact.get((host, port), ()), aid)
        self._by_address.setdefault(host, []).append(aid)

    def remove(self, host: str, port: int, aid: int) -> None:
        """Raises KeyError or ValueError for what was never added."""
        exact, there = self._exact[host, port], self._by_address[host]
        there.remove(aid)
        if not there:
            del self._by_address[host]
        if exact == (aid,):
            del self._exact[host, port]
        else:
            self._exact[host, port] = tuple(each for each in exact if each != aid)

    def holds(self, host: str, port: int, aid: int) -> bool:
        return aid in self._exact.get((host, port), ())

    def exactly(self, host: str, port: int) -> int | None:
        """The AID that a datagram from there belongs to before any other."""
        aids = self._exact.get((host, port))
        return aids[0] if aids else None

    def match(self, host: str, port: int) -> int | None:
        """The AID that a datagram from host and port belongs to; None when nobody expects it."""
        aids = self._exact.get((host, port)) or self._exact.get((host, 0)) or self._by_address.get(host)
        return aids[0] if aids else None

    def __bool__(self) -> bool:
        return bool(self._by_address)
