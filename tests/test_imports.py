"""Folders are the architecture: which room may import which, and what the pure ones may not touch."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mcastsocks

MAY_IMPORT = {
    # room        other rooms; a dotted name is one module of a room
    "errors": "",
    "address": "",
    "liveness": "",
    "settings": "errors",
    "wire": "address errors",
    "protocol": "address errors wire",
    "tables": "address errors wire",
    "rules": "address errors settings",
    "planes": "address errors wire.datagram wire.rtp wire.socks_datagram tables",
    "server": "address errors liveness settings wire protocol tables rules planes client",
    "client": "address errors liveness settings wire protocol tables.reassembly",
    "cli": "address errors settings wire protocol tables rules planes server client",
    "__main__": "cli",  # nobody else does
}

LEAVES_ALONE = {
    # room        modules of others
    "errors": "asyncio socket logging pydantic time",
    "address": "asyncio socket logging pydantic time",
    "wire": "asyncio socket logging pydantic time",
    "protocol": "asyncio socket logging pydantic time",
    "tables": "asyncio socket logging pydantic time",
    "planes": "pydantic",
}

ROOT = Path(mcastsocks.__file__).parent
PACKAGE_FILE = ROOT / "__init__.py"
FILES = sorted(set(ROOT.rglob("*.py")) - {PACKAGE_FILE})


def imported(module: str, source: str, *, is_package: bool) -> Iterator[str]:
    """Everything a module imports, wherever in it, by absolute dotted names; `from a import b` is a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            base = package[: len(package) + 1 - node.level] if node.level else []
            stem = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def forbidden(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What a module imports and may not; the package itself, which knows only its version, is open to all."""
    room = module.split(".")[1]
    allowed = [f"mcastsocks.{name}." for name in (room, *MAY_IMPORT[room].split())]
    left_alone = LEAVES_ALONE.get(room, "").split()
    found = []
    for name in imported(module, source, is_package=is_package):
        top = name.partition(".")[0]
        if top != "mcastsocks":
            wrong = top in left_alone
        else:
            wrong = name not in ("mcastsocks", "mcastsocks.__version__") and not f"{name}.".startswith(tuple(allowed))
        if wrong:
            found.append(name)
    return found


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def test_every_room_has_its_row() -> None:
    rooms = {file.relative_to(ROOT).parts[0].removesuffix(".py") for file in FILES}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_module_keeps_to_its_room(file: Path) -> None:
    assert forbidden(module_of(file), file.read_text(), is_package=file.stem == "__init__") == []


def test_package_itself_imports_nothing() -> None:
    assert list(imported("mcastsocks", PACKAGE_FILE.read_text(), is_package=True)) == []


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("address", "from mcastsocks.errors import WireError", "mcastsocks.errors.WireError"),
        ("wire.bad", "import asyncio", "asyncio"),
        ("wire.bad", "from socket import inet_ntop", "socket.inet_ntop"),
        ("wire.bad", "import mcastsocks.tables.aids", "mcastsocks.tables.aids"),
        ("wire.bad", "from ..tables import aids", "mcastsocks.tables.aids"),
        ("wire.bad", "from mcastsocks import tables", "mcastsocks.tables"),
        ("protocol.bad", "def f():\n    import time", "time"),
        ("tables.bad", "from pydantic import BaseModel", "pydantic.BaseModel"),
        ("tables.bad", "import logging.handlers", "logging.handlers"),
        ("tables.bad", "if TYPE_CHECKING:\n    import mcastsocks.planes.interface", "mcastsocks.planes.interface"),
        ("rules.bad", "from mcastsocks.tables.tally import Tally", "mcastsocks.tables.tally.Tally"),
        ("planes.bad", "from mcastsocks.wire import control", "mcastsocks.wire.control"),
        ("planes.bad", "from mcastsocks.wire.datagrams import HEADER", "mcastsocks.wire.datagrams.HEADER"),
        ("planes.bad", "from mcastsocks.wire import *", "mcastsocks.wire.*"),
        ("planes.bad", "import mcastsocks.wire", "mcastsocks.wire"),
        ("planes.bad", "import mcastsocks.server.config as c", "mcastsocks.server.config"),
        ("planes.bad", "from mcastsocks import rules", "mcastsocks.rules"),
        ("client.bad", "from mcastsocks.tables.changes import Traffic", "mcastsocks.tables.changes.Traffic"),
        ("client.bad", "from mcastsocks.server.upstream import Upstream", "mcastsocks.server.upstream.Upstream"),
        ("server.auth.bad", "from ...cli import main", "mcastsocks.cli.main"),
        ("server.bad", "import mcastsocks.cli.main", "mcastsocks.cli.main"),
    ],
)  # fmt: skip
def test_forbidden_arrow_is_found(module: str, source: str, found: str) -> None:
    assert forbidden(f"mcastsocks.{module}", source) == [found]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("planes.good", "from mcastsocks.wire.datagram import HEADER\nfrom mcastsocks.wire import datagram"),
        ("planes.good", "import asyncio, socket, time"),
        ("wire.good", "from . import block\nfrom .block import parse_block\nfrom ..errors import WireError"),
        ("tables.good", "import timeit\nfrom mcastsocks.wire.control import Flags"),
        ("server.good", "import mcastsocks\nfrom mcastsocks import __version__, settings"),
        ("__main__", "from mcastsocks.cli.main import run"),
    ],
)
def test_permitted_arrow_is_not_found(module: str, source: str) -> None:
    assert forbidden(f"mcastsocks.{module}", source) == []


def test_relative_import_in_a_package_starts_at_the_package() -> None:
    assert forbidden("mcastsocks.wire", "from . import block", is_package=True) == []
    assert forbidden("mcastsocks.wire", "from .. import tables", is_package=True) == ["mcastsocks.tables"]
