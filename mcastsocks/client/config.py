"""For which groups and TTLs a program uses the relay (mcast §5.1), and whether it asks before sending (§6)."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr

from mcastsocks.address import Endpoint, unmapped
from mcastsocks.client.url import RelayUrl
from mcastsocks.errors import NotRelayed
from mcastsocks.settings import Settings, load

_LEAST_HOPS, _MOST_HOPS = 1, 255


def _relay(value: Any) -> RelayUrl:
    if isinstance(value, RelayUrl):
        return value
    if not isinstance(value, str):
        raise ValueError("expected text in quotes, like socks5://alice@fw.example")
    return RelayUrl.parse(value)


def _groups(value: Any) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(str(value))
    except ValueError as error:
        if "host bits" in str(error):
            wanted = ip_network(str(value), strict=False)
            raise ValueError(f"the address has bits behind the prefix: expected {wanted}") from None
        raise ValueError("expected groups: an address or a network like 239.1.0.0/16 or ff15::/16") from None
    if not network.is_multicast:
        raise ValueError("expected groups: a network within 224.0.0.0/4 or ff00::/8")
    return network


def _hops(value: Any) -> tuple[int, int]:
    first, dash, last = str(value).replace(" ", "").partition("-")
    last = last if dash else first
    if not all(part.isascii() and part.isdigit() for part in (first, last)):
        raise ValueError('expected a range of hops like "2-255"')
    low, high = int(first), int(last)
    if not _LEAST_HOPS <= low <= high <= _MOST_HOPS:
        raise ValueError("expected a range from fewer to more hops, 1 to 255")
    return low, high


class ClientConfig(Settings):
    """What a program is told about its relay. Without a file: every group and TTL, and nothing is asked."""

    holds_secrets = True  # the relay's URL may have a password

    relay: Annotated[RelayUrl | None, BeforeValidator(_relay)] = None
    groups: (
        Annotated[list[Annotated[IPv4Network | IPv6Network, BeforeValidator(_groups)]], Field(min_length=1)] | None
    ) = None
    ttl: Annotated[tuple[int, int], BeforeValidator(_hops)] = (_LEAST_HOPS, _MOST_HOPS)
    confirm_sending: bool = False
    _source: str = PrivateAttr("client configuration")

    @classmethod
    def load(cls, path: Path) -> ClientConfig:
        """Raises ConfigError with a line for each problem."""
        config = load(path, cls)
        config._source = str(path)
        return config

    def place(self, key: str) -> str:
        """Where a setting stands, for what is refused because of it."""
        return f"{self._source}: {key}"

    def why_not_relayed(self, group: Endpoint, ttl: int | None = None) -> str | None:
        """None when it does; otherwise the reason in words. `ttl` is that of a sender, None for receiving."""
        if self.groups is not None:
            where = f"is not reached through the relay ({self.place('groups')})"
            if isinstance(group.host, str):
                return f"{group.host} {where}: a name is in no range, give the group's address"
            address = unmapped(group.host)
            if not any(address in network for network in self.groups):
                return f"{group.host} {where}: it is on this network"
        low, high = self.ttl
        if ttl is None or low <= ttl <= high:
            return None
        why = "so few hops stay on this network" if ttl < low else f"it carries at most {high} hops"
        return f"TTL {ttl} to {group.host} does not go through the relay ({self.place('ttl')}): {why}"

    def check(self, group: Endpoint, ttl: int | None = None) -> None:
        """Raises NotRelayed for a group or TTL that the relay is not used for."""
        if reason := self.why_not_relayed(group, ttl):
            raise NotRelayed(reason)
