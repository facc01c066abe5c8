"""The search for the highest rate without loss, against relays that are only a number."""

from __future__ import annotations

import pytest

from benchmarks import search
from benchmarks.load import FLOOD, Outcome
from benchmarks.paths import Case, Path

_FLOOD_PER_S = 400_000.0


class Relay:
    """Loses what is above `limit_per_s`; the generator keeps pace up to `generator_per_s`. `hiccups`: loses anyway."""

    def __init__(self, limit_per_s: float, generator_per_s: float = _FLOOD_PER_S, hiccups: int = 0) -> None:
        self.limit_per_s, self.generator_per_s, self.hiccups = limit_per_s, generator_per_s, hiccups
        self.loads: list[float] = []

    def load(self, path: Path, case: Case, rate_per_s: float, seconds: float) -> Outcome:
        self.loads.append(rate_per_s)
        sent = min(rate_per_s, self.generator_per_s) if rate_per_s != FLOOD else self.generator_per_s
        received = min(sent, self.limit_per_s)
        if rate_per_s != FLOOD and self.hiccups:
            self.hiccups, received = self.hiccups - 1, received - 1000
        return Outcome(rate_per_s, round(sent), round(received), 0, 1.0, 1.0, 0, False, 0.0, 0.0)


def _search(relay: Relay, monkeypatch: pytest.MonkeyPatch, tries: int = 1) -> search.Found:
    monkeypatch.setattr(search, "load", relay.load)
    return search.loss_free_rate(_NO_PATH, Case(), steps=8, step_s=1.0, tries=tries)


_NO_PATH: Path = None  # type: ignore[assignment]  # nothing is sent


@pytest.mark.parametrize("limit", [5_000.0, 90_000.0, 399_000.0])
def test_limit_is_found_from_below(limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _search(Relay(limit), monkeypatch)
    assert 0.95 * limit <= found.per_s <= limit
    assert not found.bench


def test_flood_without_loss_is_the_limit_of_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    relay = Relay(1e9)
    found = _search(relay, monkeypatch)
    assert (found.per_s, found.bench) == (_FLOOD_PER_S, True)
    assert relay.loads == [FLOOD]


def test_moment_of_noise_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _search(Relay(90_000, hiccups=1), monkeypatch, tries=2).per_s >= 0.95 * 90_000


def test_relay_that_always_loses_has_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _search(Relay(90_000, hiccups=100), monkeypatch, tries=2).per_s == 0


def test_loads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    relay = Relay(90_000, hiccups=100)
    _search(relay, monkeypatch, tries=2)
    assert len(relay.loads) <= 1 + 8 * 2
