"""What can go wrong with a measurement."""

from __future__ import annotations


class BenchmarkError(Exception):
    """The bench cannot measure at all: said in one line."""


class Absent(Exception):
    """A relay cannot be measured here, or not this way; why."""
