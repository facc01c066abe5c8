"""A relay in its namespace, started by the command that an administrator uses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher

from tests.netns.lab import INSIDE, PORT, SECOND, Lab, wait_for

_CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORDS = {"alice": "secret", "bob": "hunter2", "carol": "nothing"}

RULES = """
[[rules]]
name = "desk may watch and talk"
allow = true
users = ["@desk"]
do = ["receive-group", "send-group"]
groups = ["239.77.0.0/16", "232.0.0.0/8", "ff15::/16", "ff35::/16"]
ports = "5000-5999"
max_ttl = 16
[[rules]]
name = "bob may watch"
allow = true
users = ["bob"]
do = ["receive-group"]
groups = ["239.77.0.0/16", "232.0.0.0/8", "ff15::/16", "ff35::/16"]
[[rules]]
name = "desk may ask the outside"
allow = true
users = ["@desk"]
do = ["udp"]
to = ["10.77.2.0/24", "fd77:2::/64"]
"""


class RelayProcess:
    """The process, its records as they come, and its counters on demand."""

    def __init__(
        self,
        lab: Lab,
        folder: Path,
        *,
        rules: str = RULES,
        limits: str = "dead_client_s = 5",
        outside: str = "",
        inside: str = "",
        socks: str = "",
        plane: str = "",
    ) -> None:
        self._lab = lab
        users = "\n".join(f'[users.{name}]\npassword = "{_CHEAP.hash(word)}"' for name, word in PASSWORDS.items())
        users_file = folder / "users.toml"
        users_file.write_text(f'{users}\nhosts = ["{SECOND[4]}"]\n[teams]\ndesk = ["alice"]\n')
        users_file.chmod(0o600)
        plane = f"[plane]\n{plane}" if plane else ""
        config = folder / "relay.toml"
        config.write_text(
            f"""
[inside]
listen = ["{INSIDE[4]}:{PORT}", "[{INSIDE[6]}]:{PORT}"]
{inside}
[[outside]]
interface = "out"
{outside}
[auth]
methods = ["userpass"]
users = "users.toml"
[socks]
{socks}
{plane}
[limits]
{limits}
[log]
format = "json"
{rules}"""
        )
        self.process = lab.relay.popen(
            sys.executable,
            "-m",
            "mcastsocks",
            "relay",
            "-c",
            str(config),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.records: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_records, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        started = wait_for("the relay to start", lambda: self._has_started() or self.process.poll() is not None)
        if not self._has_started():
            self.close()
            raise AssertionError(f"the relay did not start ({started}): {''.join(self.errors)}")

    @property
    def pid(self) -> int:
        """`ip netns exec` becomes the program, so this is the relay's own."""
        return self.process.pid

    def wait_for_record(self, event: str, **fields: object) -> dict[str, Any]:
        """The newest record of that event with those values."""

        wanted = {"event": event, **fields}.items()

        def found() -> list[dict[str, Any]]:
            return [record for record in list(self.records) if wanted <= record.items()]

        return wait_for(f"record {dict(wanted)}", found)[-1]

    def counters(self) -> dict[str, int]:
        """What the plane counted up to now."""
        before = sum(record["event"] == "counters" for record in self.records)
        self.process.send_signal(signal.SIGUSR1)

        def newer() -> list[dict[str, Any]]:
            return [record for record in list(self.records) if record["event"] == "counters"][before:]

        newest = wait_for("counters", newer)[-1]
        return {key: value for key, value in newest.items() if isinstance(value, int)}

    def received_outside(self, count: int) -> bool:
        """Wait until so many datagrams came from outside."""
        return wait_for(f"{count} datagrams from outside", lambda: self.counters()["received_outside"] == count)

    def drops(self) -> dict[str, int]:
        return {key.removeprefix("drop."): n for key, n in self.counters().items() if key.startswith("drop.")}

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def close(self) -> None:
        """End it, and check what every test of a relay may expect: no datagram unaccounted for, no defect."""
        if self.process.poll() is None:
            self.stop()
        for reader in self._readers:
            reader.join(timeout=5)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        assert not [record for record in self.records if record["event"] == "defect"], self.errors
        for record in self.records:
            if record["event"] == "counters":
                came = sum(record[key] for key in ("received_inside", "received_outside", "copied", "reassembled"))
                dropped = sum(n for key, n in record.items() if key.startswith("drop."))
                went = sum(record[key] for key in ("sent_inside", "sent_outside", "hellos", "pieces", "waiting"))
                assert came == went + dropped, f"datagrams unaccounted for: {record}"

    def _has_started(self) -> bool:
        return any(record["event"] == "relay-start" for record in list(self.records))

    def _read_records(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.records.append(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line.decode())
