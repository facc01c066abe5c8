"""How many datagrams a second does a relay move without loss, at what CPU cost, and how late?

Method. A generator and a sink in C share one core, the relay has the other. For each case and subject, started anew
each round and all subjects in turns:

- *loss-free/s*: a flood first, then at most eight halving steps below and above what came through; a step passes when
  every datagram arrived and the generator kept its pace.
- *CPU us*: user and system time of all the relay's threads for each datagram that arrived, at 10,000/s, at half the
  loss-free rate and in the flood. What the kernel does for a datagram on the relay's core, up to the sink's socket,
  is part of it, as the relay's system call causes it.
- *p50, p99 us*: one way at 10,000/s, from before the generator's system call to after the sink's, which sleeps in the
  kernel until a datagram wakes it. Both read one clock.

"no relay" is the generator sending to a sink at the relay's address, both on the core that they always share: the
bench's own limit. "C loop" is what Linux allows any relay that makes the same system calls; without checks, for
comparison. Peers speak RFC 1928: its one association serves all of a client's remotes, and stands for as many of ours.
Runs are made by the generator with UDP_SEGMENT and reach the relay's socket in one piece, as from a card with GRO. The
sink takes runs in one piece only where the case says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as File

from benchmarks.effort import Effort
from benchmarks.figures import BENCH, LOST, Measured, Table
from benchmarks.lab import Lab
from benchmarks.load import Outcome, load, warm_up
from benchmarks.paths import Case, Path
from benchmarks.rounds import in_turns
from benchmarks.search import Found, loss_free_rate
from benchmarks.subjects.catalogue import Choice
from benchmarks.subjects.subject import Subject

_STEADY_PER_S = 10_000
_RATE, _SATURATED = "loss-free/s", "flood/s"
_CPU_STEADY, _CPU_HALF, _CPU_FLOOD = "CPU us 10k/s", "CPU us half", "CPU us flood"
_P50, _P99 = "p50 us", "p99 us"
FIGURES = (_RATE, _SATURATED, _CPU_STEADY, _CPU_HALF, _CPU_FLOOD, _P50, _P99)


def cases(effort: Effort) -> list[Case]:
    """One thing varied at a time, around 64 octets of 100 associations."""
    runs = (1, 16)
    if effort.quick:
        return [Case(run=run) for run in runs]
    return [
        *(Case(payload_octets=octets, run=run) for octets in (64, 512, 1316) for run in runs),
        Case(run=16, coalesced=True),
        *(Case(associations=count) for count in (1, 10_000)),
        Case(associations=1000, thin=True),
        *(Case(inward=True, run=run) for run in runs),
        Case(associations=1000, thin=True, inward=True),
        *(Case(version=6, inward=inward, run=run) for inward in (False, True) for run in runs),
    ]


def answer(effort: Effort, choice: Choice, cases: Sequence[Case]) -> Table:
    def measure(lab: Lab, case: Case, subject: Subject, folder: File) -> Measured:
        with subject.serving(lab, case, folder) as path:
            warm_up(path, case)
            return _measure(path, case, effort)

    return in_turns(cases, choice.relays(), effort.rounds, measure)


def _measure(path: Path, case: Case, effort: Effort) -> Measured:
    found = loss_free_rate(path, case, steps=effort.steps, step_s=effort.step_s, tries=effort.tries)
    steady = load(path, case, _STEADY_PER_S, effort.step_s)
    late = load(path, case, _STEADY_PER_S, effort.step_s, prompt=True)
    half = load(path, case, found.per_s / 2, effort.step_s) if found.per_s else None
    values = {_RATE: found.per_s, _SATURATED: found.flood.received_per_s, _P50: late.p50_us, _P99: late.p99_us}
    for name, outcome in ((_CPU_STEADY, steady), (_CPU_HALF, half), (_CPU_FLOOD, found.flood)):
        if outcome is not None and outcome.cpu_ns_each:
            values[name] = outcome.cpu_ns_each / 1000
    return Measured(values, _notes(found, steady, late, half))


def _notes(found: Found, steady: Outcome, late: Outcome, half: Outcome | None) -> dict[str, set[str]]:
    notes = {_RATE: {BENCH}} if found.bench else {}
    outcomes = {_SATURATED: found.flood, _CPU_STEADY: steady, _CPU_HALF: half, _P50: late, _P99: late}
    notes |= {name: each.notes for name, each in outcomes.items() if each is not None}
    notes[_SATURATED].discard(LOST)  # as it should be
    return notes
