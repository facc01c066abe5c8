"""The highest rate at which nothing is lost, found by halving."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.load import FLOOD, Outcome, load
from benchmarks.paths import Case, Path

_KEPT_PACE = 0.95
_FINE = 1.03
_FIRST, _BACK, _ON = 0.8, 0.6, 1.3


@dataclass(frozen=True, slots=True)
class Found:
    """`per_s` is 0 when no step was without loss. `bench`: the generator was the limit."""

    per_s: float
    bench: bool
    flood: Outcome


def loss_free_rate(path: Path, case: Case, *, steps: int, step_s: float, tries: int) -> Found:
    """Begin below what comes through of a flood; at most so many steps.

    A step that fell behind is none that passed: the buffers of its sockets hold thousands of datagrams. One that lost
    is tried again: a neighbour that took the core for a moment is no limit of the relay. Where the generator falls
    behind, the rate that it did keep has passed, and more cannot be shown.
    """
    flood = load(path, case, FLOOD, step_s)
    if flood.kept_up:
        return Found(flood.sent_per_s, True, flood)
    rate, passed, failed, bench = flood.received_per_s * _FIRST, 0.0, 0.0, False
    for _ in range(steps):
        outcome = _least_lost(path, case, rate, step_s, tries)
        if outcome.kept_up:
            passed = max(passed, outcome.sent_per_s)
        if not outcome.kept_up or outcome.sent_per_s < _KEPT_PACE * rate:
            failed, bench = rate, outcome.kept_up
        rate = _next(rate, passed, failed)
        if failed and failed / max(passed, 1) < _FINE:
            break
    return Found(passed, bench, flood)


def _next(rate: float, passed: float, failed: float) -> float:
    if not passed:
        return rate * _BACK
    return (passed * failed) ** 0.5 if failed else rate * _ON


def _least_lost(path: Path, case: Case, rate: float, step_s: float, tries: int) -> Outcome:
    outcomes = []
    for _ in range(tries):
        outcomes.append(load(path, case, rate, step_s))
        if outcomes[-1].kept_up:
            break
    return min(outcomes, key=lambda outcome: (outcome.lost, outcome.arriving_s))
