"""Building the C programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import programs
from benchmarks.__main__ import main
from benchmarks.errors import BenchmarkError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    programs.program.cache_clear()


@pytest.mark.parametrize("name", ["generator", "sink", "limit"])
def test_program_is_built_once(able: None, name: str) -> None:
    first = programs.program(name)
    built_at = Path(first).stat().st_mtime_ns
    programs.program.cache_clear()
    assert programs.program(name) == first
    assert os.access(first, os.X_OK)
    assert Path(first).stat().st_mtime_ns == built_at


def test_missing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert main(["throughput", "--quick"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "C compiler" in said


def test_source_that_does_not_compile_is_told(able: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sink.c").write_text("no C at all")
    (tmp_path / "common.h").write_text("")
    monkeypatch.setattr(programs, "_SOURCES", tmp_path)
    with pytest.raises(BenchmarkError, match=r"does not compile sink\.c"):
        programs.program("sink")
