"""Which association a datagram from outside belongs to, on one outside socket."""

from __future__ import annotations

Place = tuple[str, int]
"""The host and port of a remote, as the socket module writes them; port 0: any."""


class RemoteIndex:
    """The remotes that one client's associations expect datagrams from.

    Only the address of a remote must fit (mcast §4.5). Between several associations the exact port wins, then the
    oldest without a port, then the oldest of that address.
    """

    __slots__ = ("_by_address", "_exact")

    def __init__(self) -> None:
        self._exact: dict[Place, int | tuple[int, ...]] = {}  # of one, nearly always, which needs no tuple then
        self._by_address: dict[str, list[int]] = {}

    def add(self, place: Place, aid: int) -> None:
        held = self._at(place)
        self._exact[place] = (*held, aid) if held else aid
        self._by_address.setdefault(place[0], []).append(aid)

    def remove(self, place: Place, aid: int) -> None:
        """Raises ValueError for what was never added."""
        held = self._at(place)
        if aid not in held:
            raise ValueError(f"{aid:08x} is not at {place}")
        there = self._by_address[place[0]]
        there.remove(aid)
        if not there:
            del self._by_address[place[0]]
        left = tuple(each for each in held if each != aid)
        if left:
            self._exact[place] = left
        else:
            del self._exact[place]

    def holds(self, place: Place, aid: int) -> bool:
        return aid in self._at(place)

    def exactly(self, place: Place) -> int | None:
        """The AID that a datagram from there belongs to before any other."""
        return next(iter(self._at(place)), None)

    def match(self, host: str, port: int) -> int | None:
        """The AID that a datagram from host and port belongs to; None when nobody expects it."""
        aids = self._at((host, port)) or self._at((host, 0)) or self._by_address.get(host)
        return aids[0] if aids else None

    def _at(self, place: Place) -> tuple[int, ...]:
        held = self._exact.get(place, ())
        return held if isinstance(held, tuple) else (held,)

    def __bool__(self) -> bool:
        return bool(self._by_address)
