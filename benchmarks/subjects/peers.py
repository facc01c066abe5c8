"""Other relays: how each is started and what it can do. None of their code is here."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path as File

from benchmarks.errors import Absent
from benchmarks.lab import BORDER, CLIENT, GROUP, INSIDE, REMOTE, Lab
from benchmarks.paths import FIRST_CLIENT_PORT, FIRST_REMOTE_PORT, Case, Flow, Path
from benchmarks.process import Process
from benchmarks.subjects.subject import rfc1928_path

PEER_PORT = 1280
_GROUP_PORT = 5000
_MOST_PROCESSES = 10
_ALONE = ("sh", "-c", 'mount -t tmpfs none /run && exec "$0" "$@"')
"""A file with a fixed name in /run is in the mount namespace that `ip netns exec` made for it alone."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A SOCKS 5 relay. In `command` and `config` stand {port}, {inside}, {border}; {config} is the file's name."""

    name: str
    command: tuple[str, ...]
    config: str = ""
    versions: frozenset[int] = field(default=frozenset({4, 6}))
    most_clients: int = 1000

    def refusal(self, case: Case) -> str | None:
        if case.receivers:
            return "RFC 1928 has no groups"
        if case.version not in self.versions:
            return f"not with IPv{case.version}"
        if case.thin and case.associations > self.most_clients:
            return f"not with more than {self.most_clients} clients"
        return None

    @contextmanager
    def serving(self, lab: Lab, case: Case, folder: File) -> Iterator[Path]:
        with self.running(lab, folder, case.version) as process, rfc1928_path(lab, case, PEER_PORT) as path:
            yield path.measuring(process.usage)

    @contextmanager
    def running(self, lab: Lab, folder: File, version: int = 4) -> Iterator[Process]:
        """Raises Absent."""
        _require(self.command[0])
        file = folder / "peer.conf"
        words = {"port": PEER_PORT, "inside": INSIDE[version], "border": BORDER[version], "config": file}
        file.write_text(self.config.format_map(words))
        command = [*_ALONE, *(word.format_map(words) for word in self.command)]
        process = Process(lab.relay, command, folder / "peer.log")
        try:
            process.wait_for(lambda: process.listens(lab.relay, PEER_PORT))
            yield process
        finally:
            process.end()


@dataclass(frozen=True, slots=True)
class Forwarder:
    """A program that copies one group to one receiver; more receivers are more of them, up to ten."""

    name: str
    command: tuple[str, ...]

    def refusal(self, case: Case) -> str | None:
        if not case.receivers:
            return "groups only"
        return f"a process for each receiver: at most {_MOST_PROCESSES}" if case.receivers > _MOST_PROCESSES else None

    @contextmanager
    def serving(self, lab: Lab, case: Case, folder: File) -> Iterator[Path]:
        _require(self.command[0])
        listeners = [(CLIENT[4], FIRST_CLIENT_PORT + i) for i in range(case.receivers)]
        script = " & ".join(shlex.join(self._for(port)) for _, port in listeners) + " & wait"
        process = Process(lab.relay, ["sh", "-c", script], folder / "forwarders.log")
        try:
            process.wait_for(lambda: process.sockets(lab.relay, _GROUP_PORT) == case.receivers)
            flow = Flow((REMOTE[4], FIRST_REMOTE_PORT), (GROUP, _GROUP_PORT))
            yield Path(lab.remote, [flow], lab.client, listeners, 0, case.receivers, process.usage)
        finally:
            process.end()

    def _for(self, port: int) -> list[str]:
        words = {"group": GROUP, "group_port": _GROUP_PORT, "border": BORDER[4], "client": CLIENT[4], "port": port}
        return [word.format_map(words) for word in self.command]


_DANTE = """\
logoutput: stderr
internal: {inside} port = {port}
external: out
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 0/0 to: 0/0 }}
socks pass {{ from: 0/0 to: 0/0 command: udpassociate udpreply }}
"""
_HEV = """\
main:
  workers: 1
  port: {port}
  listen-address: '{inside}'
misc:
  log-level: warn
"""

PEERS = {
    "dante": Peer("dante", ("danted", "-f", "{config}"), _DANTE),
    "asyncio-socks-server": Peer(
        "asyncio-socks-server", ("asyncio_socks_server", "-H", "{inside}", "-P", "{port}"), versions=frozenset({4})
    ),
    "hev": Peer("hev", ("hev-socks5-server", "{config}"), _HEV),
}
FORWARDERS = {
    "socat": Forwarder(
        "socat",
        (
            *("socat", "-u", "UDP4-RECV:{group_port},bind={group},ip-add-membership={group}:{border},reuseaddr"),
            "UDP4-SENDTO:{client}:{port}",
        ),
    ),
    "multicat": Forwarder(
        "multicat", ("multicat", "-u", "-U", "@{group}:{group_port}/ifaddr={border}", "{client}:{port}")
    ),
}


def named(name: str, command: str) -> Peer:
    """A peer of the command line: a known name with another program, or a command with {port} and {inside}."""
    words = tuple(shlex.split(command))
    if not words:
        raise Absent(f"no command for {name}")
    if name in PEERS and "{" not in command:
        return replace(PEERS[name], command=(*words, *PEERS[name].command[1:]))
    return Peer(name, words)


def _require(program: str) -> None:
    if shutil.which(program) is None:
        raise Absent(f"{program} is not installed")
