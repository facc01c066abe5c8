"""Each question is answered, for a moment and with few subjects: that it works, not what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import QUESTIONS, main
from benchmarks.effort import FULL, QUICK, Effort
from benchmarks.figures import Table
from benchmarks.paths import Case
from benchmarks.questions import associations, fanout, throughput
from benchmarks.subjects.catalogue import Choice

MOMENT = Effort(rounds=1, step_s=0.05, steps=1, tries=1, quick=True)
ABSENT = "imaginary"
CHOICE = Choice(["portable", ABSENT], {}, frozenset({"no relay", "C loop", "portable", "portable RFC 1928", ABSENT}))


def _figures(table: Table, subject: str) -> set[str]:
    return {name for _, who, row in table.rows() if who == subject for name in row}


@pytest.mark.parametrize(
    "case",
    [Case(associations=3), Case(associations=3, thin=True, inward=True), Case(associations=2, version=6, run=4)],
    ids=str,
)
def test_throughput(able: None, case: Case) -> None:
    table = throughput.answer(MOMENT, CHOICE, [case])
    assert _figures(table, "portable") >= {"CPU us 10k/s", "p50 us", "loss-free/s"}
    assert _figures(table, "portable RFC 1928") >= {"CPU us 10k/s", "p50 us"}
    assert _figures(table, "no relay") == {"loss-free/s", "flood/s", "p50 us", "p99 us"}
    assert ABSENT in table.absent()[ABSENT], "an unknown plane is absent, and why is said"


def test_fan_out(able: None) -> None:
    table = fanout.answer(MOMENT, CHOICE, [Case(payload_octets=1316, run=4, associations=1, receivers=3)])
    assert _figures(table, "portable") == set(fanout.FIGURES)


def test_associations(able: None) -> None:
    table = associations.answer(MOMENT, CHOICE, [Case(associations=20, thin=True), Case(associations=50)])
    assert _figures(table, "portable") == _figures(table, "portable RFC 1928") == set(associations.FIGURES)
    [row] = [row for case, who, row in table.rows() if who == "portable" and "thin" not in case]
    assert row["descriptors each"].median < 0.1, "associations of one client share its outside socket"


def test_answer_is_shown_and_written(able: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answer.json"
    words = ["associations", "--quick", "--plane", "portable", "--only", "portable", "--case", "thin"]
    assert main([*words, "--json", str(file)]) == 0
    assert "opened/s" in capsys.readouterr().out
    assert file.exists()


def test_questions_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_cases_are_told_apart(question: object) -> None:
    for effort in (FULL, QUICK):
        cases = question.cases(effort)  # type: ignore[attr-defined]
        assert len({str(case) for case in cases}) == len(cases)
