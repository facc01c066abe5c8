"""What every plane can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from mcastsocks.address import Endpoint, IPAddress
from mcastsocks.planes.counters import Counters
from mcastsocks.tables.changes import Change, Result, Traffic


@dataclass(frozen=True, slots=True)
class Outside:
    """The interface that groups are joined on, and the addresses that the relay speaks from there."""

    name: str
    index: int
    ipv4: IPv4Address | None
    ipv6: IPv6Address | None

    def address(self, version: int) -> IPAddress | None:
        return self.ipv4 if version == 4 else self.ipv6


class Plane(Protocol):
    """One way of moving datagrams."""

    name: str

    def open_inside(self, endpoint: Endpoint, zone: int = 0) -> None:
        """Take clients' datagrams on one of our own addresses. Raises OSError; again does nothing."""

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """Do the changes in order, up to and including the first that fails: a result for each one tried."""

    def traffic(self, aid: int) -> Traffic | None:
        """What an association moved so far."""

    def counters(self) -> Counters:
        """What the plane moved and dropped so far."""

    def descriptors(self) -> int:
        """How many descriptors the plane holds."""

    def close(self) -> None:
        """Leave every group and close every socket."""
