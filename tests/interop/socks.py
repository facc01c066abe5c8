"""A relay for plain SOCKS: who logs in is known, who does not is served too; SOCKS 4 is on."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher

from tests.netns.lab import INSIDE, PORT, REMOTE, Lab, wait_for
from tests.netns.relay import RelayProcess

NAME = "outside.test"
"""The relay alone knows it: who gets there has left the look-up to the relay."""

USER, PASSWORD = "alice", "secret"
FORBIDDEN_PORT, SILENT_PORT = 7, 9
"""One that a rule closes, one where nobody listens."""

UNROUTED = "10.99.9.9"
"""An address that rules allow and no route leads to."""

_CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

_CONFIG = f"""
[inside]
listen = ["{INSIDE[4]}:{PORT}", "[{INSIDE[6]}]:{PORT}"]
[[outside]]
interface = "out"
[auth]
methods = ["none", "userpass"]
users = "users.toml"
[socks]
socks4 = true
[log]
format = "json"
[[rules]]
name = "no echo"
allow = false
do = ["connect", "udp"]
ports = {FORBIDDEN_PORT}
[[rules]]
name = "the outside"
allow = true
do = ["connect", "bind", "udp"]
to = ["10.77.2.0/24", "fd77:2::/64", "{UNROUTED}"]
"""

_WITH_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'
"""`ip netns exec` gives each program a mount namespace of its own, so that nobody else sees this."""


class SocksRelay(RelayProcess):
    """See RelayProcess; ended with `close`."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        config, users, hosts = folder / "relay.toml", folder / "users.toml", folder / "hosts"
        config.write_text(_CONFIG)
        users.write_text(f'[users.{USER}]\npassword = "{_CHEAP.hash(PASSWORD)}"\n')
        users.chmod(0o600)
        hosts.write_text(f"127.0.0.1 localhost\n{REMOTE[4]} {NAME}\n")
        self.process = lab.relay.popen(
            *("sh", "-c", _WITH_HOSTS, str(hosts), sys.executable, "-m", "mcastsocks", "relay", "-c", str(config)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.records: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_records, self._read_errors)]
        for reader in self._readers:
            reader.start()
        wait_for("the relay to start", lambda: self._has_started() or self.process.poll() is not None)
        if not self._has_started():
            self.close()
            raise AssertionError(f"the relay did not start: {''.join(self.errors)}")

    def ended(self, command: str) -> dict[str, Any]:
        """The record of the only connection of that command, once it is over."""
        self.wait_for_record(f"{command}-end")
        (record,) = self.all_ended(command)
        return record

    def all_ended(self, command: str) -> list[dict[str, Any]]:
        """Those over by now."""
        return [record for record in list(self.records) if record["event"] == f"{command}-end"]


def crossed(record: Mapping[str, Any]) -> tuple[int, int]:
    """Octets of a connection: to the remote, to the client."""
    return record["to_remote_octets"], record["to_client_octets"]
