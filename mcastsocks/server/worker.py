"""Which of a relay's processes this is, and what it has in common with the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mcastsocks.planes.interface import ALONE, Claims
from mcastsocks.tables.ledger import Ledger, OwnLedger

if TYPE_CHECKING:
    from mcastsocks.server.auth.throttle import Failures


@dataclass(frozen=True, slots=True)
class Worker:
    """One of `of`, counted from 0; by itself the whole relay."""

    index: int = 0
    of: int = 1
    ledger: Ledger = field(default_factory=OwnLedger)
    claims: Claims = ALONE
    throttle: Failures | None = None

    def part_of(self, most: int) -> int:
        """Its part of what costs the host something, and that each worker has for itself: 1 at least."""
        return max(1, most // self.of)
