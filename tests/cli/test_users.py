"""user add: from a pipe, never from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from argon2 import PasswordHasher

from mcastsocks.rules import users
from mcastsocks.rules.users import load_users
from tests.cli.conftest import Command

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
FILE = Path("users.toml")


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "HASHER", CHEAP)


def knows(name: str, password: str, file: Path = FILE) -> bool:
    return CHEAP.verify(load_users(file).users[name].password, password)


@pytest.mark.parametrize("line", ["s3cret word", "s3cret word\n", "s3cret word\r\n", "s3cret word\nnot this\n"])
def test_password_is_the_first_line_of_a_pipe(command: Command, line: str) -> None:
    ran = command("user", "add", "alice", stdin=line)
    assert (ran.code, ran.out, ran.err) == (0, "added alice in users.toml\n", "")
    assert knows("alice", "s3cret word")
    assert FILE.stat().st_mode & 0o777 == 0o600


def test_second_time_changes_the_password(command: Command) -> None:
    command("user", "add", "alice", stdin="old\n")
    ran = command("user", "add", "alice", stdin="new\n")
    assert (ran.code, ran.out) == (0, "changed the password of alice in users.toml\n")
    assert knows("alice", "new")


def test_file_may_be_named(command: Command) -> None:
    assert command("user", "add", "alice", "-f", "other.toml", stdin="x\n").code == 0
    assert knows("alice", "x", Path("other.toml"))


@pytest.mark.parametrize(
    ("name", "password", "said"),
    [
        ("al/ice", "s3cret", "a user name begins with a letter or digit, then letters, digits and . _ @ + -"),
        ("alice", "", "a password has 1 to 255 octets"),
        ("alice", "s3cret" * 50, "a password has 1 to 255 octets"),
    ],
)
def test_name_or_password_that_cannot_be_is_a_usage_error(
    command: Command, name: str, password: str, said: str
) -> None:
    ran = command("user", "add", name, stdin=f"{password}\n")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "s3cret" not in ran.err
    assert not FILE.exists()


def test_password_is_not_taken_from_the_command_line(command: Command) -> None:
    ran = command("user", "add", "alice", "s3cret")
    assert ran.code == 2
    assert not FILE.exists()


def test_broken_file_is_said_with_the_line_and_kept(command: Command) -> None:
    FILE.write_text("[users.bob]\npasword = 'x'\n")
    ran = command("user", "add", "alice", stdin="s3cret\n")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "users.toml:1: users.bob.password: missing",
        "users.toml:2: users.bob.pasword: unknown key; did you mean 'password'?",
    ]
    assert FILE.read_text() == "[users.bob]\npasword = 'x'\n"


def test_folder_that_is_not_there_is_named(command: Command) -> None:
    ran = command("user", "add", "alice", "-f", "nowhere/users.toml", stdin="s3cret\n")
    assert ran.code == 2
    assert ran.err.endswith("nowhere/users.toml: No such file or directory\n")
