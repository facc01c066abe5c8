"""This relay, by the plane it moves datagrams with and by the form that its clients speak."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as File

from benchmarks.control import GROUP_RECEIVER, Channel, channel
from benchmarks.lab import CLIENT, GROUP, INSIDE, REMOTE, Lab
from benchmarks.paths import FIRST_CLIENT_PORT, FIRST_REMOTE_PORT, Case, Flow, Path
from benchmarks.process import Process
from benchmarks.subjects.subject import rfc1928_path

PORT = 1080
_HEADER_OCTETS = 8
_GROUP_PORT = 5000
_CONFIG = f"""\
[inside]
listen = ["{INSIDE[4]}:{PORT}", "[{INSIDE[6]}]:{PORT}"]
[[outside]]
interface = "out"
[auth]
methods = ["none"]
[plane]
kind = "PLANE"
[limits]
handshakes_per_client = 4096
connections_per_user = 4096
associations_per_user = 100000
group_receivers_per_user = 4096
local_endpoints_per_user = 4096
[[rules]]
name = "the bench"
allow = true
do = ["udp", "receive-group", "send-group"]
to = ["{REMOTE[4]}", "{REMOTE[6]}"]
groups = ["{GROUP}"]
"""


class Ours:
    """`rfc1928`: with UDP ASSOCIATE in place of the enhanced mode."""

    def __init__(self, plane: str, *, rfc1928: bool = False) -> None:
        self.plane, self.rfc1928 = plane, rfc1928
        self.name = f"{plane} RFC 1928" if rfc1928 else plane

    def refusal(self, case: Case) -> str | None:
        return "RFC 1928 has no groups" if self.rfc1928 and case.receivers else None

    @contextmanager
    def serving(self, lab: Lab, case: Case, folder: File) -> Iterator[Path]:
        with self.running(lab, folder) as process:
            if self.rfc1928:
                with rfc1928_path(lab, case, PORT) as path:
                    yield path.measuring(process.usage)
            elif case.receivers:
                with self.group(lab, case.receivers) as opened:
                    yield _group_path(lab, opened).measuring(process.usage)
            else:
                with self.associated(lab, case) as opened:
                    yield _path(lab, case, opened).measuring(process.usage)

    @contextmanager
    def running(self, lab: Lab, folder: File) -> Iterator[Process]:
        """By the command that an administrator uses. Raises Absent, for a plane that it does not know as well."""
        config = folder / "relay.toml"
        config.write_text(_CONFIG.replace("PLANE", self.plane))
        command = [sys.executable, "-m", "mcastsocks", "relay", "-c", str(config)]
        process = Process(lab.relay, command, folder / "relay.log")
        try:
            process.wait_for(lambda: process.listens(lab.relay, PORT))
            yield process
        finally:
            process.end()

    @contextmanager
    def associated(self, lab: Lab, case: Case) -> Iterator[Channel]:
        with channel(lab.client, (INSIDE[case.version], PORT), case.clients(), case.remotes()) as opened:
            yield opened

    @contextmanager
    def group(self, lab: Lab, receivers: int) -> Iterator[Channel]:
        locals_ = [(CLIENT[4], FIRST_CLIENT_PORT + i) for i in range(receivers)]
        groups = [(GROUP, _GROUP_PORT)] * receivers
        with channel(lab.client, (INSIDE[4], PORT), locals_, groups, GROUP_RECEIVER) as opened:
            yield opened


def _path(lab: Lab, case: Case, opened: Channel) -> Path:
    clients, remotes = case.clients(), case.remotes()
    associations = opened.associations
    if case.inward:
        back = dict.fromkeys(Flow(remote, each.outside) for remote, each in zip(remotes, associations, strict=True))
        return Path(lab.remote, list(back), lab.client, list(dict.fromkeys(clients)), _HEADER_OCTETS)
    flows = [Flow(client, each.inside, each.header) for client, each in zip(clients, associations, strict=True)]
    return Path(lab.client, flows, lab.remote, list(dict.fromkeys(remotes)))


def _group_path(lab: Lab, opened: Channel) -> Path:
    receivers = len(opened.associations)
    listeners = [(CLIENT[4], FIRST_CLIENT_PORT + i) for i in range(receivers)]
    flow = Flow((REMOTE[4], FIRST_REMOTE_PORT), (GROUP, _GROUP_PORT))
    return Path(lab.remote, [flow], lab.client, listeners, _HEADER_OCTETS, receivers)
