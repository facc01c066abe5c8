"""Starts a relay's workers, replaces those that die, and ends when they have ended.

It has no event loop and no thread, because it forks: a process that is forked has of its threads one alone, and of the
others their locks. So it writes no records either: what there is to say of a worker that died, the next one records.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from mcastsocks.errors import ConfigError
from mcastsocks.server.auth.throttle import SharedThrottle
from mcastsocks.server.config import Loaded
from mcastsocks.server.listener import find_taken
from mcastsocks.server.post import Post, Report, receive
from mcastsocks.server.shared_ledger import SharedLedger
from mcastsocks.server.shares import Shares, rows_for
from mcastsocks.server.worker import Worker

DRAIN_S = 20.0
"""Workers take about 15 s at most: clients that do not read, records that nobody reads."""

_STEADY_S, _FIRST_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 0.1, 10.0
"""A worker that has lived that long is replaced at once, another after a pause that doubles."""

_ENDS = (signal.SIGTERM, signal.SIGINT)
_PASSED_ON = (signal.SIGHUP, signal.SIGUSR1)
_SIGNALS = (*_ENDS, *_PASSED_ON, signal.SIGCHLD)

Work = Callable[[Worker, Post], None]
"""What a worker does, in its process, until it ends. Raises ConfigError when it cannot start. Signals are blocked until
it is ready for them."""


@dataclass(slots=True)
class _Place:
    """One worker's, whoever holds it; `pid` is 0 while nobody does, and the next one begins at `due`."""

    index: int
    pid: int = 0
    reports: int = -1
    report: Report | None = None
    began: float = 0.0
    pause_s: float = 0.0
    due: float = 0.0
    predecessor: str | None = None


