"""Medians, spreads, marks, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from benchmarks.figures import BENCH, HELD_UP, LOST, Measured, Series, Table
from benchmarks.report import show, write


def test_spread_is_from_least_to_most() -> None:
    series = Series([95.0, 100.0, 104.0])
    assert series.median == 100
    assert series.spread == 0.09
    assert not series.noisy


def test_wide_spread_is_noisy() -> None:
    assert Series([80.0, 100.0, 104.0]).noisy


def test_core_that_was_taken_is_noisy() -> None:
    assert Series([100.0, 100.0], {HELD_UP}).noisy


def _table() -> Table:
    table = Table()
    table.add("case", "ours", Measured({"rate": 2000.0}, {"rate": {BENCH}}))
    table.add("case", "ours", Measured({"rate": 2100.0}, {"rate": {LOST}}))
    table.missing["case", "theirs"] = "theirs is not installed"
    table.missing["other", "ours"] = "cannot do that"
    return table


def test_subject_that_was_measured_nowhere_is_absent() -> None:
    assert _table().absent() == {"theirs": "theirs is not installed"}


def test_json_has_values_of_every_round(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "results.json"
    write(file, {"kernel": "Linux"}, {"rounds": 2}, _table())
    whole = json.loads(file.read_text())
    [row] = whole["results"]
    assert row["figures"]["rate"]["values"] == [2000, 2100]
    assert whole["absent"] == {"theirs": "theirs is not installed"}
    assert whole["not_measured"] == [{"case": "other", "subject": "ours", "why": "cannot do that"}]


def test_table_marks_limit_and_loss() -> None:
    console = Console(width=120, record=True)
    show(console, _table(), ["rate"])
    text = console.export_text()
    assert "!≥2,050 ±5%" in text
    assert "absent: theirs: theirs is not installed" in text
