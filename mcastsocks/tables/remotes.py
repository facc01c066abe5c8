"""Which association a datagram from outside belongs to, on one outside socket."""

from __future__ import annotations

from typing import TypeVar

_Key = TypeVar("_Key")


class RemoteIndex:
    """The remotes that one client's associations expect datagrams from.

    Only the address of a remote must fit (mcast §4.5). Between several associations the exact port wins, then the
    oldest without a port, then the oldest of that address.
    """

    __slots__ = ("_by_address", "_exact")

    def __init__(self) -> None:
        self._exact: dict[tuple[str, int], list[int]] = {}
        self._by_address: dict[str, list[int]] = {}

    def add(self, host: str, port: int, aid: int) -> None:
        self._exact.setdefault((host, port), []).append(aid)
        self._by_address.setdefault(host, []).append(aid)

    def remove(self, host: str, port: int, aid: int) -> None:
        """Raises KeyError or ValueError for what was never added."""
        _remove(self._exact, (host, port), aid)
        _remove(self._by_address, host, aid)

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


def _remove(table: dict[_Key, list[int]], key: _Key, aid: int) -> None:
    aids = table[key]
    aids.remove(aid)
    if not aids:
        del table[key]