class Supervisor:
    """Of one relay."""

    def __init__(self, loaded: Loaded, work: Work) -> None:
        limits, workers = loaded.config.limits, loaded.config.plane.workers
        self._loaded, self._work = loaded, work
        self._shares = Shares(workers, rows_for(limits, workers))
        self._throttle = SharedThrottle(self._shares, limits.login_failures_per_minute, limits.logins_remembered)
        self._places = [_Place(index) for index in range(workers)]
        self._lifeline = os.pipe()
        self._ending = False
        self._poll = select.poll()

    def run(self, started: Callable[[str], None]) -> list[int]:
        """Until SIGTERM or SIGINT; the workers that had to be killed then. `started` is told what the first one serves.

        Raises ConfigError when a worker cannot start at first, and all have ended.
        """
        self._find_other_relay()
        with _heard_signals() as heard:
            self._poll.register(heard, select.POLLIN)
            try:
                for place in self._places:
                    self._fill(place)
                problems = self._await_start(heard)
                if not problems and not self._ending:
                    started(next(place.report.serves for place in self._places if place.report))
                while not problems and not self._ending:
                    self._wait(heard, self._next_due())
                    self._fill_due()
            finally:  # whatever it was: nobody is left behind
                killed = self._end(heard)
        if problems:
            raise ConfigError(*problems)
        return killed

    def _find_other_relay(self) -> None:
        """Its workers would share the port with ours. Raises ConfigError, as one worker alone would."""
        for index, endpoint in enumerate(self._loaded.config.inside.listen):
            try:
                find_taken(endpoint)
            except ConfigError as error:
                raise self._loaded.error((("inside", "listen", index), str(error))) from None

    def _await_start(self, heard: int) -> list[str]:
        """Until all serve; the problems of the first one that does not."""
        while not self._ending:
            for place in self._places:
                if place.report is not None and place.report.problems:
                    return list(place.report.problems)
                if not place.pid:
                    return [f"worker {place.index} did not start: {place.predecessor}"]
            if all(place.report for place in self._places):
                break
            self._wait(heard, None)
        return []

    def _wait(self, heard: int, timeout_s: float | None) -> None:
        """For a signal, for what a worker reports, or as long as that."""
        ready = {descriptor for descriptor, _ in self._poll.poll(None if timeout_s is None else 1000 * timeout_s)}
        for place in self._places:
            if place.reports in ready:
                self._take_report(place)
        if heard in ready:
            for number in os.read(heard, 4096):
                self._heed(number)

    def _heed(self, number: int) -> None:
        if number in _ENDS:
            self._ending = True
        elif number == signal.SIGCHLD:
            self._reap()
        elif number in _PASSED_ON:
            self._signal(number)

    def _signal(self, number: int) -> None:
        for place in self._places:
            if place.pid:
                os.kill(place.pid, number)

    def _reap(self) -> None:
        """Who has died holds nothing any more, and is to be replaced."""
        for place in self._places:
            if not place.pid:
                continue
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if not pid:
                continue
            if place.reports >= 0:
                self._take_report(place)
            lived_s = time.monotonic() - place.began
            place.pause_s = 0.0 if lived_s >= _STEADY_S else _longer(place.pause_s)
            place.due = time.monotonic() + place.pause_s
            place.predecessor = f"process {place.pid} {_how_ended(status, place.report)}"
            place.pid = 0
            self._shares.forget(place.index)

    def _take_report(self, place: _Place) -> None:
        place.report = receive(place.reports)
        self._poll.unregister(place.reports)
        os.close(place.reports)
        place.reports = -1

    def _next_due(self) -> float | None:
        due = [place.due for place in self._places if not place.pid]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _fill_due(self) -> None:
        for place in self._places:
            if not place.pid and place.due <= time.monotonic() and not self._ending:
                try:
                    self._fill(place)
                except OSError as error:  # no more processes or descriptors, for now
                    place.pause_s = _longer(place.pause_s)
                    place.due = time.monotonic() + place.pause_s
                    place.predecessor = f"{place.predecessor}, and then: {error.strerror}"

    def _fill(self, place: _Place) -> None:
        """With a new process. Raises OSError."""
        reports, reporting = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the worker can heed them
        try:
            pid = os.fork()
        except OSError:
            os.close(reports)
            raise
        else:
            if not pid:
                self._become(place, Post(self._lifeline[0], reporting, place.predecessor))
        finally:
            os.close(reporting)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        place.pid, place.reports, place.report, place.began = pid, reports, None, time.monotonic()
        self._poll.register(reports, select.POLLIN)

    def _become(self, place: _Place, post: Post) -> NoReturn:
        """In the new process, which must not come back from here."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            os.close(self._lifeline[1])
            ledger = SharedLedger(self._shares, place.index)
            self._work(Worker(place.index, len(self._places), ledger, ledger, self._throttle), post)
            code = 0
        except ConfigError as error:
            post.send(Report(problems=error.problems))
            code = 2
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(code)

    def _end(self, heard: int) -> list[int]:
        """Let all end in order, and kill who does not in time."""
        self._ending = True
        killed: list[int] = []
        deadline = time.monotonic() + DRAIN_S
        self._signal(signal.SIGTERM)
        while any(place.pid for place in self._places):
            self._wait(heard, max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline and not killed:
                killed = [place.index for place in self._places if place.pid]
                self._signal(signal.SIGKILL)
                deadline += DRAIN_S
        for descriptor in self._lifeline:
            os.close(descriptor)
        return killed


@contextmanager
def _heard_signals() -> Iterator[int]:
    """A descriptor to read the numbers of signals from."""
    heard, hear = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.signal(number, _hear) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(hear, warn_on_full_buffer=False)
    try:
        yield heard
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(heard)
        os.close(hear)


def _hear(number: int, frame: FrameType | None) -> None:
    """Its number is in the pipe already."""


def _longer(pause_s: float) -> float:
    return min(2 * pause_s or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)


def _how_ended(status: int, report: Report | None) -> str:
    if report is not None and report.problems:
        return f"could not start: {'; '.join(report.problems)}"
    code = os.waitstatus_to_exitcode(status)
    return f"ended with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
