"""A program in a namespace, its lines read as they come, ended by its process id."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from tests.netns.lab import INSIDE, Host, wait_for

ALICE = f"socks5://alice:secret@{INSIDE[4]}"


def needs(**packages: str) -> pytest.MarkDecorator:
    """Skip by name; `program="Debian package"`."""
    missing = sorted({package for program, package in packages.items() if shutil.which(program) is None})
    return pytest.mark.skipif(bool(missing), reason=f"needs the Debian packages: apt install {' '.join(missing)}")


class Program:
    """A running program. What it says is its standard output and error, or the error alone with `output`."""

    def __init__(self, host: Host, *arguments: str, output: IO[bytes] | None = None) -> None:
        self.name = arguments[0]
        self.process = host.popen(
            *arguments,
            stdin=subprocess.DEVNULL,
            stdout=output or subprocess.PIPE,
            stderr=subprocess.PIPE if output else subprocess.STDOUT,
        )
        stream = self.process.stderr if output else self.process.stdout
        assert stream is not None
        self._stream = stream
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        return "".join(list(self.lines))

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first place in what it says that matches."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.said, re.MULTILINE)

        try:
            match = wait_for(f"{pattern!r} from {self.name}", found)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said: {self.said}") from None
        assert match is not None
        return match

    def finish(self) -> int:
        """The exit code, once it ended by itself and all that it said was read."""
        code = self.process.wait(timeout=12)
        self._reader.join()
        return code

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.finish()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self._stream.close()

    def _read(self) -> None:
        for line in self._stream:
            self.lines.append(line.decode(errors="replace"))


@contextmanager
def program(host: Host, *arguments: str, output: IO[bytes] | None = None) -> Iterator[Program]:
    running = Program(host, *arguments, output=output)
    try:
        yield running
    finally:
        running.close()


@contextmanager
def joined(host: Host, group: tuple[str, int], *options: str, output: IO[bytes] | None = None) -> Iterator[Program]:
    """`mcastsocks join` inside, once it has joined."""
    command = (sys.executable, "-m", "mcastsocks", "join", f"{group[0]}:{group[1]}", "--relay", ALICE, *options)
    with program(host, *command, output=output) as join:
        join.wait_for("^joined")
        yield join


def wait_until_listening(host: Host, address: str, port: int) -> None:
    """A UDP socket of the namespace is bound there."""
    local = "".join(f"{int(part):02X}" for part in reversed(address.split("."))) + f":{port:04X}"
    wait_for(
        f"a socket at {address}:{port}",
        lambda: any(line.split()[1] == local for line in host.read("/proc/net/udp").splitlines()[1:]),
    )
