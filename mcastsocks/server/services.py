"""What every session of a relay needs, made once at start."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcastsocks.address import IPAddress
from mcastsocks.planes.interface import Interface, Plane
from mcastsocks.rules.decide import Ruleset, Verdict
from mcastsocks.rules.users import Users
from mcastsocks.server.auth.userpass import PasswordCheck
from mcastsocks.server.config import Config
from mcastsocks.server.connections import Connections
from mcastsocks.server.frames import Channels
from mcastsocks.server.records import Records
from mcastsocks.server.resolver import Resolver
from mcastsocks.server.streams.pump import Pumps
from mcastsocks.server.upstream import Upstream
from mcastsocks.server.worker import Worker
from mcastsocks.tables.associations import AssociationTable
from mcastsocks.tables.ports import DoorPorts

if TYPE_CHECKING:
    from mcastsocks.server.associate import UdpAssociate


@dataclass(frozen=True, slots=True)
class Services:
    """`outsides` are those there are now, the default first; `associates` the UDP ASSOCIATEs by number. Whoever holds
    `turn` answers requests: one channel at a time, and the event loop in between, so that neither datagrams nor other
    channels wait for a busy one.
    """

    config: Config
    users: Users
    rules: Ruleset
    table: AssociationTable
    plane: Plane
    passwords: PasswordCheck
    resolver: Resolver
    records: Records
    connections: Connections
    channels: Channels
    outsides: dict[str, Interface]
    ports: DoorPorts
    associates: dict[int, UdpAssociate]
    pumps: Pumps
    upstreams: Mapping[str, Upstream]
    turn: asyncio.Lock
    worker: Worker

    def speaks(self, address: IPAddress, verdict: Verdict) -> bool:
        """Whether the rule's way out has that IP version; what an upstream speaks, it has to know itself."""
        return bool(verdict.upstream) or self.outsides[verdict.via].address(address.version) is not None

    def interface_of(self, outside: Interface) -> int | None:
        """What its sockets have to be bound to; None: with one way out the routing table decides."""
        return outside.index if len(self.outsides) > 1 else None
