"""Source filters of group receivers: (S,G) and (*,G) without some S (RFC 3376 §3, RFC 3810 §4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mcastsocks.address import IPAddress


@dataclass(frozen=True, slots=True)
class SourceFilter:
    """Only these sources (`include`), or all but these."""

    include: bool
    sources: frozenset[IPAddress]

    def admits(self, source: IPAddress) -> bool:
        return (source in self.sources) == self.include

    def __str__(self) -> str:
        listed = ",".join(str(source) for source in sorted(self.sources, key=int))
        return f"only {listed}" if self.include else f"all but {listed}" if listed else "any source"


ANY_SOURCE = SourceFilter(False, frozenset())


def union(filters: Iterable[SourceFilter]) -> SourceFilter:
    """What has to come in so that every filter gets its own (RFC 3376 §3.2)."""
    filters = list(filters)
    included = frozenset[IPAddress]().union(*(each.sources for each in filters if each.include))
    excluded = [each.sources for each in filters if not each.include]
    if not excluded:
        return SourceFilter(True, included)
    return SourceFilter(False, excluded[0].intersection(*excluded[1:]) - included)
