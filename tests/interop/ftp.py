"""An FTP server outside: pyftpdlib's, as a program."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.program import program
from tests.netns.lab import REMOTE, Lab

FTP_PORT = 2121
USER, PASSWORD = "someone", "something"


@contextmanager
def ftp_server(lab: Lab, shared: Path, files: Mapping[str, bytes], name: str = REMOTE[4]) -> Iterator[str]:
    """The URL, with the login, of a folder that it makes with these files; others may be written to it."""
    pytest.importorskip("pyftpdlib", reason="needs pyftpdlib from PyPI")
    shared.mkdir()
    for file, data in files.items():
        (shared / file).write_bytes(data)
    where = ("-i", REMOTE[4], "-p", str(FTP_PORT), "-d", str(shared))
    command = (sys.executable, "-m", "pyftpdlib", "-w", *where, "-u", USER, "-P", PASSWORD)
    with program(lab.outside, *command) as server:
        server.wait_for("starting FTP server")
        yield f"ftp://{USER}:{PASSWORD}@{name}:{FTP_PORT}"
