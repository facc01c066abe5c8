"""Measure relays in turns (A B A B), one CPU for the relay and one for both ends; median and spread.

Where the relay is not busy, the ends were the limit: then only its CPU time says what it could do. On loopback whoever
sends also does the receiving side's work in the kernel.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.streams import ends, relays

_ENDS_CPU, _RELAY_CPU = 0, 1
Figures = dict[str, float]
"""By the name of what was measured."""

Started = dict[str, relays.Relay]

_LIMITS = {"no relay, 1 CPU": _ENDS_CPU, "no relay, 2 CPUs": _RELAY_CPU}
"""What the ends themselves reach, by the CPU that the client's end runs on; no relay can be seen to be faster."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--relay", action="append", choices=list(relays.RELAYS), help="again for each; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gib", type=float, default=2.0, help="octets of one bulk stream")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=4, help="processes that open connections")
    options = parser.parse_args()
    names = [name for name in options.relay or relays.RELAYS if relays.installed(name)]
    for line in machine():
        print(line)
    octets = int(options.gib * (1 << 30))
    os.sched_setaffinity(0, {_ENDS_CPU})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target = stack.enter_context(ends.source(_ENDS_CPU))
        started = {name: stack.enter_context(relays.running(name, _RELAY_CPU, folder)) for name in names}
        print(f"\nbulk, {options.gib:g} GiB a stream, {options.rounds} rounds")
        show(in_turns(started, options.rounds, lambda port: bulk(port, target, octets)), "s/GB", octets / 1e9)
        count, clients = options.connections, options.clients
        print(f"\nconnections, {count} by {clients} clients, {options.rounds} rounds")
        show(in_turns(started, options.rounds, lambda port: many(port, target, count, clients)), "us each", count / 1e6)


def in_turns(started: Started, rounds: int, measure: Callable[[int | None], Figures]) -> dict[str, list[Figures]]:
    """`measure` takes a relay's port, None to do without; what the relay used of its CPU is added."""
    found: dict[str, list[Figures]] = defaultdict(list)
    for _ in range(rounds):
        for name, cpu in _LIMITS.items():
            os.sched_setaffinity(0, {cpu})
            found[name].append(measure(None))
        os.sched_setaffinity(0, {_ENDS_CPU})
        for name, relay in started.items():
            before, begun = relay.cpu_s(), time.perf_counter()
            figures = measure(relay.port)
            used, took = relay.cpu_s() - before, time.perf_counter() - begun
            found[name].append(figures | {"relay busy": used / took, "CPU": used})
    return found


def bulk(port: int | None, target: int, octets: int) -> Figures:
    return {"GB/s": octets / ends.fetch(port, target, octets) / 1e9}


def many(port: int | None, target: int, connections: int, clients: int) -> Figures:
    return {"1/s": connections / ends.knock(port, target, connections, clients)}


def show(found: dict[str, list[Figures]], per: str, count: float) -> None:
    """median (least .. most); CPU is shown for each of `count`, named by `per`."""
    for name, rounds in found.items():
        columns = []
        for what in rounds[0]:
            scale, label = (1 / count, f"CPU {per}") if what == "CPU" else (1, what)
            values = [figures[what] * scale for figures in rounds]
            columns.append(f"{label} {median(values):6.4g} ({min(values):.4g} .. {max(values):.4g})")
        print(f"{name:16}", "  ".join(f"{column:34}" for column in columns).rstrip())


def machine() -> Iterator[str]:
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ":?")
    yield f"{os.cpu_count()} x {model.partition(':')[2].strip()}, load {os.getloadavg()[0]:.2f}"
    yield f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    for package in ("dante-server", "microsocks"):
        asked = subprocess.run(["dpkg-query", "-W", package], capture_output=True, text=True, check=False)
        yield asked.stdout.strip() or f"{package} is not installed"


if __name__ == "__main__":
    main()
