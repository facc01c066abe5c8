"""One load: the generator sends over a path for a moment while the sink counts."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path as File
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.figures import DISORDERED, HELD_UP, LOST
from benchmarks.paths import Address, Case, Flow, Path
from benchmarks.process import Process
from benchmarks.programs import program

FLOOD = 0.0
"""As a rate: as fast as the generator can."""

_PAUSE_US = 200
_DRAIN_S = 20.0
_HELD_UP = 0.03
_loads = count(1)


_BEHIND, _MOMENT_S = 1.03, 0.005


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one load showed.

    `held_up`: the relay was ready but its core was taken for too much of the time. What waits in buffers at the end of
    a flood arrives after it, so sending and arriving take their own seconds.
    """

    wanted_per_s: float
    sent: int
    received: int
    disordered: int
    sending_s: float
    arriving_s: float
    cpu_ns: int
    held_up: bool
    p50_us: float
    p99_us: float

    @property
    def kept_up(self) -> bool:
        """Nothing was lost, and the last arrived when it was sent, but for a moment."""
        return not self.lost and self.arriving_s < _BEHIND * self.sending_s + _MOMENT_S

    @property
    def sent_per_s(self) -> float:
        return self.sent / self.sending_s

    @property
    def received_per_s(self) -> float:
        return self.received / max(self.sending_s, self.arriving_s)

    @property
    def lost(self) -> int:
        return max(0, self.sent - self.received)

    @property
    def notes(self) -> set[str]:
        told = {HELD_UP: self.held_up, LOST: self.lost, DISORDERED: self.disordered}
        return {note for note, so in told.items() if so}

    @property
    def cpu_ns_each(self) -> float | None:
        """CPU of the relay for each datagram that arrived."""
        return self.cpu_ns / self.received if self.received else None


def load(path: Path, case: Case, rate_per_s: float, seconds: float, *, prompt: bool = False) -> Outcome:
    """Send at a rate, or a FLOOD, and count what arrives. `prompt`: the sink wakes for each datagram, for latency."""
    number = str(next(_loads))
    with tempfile.TemporaryDirectory() as folder:
        pause = () if prompt else ("-w", str(_PAUSE_US))
        coalesced = ("-g",) if case.coalesced else ()
        options = ("-i", number, "-k", str(path.skip_octets), "-f", str(len(path.flows)), *pause, *coalesced)
        sink = Process(path.end, [program("sink"), *options], File(folder, "sink"))
        try:
            sink.tell("".join(f"{host} {port}\n" for host, port in path.listeners) + ".\n")
            sink.wait_for(lambda: sink.says("ready"))
            before, begun = path.usage(), time.perf_counter()
            sent = _generate(path, case, number, rate_per_s, seconds, File(folder, "generator"))
            sink.tell(f"{sent['sent'] * path.copies}\n")
            sink.wait(_DRAIN_S)
            used, took = path.usage() - before, time.perf_counter() - begun
        except subprocess.TimeoutExpired:
            raise BenchmarkError("generator or sink does not end") from None
        finally:
            said = sink.end()
    counted = _figures(said)
    return Outcome(
        wanted_per_s=rate_per_s,
        sent=sent["sent"] * path.copies,
        received=counted["received"],
        disordered=counted["disordered"],
        sending_s=sent["seconds"],
        arriving_s=counted["seconds"],
        cpu_ns=used.cpu_ns,
        held_up=used.waited_ns > _HELD_UP * took * 1e9,
        p50_us=counted["p50_us"],
        p99_us=counted["p99_us"],
    )


def warm_up(path: Path, case: Case) -> None:
    """Every flow once: neighbours are resolved, endpoints learnt, sockets opened before anything is counted.

    Raises BenchmarkError when nothing arrives: a relay that has ended, or does not do this.
    """
    rate = 2_000.0 / path.copies if path.copies > 1 else 2_000.0
    seen = load(path, case, max(rate, 10.0), min(8.0, max(0.1, len(path.flows) * case.run / rate)))
    if not seen.received:
        raise BenchmarkError("nothing arrives through it")


def _generate(path: Path, case: Case, number: str, rate_per_s: float, seconds: float, log: File) -> dict[str, Any]:
    how = {"-p": case.payload_octets, "-n": case.run, "-r": rate_per_s, "-t": seconds, "-i": number}
    words = [str(word) for pair in how.items() for word in pair]
    generator = Process(path.origin, [program("generator"), *words], log)
    try:
        generator.feed("\n".join(map(str, sorted(path.flows, key=_source))))
        generator.wait(seconds + _DRAIN_S)
    finally:
        said = generator.end()
    return _figures(said)


def _source(flow: Flow) -> Address:
    """The generator wants flows of one source together."""
    return flow.source


def _figures(said: str) -> dict[str, Any]:
    """The line of JSON that generator and sink end with."""
    for line in said.splitlines():
        if line.startswith("{"):
            figures: dict[str, Any] = json.loads(line)
            return figures
    raise BenchmarkError(f"generator or sink failed: {said.strip() or 'it says nothing'}")
