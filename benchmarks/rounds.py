"""Subjects in turns, A B A B, each started anew, so that what changes on the machine meanwhile meets all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path as File

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.errors import Absent, BenchmarkError
from benchmarks.figures import Measured, Table
from benchmarks.lab import Lab
from benchmarks.paths import Case
from benchmarks.subjects.subject import Subject

Measure = Callable[[Lab, Case, Subject, File], Measured]
"""One subject once, with a folder for its files. Raises Absent or BenchmarkError."""


def in_turns(cases: Sequence[Case], subjects: Sequence[Subject], rounds: int, measure: Measure) -> Table:
    """Progress goes to standard error. One that cannot be measured is left out of the rounds that remain."""
    table = Table()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Lab() as lab, Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(cases) * rounds * len(subjects))
        for case in cases:
            for _ in range(rounds):
                for subject in subjects:
                    progress.update(task, description=f"{subject.name}: {case}")
                    _measure(table, lab, case, subject, measure)
                    progress.advance(task)
    return table


def _measure(table: Table, lab: Lab, case: Case, subject: Subject, measure: Measure) -> None:
    where = str(case), subject.name
    if where in table.missing:
        return
    if (why := subject.refusal(case)) is not None:
        table.missing[where] = why
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            table.add(*where, measure(lab, case, subject, File(folder)))
        except (Absent, BenchmarkError, OSError) as error:
            table.missing[where] = str(error)
