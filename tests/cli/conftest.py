"""The command, run in this process as a user would type it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcastsocks.cli import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`command("check", "-c", FILE)` in a folder of its own; `stdin` is a pipe."""
    monkeypatch.chdir(tmp_path)
    for name in ("MCASTSOCKS_RELAY", "MCASTSOCKS_CLIENT"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "argv", ["mcastsocks", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main.run()
        written = capsys.readouterr()
        assert ended.value.code is None or isinstance(ended.value.code, int)
        return Ran(ended.value.code or 0, written.out, written.err)

    return run
