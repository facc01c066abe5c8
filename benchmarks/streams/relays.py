"""The relays that are compared: a command line and a port each, started here and ended here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Command = Callable[[int, Path], list[str]]
"""What to run for a port, with a folder for its configuration."""

_START_S = 10.0
_TICKS_S = os.sysconf("SC_CLK_TCK")
_SESSION, _FIRST_TIME = 3, 11  # fields of /proc/PID/stat behind the name: session; utime, stime, cutime, cstime
_DANTE = """\
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
socksmethod: none
clientmethod: none
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
"""


def _ours(*options: str) -> Command:
    return lambda port, _: [sys.executable, "-m", "benchmarks.streams.ours", "--port", str(port), *options]


def _dante(port: int, folder: Path) -> list[str]:
    file = folder / f"danted-{port}.conf"
    file.write_text(_DANTE.format(port=port))
    return ["danted", "-f", str(file)]


RELAYS: dict[str, Command] = {
    "splice 1 MiB": _ours(),
    "splice 64 KiB": _ours("--pipe-octets", str(1 << 16)),
    "copies": _ours("--pipes", "0"),
    "dante": _dante,
    "microsocks": lambda port, _: ["microsocks", "-i", "127.0.0.1", "-p", str(port)],
}


def installed(name: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return shutil.which(RELAYS[name](0, Path(folder))[0]) is not None


class Relay:
    """A running one."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process, self.port = process, port

    def cpu_s(self) -> float:
        """User and system time of all its processes until now, the ended ones too."""
        times = (field for fields in _family(self._process.pid).values() for field in fields[_FIRST_TIME:][:4])
        return sum(map(int, times)) / _TICKS_S

    def end(self) -> None:
        members = _family(self._process.pid)
        self._process.terminate()
        self._process.wait(_START_S)
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def running(name: str, cpu: int, folder: Path) -> Iterator[Relay]:
    port, ours = free_port(), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})  # inherited
    try:
        process = subprocess.Popen(
            RELAYS[name](port, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    finally:
        os.sched_setaffinity(0, ours)
    relay = Relay(process, port)
    try:
        _wait_for(port, process)
        yield relay
    finally:
        relay.end()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen on {port}")


def _family(root: int) -> dict[int, list[str]]:
    """The stat fields behind the name, of a process that leads a session and of all others in it."""
    family = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = file.read_text().rpartition(") ")[2].split()
            if fields[_SESSION] == str(root):
                family[int(file.parent.name)] = fields
    return family
