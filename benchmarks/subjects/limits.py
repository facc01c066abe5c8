"""What bounds every figure: the loop in C with and without checks, and the bench without any relay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as File

from benchmarks.control import Opened
from benchmarks.lab import BORDER, CLIENT, INSIDE, Host, Lab
from benchmarks.paths import Case, Flow, Path
from benchmarks.process import Process
from benchmarks.programs import program

_PORT = 1180
_DIRECT_PORT = 9000
_HIGH_BITS = 0x5A17_0000
"""So that an AID is no small number; its low bits are the slot."""


class CLoop:
    """The batch plane's system calls in C. `checked`: with its checks and counts."""

    def __init__(self, *, checked: bool) -> None:
        self._checked = checked
        self.name = "C loop" if checked else "C loop, no checks"

    def refusal(self, case: Case) -> str | None:
        return "the loop in C goes outward only" if case.inward or case.receivers else None

    @contextmanager
    def serving(self, lab: Lab, case: Case, folder: File) -> Iterator[Path]:
        inside, border = INSIDE[case.version], BORDER[case.version]
        options = ["-l", inside, "-p", str(_PORT), "-o", border, *([] if self._checked else ["-x"])]
        process = Process(lab.relay, [program("limit"), *options], folder / "limit.log")
        clients, remotes = case.clients(), case.remotes()
        opened = [Opened(_HIGH_BITS + i, (inside, _PORT), (border, 0)) for i in range(len(clients))]
        try:
            rows = zip(opened, clients, remotes, strict=True)
            process.feed("\n".join(f"{each.aid} {host} {port} {to} {at}" for each, (host, port), (to, at) in rows))
            process.wait_for(lambda: process.says("ready"))
            flows = [Flow(client, each.inside, each.header) for client, each in zip(clients, opened, strict=True)]
            yield Path(lab.client, flows, lab.remote, list(dict.fromkeys(remotes)), usage=process.usage)
        finally:
            process.end()


class Direct:
    """No relay: the generator sends to a sink at the relay's address, both on the core that they always share.

    The most that this bench can show; a relay that comes near it is limited by the bench.
    """

    name = "no relay"

    def refusal(self, case: Case) -> str | None:
        return None

    @contextmanager
    def serving(self, lab: Lab, case: Case, folder: File) -> Iterator[Path]:
        origin, address = (lab.remote, BORDER) if case.inward or case.receivers else (lab.client, INSIDE)
        sources = case.remotes() if origin is lab.remote else case.clients()
        ends = case.clients() if origin is lab.remote else case.remotes()
        if case.receivers:
            sources, ends = sources[:1] * case.receivers, [(CLIENT[4], _DIRECT_PORT + i) for i in range(case.receivers)]
        listeners = [(address[case.version], port) for _, port in ends]
        flows = [
            Flow(source, to, Opened(_HIGH_BITS, to, to).header) for source, to in zip(sources, listeners, strict=True)
        ]
        host = Host(lab.relay.name, lab.client.core)
        yield Path(origin, flows, host, list(dict.fromkeys(listeners)), len(flows[0].header))
