"""The users file: names, argon2id hashes and teams. Written with mode 0600, comments kept."""

from __future__ import annotations

import os
import re
import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tomlkit
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError
from argon2.low_level import Type
from pydantic import AfterValidator, BeforeValidator, model_validator
from tomlkit.items import InlineTable

from mcastsocks.address import IPAddress
from mcastsocks.errors import ConfigError
from mcastsocks.settings import Settings, load, problems, read

_USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")
HASHER = PasswordHasher()


def check_user_name(name: str) -> str:
    """The name; ValueError for one that RFC 1929 or a log line could not carry."""
    if len(name) > 255 or not _USER_NAME.fullmatch(name):
        raise ValueError("a user name begins with a letter or digit, then letters, digits and . _ @ + -, at most 255")
    return name


def _host(value: Any) -> IPAddress:
    try:
        address = ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("expected the address of a host") from None
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        raise ValueError("expected the address of one other host")
    return address


def _check_hash(value: str) -> str:
    try:
        kind = extract_parameters(value).type
    except InvalidHashError:
        kind = None
    if kind is not Type.ID:
        raise ValueError("expected an argon2id hash; 'mcastsocks user add NAME' writes one")
    return value


class User(Settings):
    """`hosts` are addresses, beside the one it connects from, that this user may have datagrams sent to (LOCAL)."""

    password: Annotated[str, AfterValidator(_check_hash)]
    hosts: list[Annotated[IPAddress, BeforeValidator(_host)]] = []


class Users(Settings):
    """Hashes by name, names by team."""

    holds_secrets: ClassVar[bool] = True
    users: dict[Annotated[str, AfterValidator(check_user_name)], User] = {}
    teams: dict[str, list[str]] = {}

    def hosts_of(self, user: str | None) -> frozenset[IPAddress]:
        """Where else this user's datagrams may go."""
        return frozenset(self.users[user].hosts) if user in self.users else frozenset()

    @model_validator(mode="after")
    def _teams_name_users(self) -> Users:
        strangers = [
            (("teams", team, index), f"no user {member!r} in this file")
            for team, members in self.teams.items()
            for index, member in enumerate(members)
            if member not in self.users
        ]
        if strangers:
            raise problems(*strangers)
        return self


def load_users(path: Path) -> Users:
    """Raises ConfigError, also when others than the owner may read the file."""
    users = load(path, Users)
    _check_mode(path, "password hashes")
    return users


def read_secret(path: Path) -> str:
    """A password that stands alone in a file. Raises ConfigError, also when others than the owner may read it."""
    secret = read(path).strip()
    _check_mode(path, "a password")
    if not secret:
        raise ConfigError(f"{path}: empty; expected a password")
    return secret


def _check_mode(path: Path, what: str) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ConfigError(f"{path}: mode {mode:04o} lets others read {what}; expected 0600: chmod 600 {path}")


def set_password(path: Path, name: str, password: str) -> bool:
    """Add a user or change a password; True when the user is new. The file is replaced in one step.

    Raises ConfigError for a broken file, ValueError for a name or password that RFC 1929 cannot carry.
    """
    check_user_name(name)
    if not 1 <= len(password.encode()) <= 255:
        raise ValueError("a password has 1 to 255 octets")
    document = tomlkit.document()
    if path.exists():
        load(path, Users)
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
    users: Any = document.setdefault("users", tomlkit.table(is_super_table=True))
    new = name not in users
    if new:
        users[name] = tomlkit.inline_table() if isinstance(users, InlineTable) else tomlkit.table()
    users[name]["password"] = HASHER.hash(password)
    _replace(path, tomlkit.dumps(document))
    return new


def _replace(path: Path, text: str) -> None:
    path = path.resolve()  # a link stays one
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if path.exists():  # root edits, the relay's own user reads
                os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise ConfigError(f"{path}: {error.strerror}") from None
