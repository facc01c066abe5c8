"""Processes that are started, replaced and ended, with workers that do nothing but misbehave."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server.loopback import free_port

_PROGRAM = """
import os, select, signal, sys, time
from pathlib import Path
from mcastsocks.errors import ConfigError
from mcastsocks.server import supervisor
from mcastsocks.server.config import load_config
from mcastsocks.server.post import Report

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def work(worker, post):
    say("born", worker.index, os.getpid(), post.predecessor)
    {born}
    post.send(Report(f"worker {{worker.index}} serves"))
    heard, hear = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(hear)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    while post.lifeline not in select.select([post.lifeline, heard], [], [])[0]:
        for number in os.read(heard, 99):
            say("told", worker.index, number)
            if number == signal.SIGTERM:
                {told}
                return
    say("orphan", worker.index)

{before}
try:
    killed = supervisor.Supervisor(load_config(Path({config!r})), work).run(lambda serves: say("started:", serves))
    say("ended", killed)
except ConfigError as error:
    say("refused", *error.problems)
"""
_CONFIG = """
[inside]
listen = ["127.0.0.1:{port}"]
[outside]
interface = "lo"
[auth]
methods = ["none"]
[plane]
workers = 2
"""


class Supervised:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.seen: list[str] = []
        self._said = b""

    def line(self, begins: str, count: int = 1) -> list[str]:
        """The lines that begin so, when there are so many."""
        assert self.process.stdout is not None
        while len(found := [line for line in self.seen if line.startswith(begins)]) < count:
            assert select.select([self.process.stdout], [], [], 20)[0], self.seen
            said = os.read(self.process.stdout.fileno(), 4096)
            assert said, self.seen
            *lines, self._said = (self._said + said).split(b"\n")
            self.seen += [line.decode() for line in lines]
        return found

    def pids(self) -> dict[int, int]:
        """The newest of each worker's."""
        return {int(line.split()[1]): int(line.split()[2]) for line in self.seen if line.startswith("born")}


@contextmanager
def supervised(folder: Path, *, born: str = "", told: str = "", before: str = "") -> Iterator[Supervised]:
    config = folder / "relay.toml"
    config.write_text(_CONFIG.format(port=free_port()))
    program = _PROGRAM.format(born=born or "pass", told=told or "pass", before=before, config=str(config))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        relay = Supervised(process)
        try:
            yield relay
        finally:
            process.kill()  # the workers see the end of their lifeline


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_workers_start_once_and_end_when_told(tmp_path: Path) -> None:
    with supervised(tmp_path) as relay:
        relay.line("started: worker 0 serves")
        assert [line.split()[3] for line in relay.line("born", 2)] == ["None", "None"]
        relay.process.send_signal(signal.SIGUSR1)
        assert sorted(relay.line("told", 2)) == [f"told {worker} {signal.SIGUSR1:d}" for worker in (0, 1)]
        relay.process.send_signal(signal.SIGTERM)
        relay.line("ended []")
        assert sorted(relay.line("told", 4)[2:]) == [f"told {worker} {signal.SIGTERM:d}" for worker in (0, 1)]
        assert not any(map(exists, relay.pids().values()))
        assert relay.process.wait(20) == 0


def test_a_dead_worker_has_a_successor_that_knows_why(tmp_path: Path) -> None:
    with supervised(tmp_path) as relay:
        relay.line("started")
        relay.process.send_signal(signal.SIGUSR1)
        relay.line("told", 2)
        first = relay.pids()[1]
        os.kill(first, signal.SIGSEGV)
        line = relay.line("born 1", 2)[1]
        assert line.endswith(f"process {first} was killed by SIGSEGV")
        os.kill(relay.pids()[1], signal.SIGTERM)
        assert relay.line("born 1", 3)[2].endswith("ended with code 0")
        assert len(relay.line("born 0")) == 1, "the other is left alone"


def test_workers_that_die_at_start_are_tried_less_and_less_often(tmp_path: Path) -> None:
    born = "if worker.index and post.predecessor: os._exit(7)"
    with supervised(tmp_path, born=born, before="supervisor._FIRST_PAUSE_S = 0.01") as relay:
        relay.line("started")
        begun = time.monotonic()
        os.kill(relay.pids()[1], signal.SIGKILL)
        lines = relay.line("born 1", 6)
        assert time.monotonic() - begun >= 0.01 * (1 + 2 + 4 + 8 + 16)
        assert lines[-1].endswith("ended with code 7")
        relay.process.send_signal(signal.SIGTERM)
        relay.line("ended []")


def test_what_a_worker_cannot_have_at_first_ends_them_all(tmp_path: Path) -> None:
    born = 'if worker.index: raise ConfigError("relay.toml:3: no", "relay.toml:4: nor that")'
    with supervised(tmp_path, born=born) as relay:
        assert relay.line("refused") == ["refused relay.toml:3: no relay.toml:4: nor that"]
        assert not any(map(exists, relay.pids().values()))


def test_a_worker_that_crashes_at_first_ends_them_all(tmp_path: Path) -> None:
    with supervised(tmp_path, born="if worker.index: os.kill(os.getpid(), 9)") as relay:
        relay.line("born", 2)
        pid = relay.pids()[1]
        assert relay.line("refused") == [f"refused worker 1 did not start: process {pid} was killed by SIGKILL"]


def test_a_worker_that_cannot_start_later_is_tried_again_and_says_why(tmp_path: Path) -> None:
    born = 'if worker.index and post.predecessor and "SIGKILL" in post.predecessor: raise ConfigError("taken")'
    with supervised(tmp_path, born=born) as relay:
        relay.line("started")
        os.kill(relay.pids()[1], signal.SIGKILL)
        assert relay.line("born 1", 3)[2].endswith("could not start: taken")


def test_a_worker_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path, told="if worker.index: continue", before="supervisor.DRAIN_S = 0.2") as relay:
        relay.line("started")
        relay.process.send_signal(signal.SIGINT)
        relay.line("ended [1]")
        assert not any(map(exists, relay.pids().values()))


def test_a_signal_ends_a_start_that_hangs(tmp_path: Path) -> None:
    born = "if worker.index: signal.sigwait([signal.SIGTERM]); os._exit(0)"
    with supervised(tmp_path, born=born) as relay:
        relay.line("born", 2)
        relay.process.send_signal(signal.SIGTERM)
        relay.line("ended []")


def test_workers_learn_that_their_supervisor_is_gone(tmp_path: Path) -> None:
    with supervised(tmp_path) as relay:
        relay.line("started")
        relay.process.kill()
        assert sorted(relay.line("orphan", 2)) == ["orphan 0", "orphan 1"]


def test_port_where_somebody_listens_starts_nothing(tmp_path: Path) -> None:
    port = free_port()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # it would share
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys.modules[__name__], "free_port", lambda: port)
            with supervised(tmp_path) as relay:
                [line] = relay.line("refused")
    problem = f"relay.toml:3: inside.listen[0]: cannot listen on TCP 127.0.0.1:{port}: Address already in use"
    assert line.endswith(problem)
    assert not relay.pids()
