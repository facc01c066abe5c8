"""What a supervisor and one of its workers tell each other: two pipes, and no more than a line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MOST_OCTETS = 1 << 16
"""What a pipe holds; nobody reads while it is written."""


@dataclass(frozen=True, slots=True)
class Report:
    """A worker serves, in the words that explain it, or why it could not start."""

    serves: str = ""
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Post:
    """A worker's end. `lifeline` becomes readable when the supervisor is gone.

    `predecessor` says how the one ended whose place it takes, if any did.
    """

    lifeline: int
    reports: int
    predecessor: str | None = None

    def send(self, report: Report) -> None:
        text = json.dumps([report.serves, list(report.problems)])
        os.write(self.reports, text.encode()[:_MOST_OCTETS])


def receive(reports: int) -> Report | None:
    """What a worker sent; None when it has ended without a word. Waits for one of these."""
    octets = os.read(reports, _MOST_OCTETS)
    if not octets:
        return None
    try:
        told: Any = json.loads(octets)
    except ValueError:  # so many problems that they were cut short
        return Report(problems=["more problems than can be told"])
    return Report(told[0], told[1])
