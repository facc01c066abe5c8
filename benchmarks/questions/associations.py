"""What does an association cost in memory and descriptors, and how fast are they opened?

Method. After a first association, so that what is set up once is not counted, so many more are opened: in enhanced mode
by one client on one control channel, all requests written at once, timed from the first request to the last reply;
with RFC 1928 one after the other, each with a connection and a client port of its own. Memory is the growth of the
relay's proportional set size (Pss, so user space only), descriptors the growth of its /proc/PID/fd. The client runs on
the other core and encodes and decodes in Python: the rate is at least what is shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path as File

from benchmarks.control import associates
from benchmarks.effort import Effort
from benchmarks.errors import Absent
from benchmarks.figures import Measured, Table
from benchmarks.lab import INSIDE, Lab
from benchmarks.paths import Case
from benchmarks.rounds import in_turns
from benchmarks.subjects.catalogue import Choice
from benchmarks.subjects.ours import PORT, Ours
from benchmarks.subjects.peers import PEER_PORT, Peer
from benchmarks.subjects.subject import Subject

_RATE, _MEMORY, _DESCRIPTORS = "opened/s", "octets each", "descriptors each"
FIGURES = (_RATE, _MEMORY, _DESCRIPTORS)


def cases(effort: Effort) -> list[Case]:
    """Thin clients are what RFC 1928 can do; the enhanced mode's are of one client."""
    few, many = (100, 1000) if effort.quick else (1000, 10_000)
    return [Case(associations=few, thin=True), Case(associations=many)]


def answer(effort: Effort, choice: Choice, cases: Sequence[Case]) -> Table:
    return in_turns(cases, choice.socks_relays(), effort.rounds, _measure)


def _measure(lab: Lab, case: Case, subject: Subject, folder: File) -> Measured:
    if not isinstance(subject, Ours | Peer):
        raise Absent("it has no associations")
    with subject.running(lab, folder) as process, _opened(lab, Case(associations=1), subject):
        memory, descriptors = process.memory_octets(), process.descriptors()
        with _opened(lab, case, subject) as seconds:
            values = {
                _RATE: case.associations / seconds,
                _MEMORY: (process.memory_octets() - memory) / case.associations,
                _DESCRIPTORS: (process.descriptors() - descriptors) / case.associations,
            }
    return Measured(values)


@contextmanager
def _opened(lab: Lab, case: Case, subject: Ours | Peer) -> Iterator[float]:
    """They are open; the seconds that took."""
    if isinstance(subject, Ours) and not subject.rfc1928:
        with subject.associated(lab, case) as channel:
            yield channel.seconds
        return
    if not case.thin and case.associations > 1:
        raise Absent("RFC 1928 has one association for each connection")
    port = PORT if isinstance(subject, Ours) else PEER_PORT
    begun = time.perf_counter()
    with associates(lab.client, (INSIDE[4], port), case.clients()):
        yield time.perf_counter() - begun
