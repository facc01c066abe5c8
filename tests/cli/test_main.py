"""The command as a whole: versions, help, exit codes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mcastsocks
from mcastsocks.cli import main
from mcastsocks.errors import ConfigError, ConnectionLost
from tests.cli.conftest import Command

COMMANDS = ["relay", "check", "join", "send", "probe", "features", "demo", "user"]


def test_version_is_printed(command: Command) -> None:
    assert command("--version").out == f"mcastsocks {mcastsocks.__version__}\n"


def test_module_is_the_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "mcastsocks", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"mcastsocks {mcastsocks.__version__}\n"


def test_project_installs_the_command() -> None:
    project = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"mcastsocks": "mcastsocks.cli.main:run"}
    assert callable(main.run)


def test_help_names_every_command(command: Command) -> None:
    ran = command("--help")
    assert ran.code == 0
    assert [name for name in COMMANDS if f"\n  {name} " in ran.out] == COMMANDS


@pytest.mark.parametrize("arguments", [[], ["user"]])
def test_nothing_asked_is_answered_with_help(command: Command, arguments: list[str]) -> None:
    ran = command(*arguments)
    assert "mcastsocks" in (ran.out + ran.err).splitlines()[0]
    assert "Commands:" in ran.out + ran.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command: Command, name: str) -> None:
    ran = command(name, "--help")
    assert ran.code == 0
    assert f"mcastsocks {name} [OPTIONS]" in ran.out


def test_help_keeps_what_stands_in_brackets(command: Command) -> None:
    ran = command("join", "--help")
    assert "socks5://[user:password@]host[:port]" in ran.out
    assert "[ff15::1]:5004" in ran.out


def test_help_never_shows_the_relay_of_the_environment(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCASTSOCKS_RELAY", "socks5://alice:secret@fw.example")
    assert "secret" not in command("join", "--help").out


@pytest.mark.parametrize("arguments", [["jion"], ["join"], ["join", "239.1.2.3:1", "--colour"], ["send", "1", "2"]])
def test_wrong_usage_exits_2_and_names_the_help(command: Command, arguments: list[str]) -> None:
    ran = command(*arguments)
    assert ran.code == 2
    assert "--help' for help" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("a.toml:1: x: one", "a.toml:2: y: two"), 2, "a.toml:1: x: one\na.toml:2: y: two\n"),
        (ConnectionLost("cannot reach it"), 1, "mcastsocks: cannot reach it\n"),
        (BrokenPipeError(), 1, ""),
        (OSError(28, "No space left on device"), 1, "mcastsocks: No space left on device\n"),
    ],
)
def test_error_that_is_no_defect_is_said_in_its_own_words(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, said: str
) -> None:
    def fails(_: object) -> None:
        raise error

    monkeypatch.setattr("mcastsocks.cli.relay.check", fails)
    ran = command("check")
    assert (ran.code, ran.out, ran.err) == (code, "", said)


def test_relay_that_is_not_there_is_said_without_its_password(command: Command) -> None:
    ran = command("probe", "192.0.2.1:7", "--relay", "socks5://alice:secret@127.0.0.1:9")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("mcastsocks: cannot reach socks5://alice@127.0.0.1:9: ")
