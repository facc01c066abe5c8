"""A program in a namespace, pinned to its core, and what it and its children use."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import Absent
from benchmarks.lab import Host

_PATIENCE_S = 10.0
_LISTEN, _UNCONNECTED = "0A", "07"  # states in /proc/net
_SESSION = 3  # the field of /proc/PID/stat behind the name


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time of all threads until now, user and system, and the time they were ready but had no core.

    As the scheduler counts it (/proc/PID/schedstat, in ns): utime and stime of /proc/PID/stat are the same in ticks.
    """

    cpu_ns: int = 0
    waited_ns: int = 0

    def __sub__(self, before: Usage) -> Usage:
        return Usage(self.cpu_ns - before.cpu_ns, self.waited_ns - before.waited_ns)


class Process:
    """The program leads a session of its own: all that is in it belongs to it. `log` takes what it says."""

    def __init__(self, host: Host, command: Sequence[str], log: Path) -> None:
        self.log = log
        ours = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {host.core})  # inherited
        try:
            with log.open("wb") as file:
                self._process = subprocess.Popen(
                    ["ip", "netns", "exec", host.name, *command],
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, ours)

    def feed(self, text: str) -> None:
        """All that its standard input will ever say."""
        self.tell(text)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def tell(self, text: str) -> None:
        """On its standard input; it may have ended."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Raises Absent with what it said last, when it ends first or takes too long."""
        deadline = time.monotonic() + _PATIENCE_S
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Absent(self._last_words())
            time.sleep(0.005)

    def wait(self, timeout_s: float) -> None:
        """Until it ends by itself. Raises subprocess.TimeoutExpired."""
        self._process.wait(timeout_s)

    def says(self, word: str) -> bool:
        return word in self.log.read_text(errors="replace")

    def listens(self, host: Host, port: int) -> bool:
        return _sockets(host, "tcp", port, _LISTEN) > 0

    def sockets(self, host: Host, port: int) -> int:
        """How many UDP sockets have this local port."""
        return _sockets(host, "udp", port, _UNCONNECTED)

    def usage(self) -> Usage:
        cpu_ns = waited_ns = 0
        for pid in self._members():
            for task in Path("/proc", str(pid), "task").glob("*/schedstat"):
                with suppress(OSError):
                    cpu, waited, _ = map(int, task.read_text().split())
                    cpu_ns, waited_ns = cpu_ns + cpu, waited_ns + waited
        return Usage(cpu_ns, waited_ns)

    def memory_octets(self) -> int:
        """Of all of them; a page that several share counts in parts."""
        return sum(_pss_octets(pid) for pid in self._members())

    def descriptors(self) -> int:
        return sum(len(list(Path("/proc", str(pid), "fd").iterdir())) for pid in self._members())

    def end(self) -> str:
        """SIGTERM, and SIGKILL for what is left of the session; what it said."""
        members = self._members()
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in members & self._members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        return self.log.read_text(errors="replace")

    def _members(self) -> set[int]:
        leader, members = str(self._process.pid), set()
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if file.read_text(errors="replace").rpartition(") ")[2].split()[_SESSION] == leader:
                    members.add(int(file.parent.name))
        return members

    def _last_words(self) -> str:
        said = self.log.read_text(errors="replace").replace(f"{self.log.parent}/", "").strip().splitlines()
        return said[-1] if said else "it ends, or does not listen, and says nothing"


def _sockets(host: Host, protocol: str, port: int, state: str) -> int:
    """In all families; what listens is seen without a connection that it would have to serve."""
    with host.entered():
        tables = [Path("/proc/thread-self/net", name).read_text() for name in (protocol, f"{protocol}6")]
    rows = (line.split() for table in tables for line in table.splitlines()[1:])
    return sum(row[1].endswith(f":{port:04X}") and row[3] == state for row in rows)


def _pss_octets(pid: int) -> int:
    with suppress(OSError):
        for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
