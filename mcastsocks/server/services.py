"""What every session of a relay needs, made once at start."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mcastsocks.planes.interface import Plane
from mcastsocks.rules.decide import Ruleset
from mcastsocks.rules.users import Users
from mcastsocks.server.auth.userpass import PasswordCheck
from mcastsocks.server.config import Config
from mcastsocks.server.connections import Connections
from mcastsocks.server.frames import Channels
from mcastsocks.server.records import Records
from mcastsocks.server.resolver import Resolver
from mcastsocks.tables.associations import AssociationTable


@dataclass(frozen=True, slots=True)
class Services:
    """Whoever holds `turn` answers requests: one channel at a time, and the event loop in between, so that neither
    datagrams nor other channels wait for a busy one.
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
    turn: asyncio.Lock
