"""What was measured: figures by case and subject, over the rounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

_NOISY_SPREAD = 0.1

HELD_UP = "held up"
"""Something else took the relay's core."""
BENCH = "bench"
"""The generator or the sink was the limit."""
DISORDERED = "disordered"
"""Datagrams of one flow overtook each other, or came twice."""
LOST = "lost"
"""Datagrams were lost where none should be."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one subject in one round, by the figure's name; the name says the unit. `notes` by figure too."""

    values: dict[str, float]
    notes: dict[str, set[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Series:
    """One figure over the rounds."""

    values: list[float] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def spread(self) -> float:
        """From the least to the most, as a part of the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    @property
    def noisy(self) -> bool:
        return self.spread > _NOISY_SPREAD or HELD_UP in self.notes

    def as_dict(self) -> dict[str, Any]:
        return {
            "values": self.values,
            "median": self.median,
            "spread": self.spread,
            "noisy": self.noisy,
            "notes": sorted(self.notes),
        }


class Table:
    """The series by case, subject and figure, and why what is missing is missing."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], dict[str, Series]] = defaultdict(dict)
        self.missing: dict[tuple[str, str], str] = {}

    def add(self, case: str, subject: str, measured: Measured) -> None:
        row = self._series[case, subject]
        for name, value in measured.values.items():
            series = row.setdefault(name, Series())
            series.values.append(value)
            series.notes |= measured.notes.get(name, set())

    def rows(self) -> Iterator[tuple[str, str, dict[str, Series]]]:
        for (case, subject), row in self._series.items():
            yield case, subject, row

    def absent(self) -> dict[str, str]:
        """Subjects that were measured nowhere, and why."""
        present = {subject for _, subject in self._series}
        return {subject: why for (_, subject), why in self.missing.items() if subject not in present}

    def as_json(self) -> dict[str, Any]:
        present = self.absent()
        return {
            "absent": present,
            "not_measured": [
                {"case": case, "subject": subject, "why": why}
                for (case, subject), why in self.missing.items()
                if subject not in present
            ],
            "results": [
                {"case": case, "subject": subject, "figures": {name: each.as_dict() for name, each in row.items()}}
                for case, subject, row in self.rows()
            ],
        }
