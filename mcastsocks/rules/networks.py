"""Networks that addresses are looked for in: what ipaddress does, in a tenth of the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mcastsocks.address import IPAddress
from mcastsocks.rules.model import IPNetwork


class Networks:
    """Iterated over, it is what it was made of."""

    __slots__ = ("_listed", "_masked")

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        self._listed = tuple(networks)
        self._masked: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for network in self._listed:
            self._masked[network.version].append((int(network.netmask), int(network.network_address)))

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        for mask, first in self._masked[address.version]:  # noqa: SIM110  any() over a generator takes twice as long
            if number & mask == first:
                return True
        return False

    def of(self, address: IPAddress) -> list[IPNetwork]:
        """Those that an address lies in."""
        return [network for network in self._listed if address in network]

    def __iter__(self) -> Iterator[IPNetwork]:
        return iter(self._listed)
