"""What does a copy of a group's datagram cost, by the number of receivers?

Method. The remote sends to a group that 1 to 1,000 associations of one client receive in MU-mode, each at a port of its
own, 1,316 octets in bursts of 1 and of 16. CPU time of all the relay's threads for each copy that arrived, at 50,000
copies a second and in a flood. Programs that forward one group to one receiver run once for each of up to ten. "no
relay" is the generator sending every copy itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as File

from benchmarks.effort import Effort
from benchmarks.figures import Measured, Table
from benchmarks.lab import Lab
from benchmarks.load import FLOOD, load, warm_up
from benchmarks.paths import Case
from benchmarks.rounds import in_turns
from benchmarks.subjects.catalogue import Choice
from benchmarks.subjects.subject import Subject

_COPIES_PER_S = 50_000
_NS, _NS_FLOOD, _FLOOD_PER_S, _LOSS = "ns a copy", "ns flood", "copies/s flood", "lost %"
FIGURES = (_NS, _NS_FLOOD, _FLOOD_PER_S, _LOSS)


def cases(effort: Effort) -> list[Case]:
    receivers = (1, 100) if effort.quick else (1, 10, 100, 1000)
    return [Case(payload_octets=1316, run=run, associations=1, receivers=n) for n in receivers for run in (1, 16)]


def answer(effort: Effort, choice: Choice, cases: Sequence[Case]) -> Table:
    def measure(lab: Lab, case: Case, subject: Subject, folder: File) -> Measured:
        with subject.serving(lab, case, folder) as path:
            warm_up(path, case)
            steady = load(path, case, _COPIES_PER_S / path.copies, effort.step_s)
            flood = load(path, case, FLOOD, effort.step_s)
        values = {_LOSS: 100 * (1 - steady.received / steady.sent), _FLOOD_PER_S: flood.received_per_s}
        for name, outcome in ((_NS, steady), (_NS_FLOOD, flood)):
            if outcome.cpu_ns_each:
                values[name] = outcome.cpu_ns_each
        return Measured(values, {_NS: steady.notes})

    return in_turns(cases, choice.forwarders(), effort.rounds, measure)
