"""One interface for everything that is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path as File
from typing import Protocol

from benchmarks.control import associates, socks_header, socks_header_octets
from benchmarks.errors import BenchmarkError
from benchmarks.lab import INSIDE, Lab
from benchmarks.paths import Address, Case, Flow, Path

_PATIENCE_S = 0.2
_TRIES = 20


class Subject(Protocol):
    """Started for each measurement anew, ended after it."""

    @property
    def name(self) -> str: ...

    def refusal(self, case: Case) -> str | None:
        """Why it is not measured with this traffic; None when it is."""

    def serving(self, lab: Lab, case: Case, folder: File) -> AbstractContextManager[Path]:
        """It runs, and all is opened for the traffic. Raises Absent when it is not here or does not start."""


@contextmanager
def rfc1928_path(lab: Lab, case: Case, port: int) -> Iterator[Path]:
    """UDP ASSOCIATEs at a relay's port: one that serves all destinations, or one for each thin client."""
    clients, remotes = case.clients(), case.remotes()
    distinct = list(dict.fromkeys(clients))
    with associates(lab.client, (INSIDE[case.version], port), distinct) as relays:
        where = dict(zip(distinct, relays, strict=True))
        flows = [
            Flow(client, where[client], socks_header(remote)) for client, remote in zip(clients, remotes, strict=True)
        ]
        if not case.inward:
            yield Path(lab.client, flows, lab.remote, list(dict.fromkeys(remotes)))
            return
        answers = dict.fromkeys(
            Flow(remote, _contact(lab, flow, remote)) for flow, remote in zip(flows, remotes, strict=True)
        )
        yield Path(lab.remote, list(answers), lab.client, distinct, socks_header_octets(case.version))


def _contact(lab: Lab, flow: Flow, remote: Address) -> Address:
    """The client speaks to the remote, so that the relay takes its answers; the relay's endpoint that it sees."""
    version = 6 if ":" in remote[0] else 4
    with (
        lab.client.socket(version) as client,
        lab.remote.socket(version, timeout_s=_PATIENCE_S) as other,
    ):
        client.bind(flow.source)
        other.bind(remote)
        for _ in range(_TRIES):
            client.sendto(flow.header + b"hello", flow.to)
            try:
                seen: Address = other.recvfrom(100)[1][:2]
            except TimeoutError:
                continue
            return seen
    raise BenchmarkError("the remote hears nothing through the relay")
