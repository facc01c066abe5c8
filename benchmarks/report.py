"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from benchmarks.figures import BENCH, DISORDERED, LOST, Series, Table
from benchmarks.machine import is_busy

Row = tuple[str, dict[str, Series]]
"""A subject and its series by figure."""

_LEGEND = (
    "median ± spread (least to most) of the rounds; ~ noisy: more than 10 %, or the relay's core was taken; "
    "≥ the bench was the limit; ! datagrams were lost; # some of one flow "
    "overtook others or came twice"
)


def show_machine(console: Console, described: dict[str, str]) -> None:
    console.print(escape(", ".join(f"{name} {value}" for name, value in described.items())))
    if is_busy():
        console.print("[yellow]others compute on this machine: these figures are no answer[/]")


def show(console: Console, table: Table, figures: Sequence[str]) -> None:
    """A table for each case, with these columns where there is something in them."""
    for case, rows in groupby(table.rows(), key=lambda row: row[0]):
        _show_case(console, case, [(subject, series) for _, subject, series in rows], table, figures)
    for subject, why in table.absent().items():
        console.print(f"absent: {escape(subject)}: {escape(why)}")
    console.print(_LEGEND, style="dim")


def write(file: Path, described: dict[str, str], settings: dict[str, Any], table: Table) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = {"machine": described, "settings": settings, **table.as_json()}
    file.write_text(json.dumps(whole, indent=1) + "\n")


def _show_case(
    console: Console, case: str, rows: list[tuple[str, dict[str, Series]]], table: Table, figures: Sequence[str]
) -> None:
    names = [name for name in figures if any(name in series for _, series in rows)]
    shown = RichTable(title=escape(case), title_justify="left")
    shown.add_column("", no_wrap=True)
    for name in names:
        shown.add_column(escape(name), justify="right", no_wrap=True)
    for subject, series in rows:
        shown.add_row(escape(subject), *(_cell(series[name]) if name in series else "" for name in names))
    console.print(shown)
    for (where, subject), why in table.missing.items():
        if where == case and subject not in table.absent():
            console.print(f"  not measured: {escape(subject)}: {escape(why)}", style="dim")


def _cell(series: Series) -> str:
    marks = (
        ("~" if series.noisy else "")
        + ("!" if LOST in series.notes else "")
        + ("#" if DISORDERED in series.notes else "")
    )
    spread = f" ±{series.spread:.0%}" if len(series.values) > 1 else ""
    return f"{marks}{'≥' if BENCH in series.notes else ''}{_number(series.median)}{spread}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
