"""The users file: written, kept, and refused when it is not as it should be."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from argon2.low_level import Type

from mcastsocks.errors import ConfigError
from mcastsocks.rules import users
from mcastsocks.rules.users import load_users, set_password

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HASH = CHEAP.hash("bob's")


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "HASHER", CHEAP)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "users.toml"


def write(file: Path, text: str, mode: int = 0o600) -> Path:
    file.write_text(text)
    file.chmod(mode)
    return file


def knows(file: Path, name: str, password: str) -> bool:
    return CHEAP.verify(load_users(file).users[name].password, password)


def test_first_user_makes_the_file_for_its_owner_alone(file: Path) -> None:
    assert set_password(file, "alice", "secret")
    assert knows(file, "alice", "secret")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "secret" not in file.read_text()
    assert os.listdir(file.parent) == [file.name]


def test_password_is_changed_and_hashed_with_another_salt(file: Path) -> None:
    set_password(file, "alice", "old")
    before = file.read_text()
    assert not set_password(file, "alice", "old")
    assert file.read_text() != before
    assert not set_password(file, "alice", "new")
    assert knows(file, "alice", "new")
    assert len(load_users(file).users) == 1


def test_file_that_others_could_read_is_closed_to_them_when_it_is_written(file: Path) -> None:
    set_password(write(file, "", 0o644), "alice", "secret")
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        f'# who may\n\n[users.bob]\npassword = "{HASH}"  # since May\n\n[teams]  # all\ndesk = ["bob"] # one\n',
        f'# who may\n# since May\n[teams] # all\ndesk = ["bob"] # one\n[users.bob]\npassword = "{HASH}"\n',
        f'[users] # who may\nbob = {{ password = "{HASH}" }} # since May\n[teams] # all\ndesk = ["bob"] # one\n',
        f'[users] # who may\nbob.password = "{HASH}" # since May\n[teams] # all\ndesk = ["bob"] # one\n',
        f'users = {{ bob = {{ password = "{HASH}" }} }} # who may\n# since May\n[teams] # all\ndesk=["bob"] # one\n',
    ],
)
@pytest.mark.parametrize("name", ["alice", "bob", "a.b@c"])
def test_comments_and_other_users_are_kept_however_the_file_is_written(file: Path, text: str, name: str) -> None:
    assert set_password(write(file, text), name, "secret") is (name != "bob")
    assert knows(file, name, "secret")
    assert knows(file, "bob", "secret" if name == "bob" else "bob's")
    assert load_users(file).teams == {"desk": ["bob"]}
    for comment in ("# who may", "# since May", "# all", "# one"):
        assert comment in file.read_text()


def test_owner_of_the_file_is_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _, user, group: given.append((user, group)))
    set_password(file, "alice", "new")
    assert given == []
    set_password(file, "alice", "changed")
    assert given == [(file.stat().st_uid, file.stat().st_gid)]


def test_link_to_the_file_stays_a_link(file: Path) -> None:
    link = file.with_name("link.toml")
    link.symlink_to(write(file, ""))
    set_password(link, "alice", "secret")
    assert link.is_symlink()
    assert knows(file, "alice", "secret")


@pytest.mark.parametrize(
    "name", ["", " ", "-alice", "@desk", "al ice", "al\nice", "alice\n", "alícia", "a" * 256, "a/b", "a=b", '"']
)
def test_name_that_no_record_or_login_could_carry_is_refused(file: Path, name: str) -> None:
    with pytest.raises(ValueError, match="a user name begins with a letter or digit"):
        set_password(file, name, "secret")
    assert not file.exists()


@pytest.mark.parametrize("name", ["a", "0", "Alice.B_c@d+e-f", "a" * 255])
def test_name_that_fits_is_taken(file: Path, name: str) -> None:
    set_password(file, name, "secret")
    assert list(load_users(file).users) == [name]


@pytest.mark.parametrize("password", ["", "x" * 256, "é" * 128])
def test_password_that_no_login_could_carry_is_refused(file: Path, password: str) -> None:
    with pytest.raises(ValueError, match="a password has 1 to 255 octets"):
        set_password(file, "alice", password)
    assert not file.exists()


BROKEN = {
    "not TOML": ("[users.bob]\n\npassword = \n", "3: not TOML"),
    "no password": ("\n[users.bob]\n", "2: users.bob.password: missing"),
    "plain password": ('[users.bob]\npassword = "bob\'s"\n', "2: users.bob.password: expected an argon2id hash"),
    "another hash": (
        f'[users.bob]\npassword = "{PasswordHasher(1, 8, 1, type=Type.I).hash("x")}"\n',
        "2: users.bob.password: expected an argon2id hash",
    ),
    "unknown key": (f'[users.bob]\npassword = "{HASH}"\nteam = "desk"\n', "3: users.bob.team: unknown key"),
    "bad name": (f'[users."b b"]\npassword = "{HASH}"\n', "1: users.b b: a user name begins with"),
    "team of nobody": (
        f'[users.bob]\npassword = "{HASH}"\n[teams]\ndesk = [\n  "bob",\n  "alice",\n]\n',
        "6: teams.desk[1]: no user 'alice' in this file",
    ),
    "team that is no list": ('[teams]\ndesk = "bob"\n', "2: teams.desk: expected a list in brackets"),
}


@pytest.mark.parametrize(("text", "expected"), BROKEN.values(), ids=BROKEN)
def test_broken_file_is_refused_with_the_line_and_left_alone(file: Path, text: str, expected: str) -> None:
    write(file, text)
    for use in (lambda: load_users(file), lambda: set_password(file, "alice", "secret")):
        with pytest.raises(ConfigError) as caught:
            use()
        (problem,) = caught.value.problems
        assert problem.startswith(f"{file}:{expected}")
        assert "bob's" not in problem
    assert file.read_text() == text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_file_that_others_may_read_or_write_is_refused(file: Path, mode: int) -> None:
    set_password(file, "alice", "secret")
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o} lets others .*; expected 0600: chmod 600 "):
        load_users(file)


def test_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/users\.toml: No such file or directory"):
        set_password(tmp_path / "nowhere" / "users.toml", "alice", "secret")


def test_nothing_is_left_when_the_file_cannot_be_replaced(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write(file, "# kept\n")
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(ConfigError, match="No space left on device"):
        set_password(file, "alice", "secret")
    assert file.read_text() == "# kept\n"
    assert os.listdir(file.parent) == [file.name]


def test_further_hosts_of_a_user_are_known_and_checked(file: Path) -> None:
    text = f'[users.bob]\npassword = "{HASH}"\nhosts = ["192.0.2.9", "2001:db8::9"]\n'
    loaded = load_users(write(file, text))
    assert loaded.hosts_of("bob") == {ip_address("192.0.2.9"), ip_address("2001:db8::9")}
    assert loaded.hosts_of("alice") == loaded.hosts_of(None) == frozenset()
    for wrong in ("0.0.0.0", "239.1.2.3", "host.example", "127.0.0.1"):
        with pytest.raises(ConfigError, match=r"users.toml:3: users.bob.hosts\[0\]: expected the address of "):
            load_users(write(file, text.replace("192.0.2.9", wrong)))
