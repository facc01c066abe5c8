"""check and relay: what a configuration means, or what is wrong with it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from mcastsocks.server import descriptors
from tests.cli.conftest import Command
from tests.server.loopback import free_port

BASE = """\
[inside]
listen = ["[fd00:0::1]:1080"]
advertise = "198.51.100.1"
[outside]
interface = "lo"
[auth]
methods = ["userpass"]
users = "users.toml"
"""
HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("secret")


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = tmp_path / "users.toml"
    users.write_text(f'[users.alice]\npassword = "{HASH}"\n[teams]\ndesk = ["alice"]\n')
    users.chmod(0o600)
    monkeypatch.setattr(descriptors, "claim", lambda limits, upstreams: descriptors.Descriptors(1024, 400, 496))


def explained(command: Command, rules: str) -> list[str]:
    """What check says about rules."""
    Path("relay.toml").write_text(BASE + rules)
    ran = command("check", "-c", "relay.toml")
    assert (ran.code, ran.err) == (0, "")
    return ran.out.splitlines()


def test_embedded_default_is_valid_and_explained(command: Command) -> None:
    ran = command("check")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "embedded default: valid"
    assert lines[1].startswith("inside 127.0.0.1:1080: ")
    assert lines[2:4] == ["UDP ASSOCIATE by UDP ports 1081-1180", "authentication: none"]
    rules = [line for line in lines if " allow " in line or " deny " in line]
    assert [line.split()[:2] for line in rules] == [["1", "deny"], ["2", "allow"], ["3", "allow"], [".", "deny"]]
    assert "TTL up to 1 (groups of this organisation, on this host)" in rules[2]
    assert lines[-2].startswith("outside lo: groups are joined there, and remotes see 127.0.0.1")


def test_file_is_explained(command: Command) -> None:
    lines = explained(command, "")
    assert lines[:4] == [
        "relay.toml: valid",
        "inside [fd00::1]:1080, told to clients as 198.51.100.1: TCP, and the same port in UDP for datagrams",
        "UDP ASSOCIATE by UDP ports 1081-1180",
        "authentication: userpass",
    ]
    assert lines[-3].startswith("outside lo: ")
    assert lines[-2:] == ["1024 descriptors: at most 400 connections and 496 UDP sockets", "users: 1, teams: 1"]


def test_workers_and_their_ports_are_explained(command: Command) -> None:
    lines = explained(command, "[plane]\nworkers = 3\n")
    assert lines[1].endswith(": TCP, and UDP ports 1080-1082 for datagrams, one for each of 3 workers")
    assert lines[2] == "UDP ASSOCIATE by UDP ports 1083-1182, 33 for each worker"
    assert lines[-2].startswith("each worker: 1024 descriptors: ")


def test_ways_out_and_upstreams_are_explained(command: Command) -> None:
    ways = '[[outside]]\ninterface = "lo"\nname = "street"\n[[outside]]\ninterface = "127.0.0.1"\nname = "annex"\n'
    hub = '[[upstream]]\nname = "hub"\nrelay = "socks5://gate@fw.example"\npassword_file = "hub.secret"\n'
    Path("hub.secret").write_text("hunter2\n")
    Path("hub.secret").chmod(0o600)
    rule = '[[rules]]\nname = "far"\nallow = true\ndo = ["udp"]\nvia = "annex"\ndscp = 34\nupstream = "hub"\n'
    base = BASE.replace('[outside]\ninterface = "lo"\n', ways) + "[socks]\nsocks4 = true\n"
    Path("relay.toml").write_text(base + hub + rule)
    ran = command("check", "-c", "relay.toml")
    assert ran.code == 0
    assert "hunter2" not in ran.out + ran.err
    assert (
        "UDP ASSOCIATE by UDP ports 1081-1180, SOCKS 4 and 4a too\nupstream hub: socks5://gate@fw.example:1080\n"
        in ran.out
    )
    assert "| via annex | through hub | DSCP 34 (far)" in ran.out
    assert "\noutside street: lo: groups are joined there" in ran.out


def test_an_upstreams_password_is_asked_for_in_a_file_and_never_repeated(command: Command) -> None:
    for relay, said in (
        ("socks5://gate:hunter2@fw.example", "and the password in password_file, not in here"),
        ("socks5://gate:hunt/er2@fw.example", "not what stands here"),
    ):
        Path("relay.toml").write_text(BASE + f'[[upstream]]\nname = "hub"\nrelay = "{relay}"\n')
        ran = command("check", "-c", "relay.toml")
        assert ran.code == 2
        assert ran.err.startswith("relay.toml:11: upstream[0].relay: expected socks5://")
        assert said in ran.err
        assert "er2" not in ran.err


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            "",
            "allow anyone | receive-group, send-group: any unprotected group"
            " | udp, connect, bind: any unprotected address",
        ),
        (
            'users = ["alice", "@desk"]\nclients = ["192.0.2.0/24", "::1"]\ndo = ["udp"]',
            "allow alice, @desk from 192.0.2.0/24, ::1/128 | udp: any unprotected address",
        ),
        (
            'groups = ["239.1.0.0/16", "ff15::/16"]\nmax_ttl = 16',
            "allow anyone | receive-group, send-group: 239.1.0.0/16, ff15::/16"
            " | udp, connect, bind: any unprotected address | TTL up to 16",
        ),
        (
            'do = ["bind", "receive-group"]\nto = ["198.51.100.7", "*.example"]\nports = [53, "5000-5999"]',
            "allow anyone | receive-group: any unprotected group | bind: 198.51.100.7/32, *.example"
            " | port 53, 5000-5999",
        ),
    ],
)
def test_rule_is_explained_in_full(command: Command, fields: str, sentence: str) -> None:
    """What a rule leaves out is said too: it allows more than somebody may think."""
    lines = explained(command, f'[[rules]]\nname = "a [b] rule"\nallow = true\n{fields}\n')
    assert f"   1 {sentence} (a [b] rule)" in lines


def test_rule_that_denies_is_explained_to_match_protected_ranges_too(command: Command) -> None:
    lines = explained(command, '[[rules]]\nname = "no"\nallow = false\n')
    assert "   1 deny  anyone | receive-group, send-group: any group | udp, connect, bind: any address (no)" in lines


def test_every_rule_is_explained_in_order_and_the_rest_is_denied(command: Command) -> None:
    rules = "".join(f'[[rules]]\nname = "rule {n}"\nallow = {"false" if n % 2 else "true"}\n' for n in range(12))
    lines = explained(command, rules)
    begin = lines.index("rules, the first that matches decides:") + 1
    for number, line in enumerate(lines[begin : begin + 12], 1):
        assert line.split()[:2] == [str(number), "allow" if number % 2 else "deny"]
        assert line.endswith(f"(rule {number - 1})")
    assert lines[begin + 12].split(None, 2) == [".", "deny", "everything else"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"lo"', '"eth99"', "relay.toml:5: outside.interface: no interface 'eth99' here; there are "),
        ('"userpass"', '"password"', "relay.toml:7: auth.methods[0]: expected 'none' or 'userpass', not 'password'\n"),
        ("[inside]", "[inside", "relay.toml:1: not TOML: Expected ']' at the end of a table declaration\n"),
        (
            '"users.toml"',
            '"no.toml"',
            "relay.toml:8: auth.users: no file no.toml; 'mcastsocks user add NAME -f no.toml'",
        ),
    ],
)
def test_errors_are_printed_and_exit_2(command: Command, old: str, new: str, said: str) -> None:
    Path("relay.toml").write_text(BASE.replace(old, new))
    for name in ("check", "relay"):
        ran = command(name, "-c", "relay.toml")
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(said)


def test_every_error_has_a_line_of_its_own(command: Command) -> None:
    Path("relay.toml").write_text(BASE + "[log]\nfrmat = 1\n[limits]\ngroups = 0\n")
    ran = command("check", "-c", "relay.toml")
    assert ran.err.splitlines() == [
        "relay.toml:10: log.frmat: unknown key; did you mean 'format'?",
        "relay.toml:12: limits.groups: expected greater than or equal to 1, not 0",
    ]


def test_file_that_is_not_there_is_named(command: Command) -> None:
    ran = command("check", "-c", "nowhere.toml")
    assert (ran.code, ran.err) == (2, "nowhere.toml: No such file or directory\n")


def test_name_of_the_file_is_printed_as_it_is(command: Command) -> None:
    Path("[bold].toml").write_text(BASE)
    assert command("check", "-c", "[bold].toml").out.startswith("[bold].toml: valid\n")


def test_relay_whose_port_is_taken_says_so_and_records_nothing(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        Path("relay.toml").write_text(BASE.replace("[fd00:0::1]:1080", f"127.0.0.1:{port}"))
        ran = command("relay", "-c", "relay.toml")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"relay.toml:2: inside.listen[0]: cannot listen on TCP 127.0.0.1:{port}: Address already in use\n"


@contextmanager
def running(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A relay in a process of its own, killed at the end if it still runs."""
    (folder / "relay.toml").write_text(BASE.replace("[fd00:0::1]:1080", f"127.0.0.1:{port}"))
    with subprocess.Popen(
        [sys.executable, "-m", "mcastsocks", "relay", "-c", "relay.toml"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as relay:
        try:
            yield relay
        finally:
            relay.kill()


def record(relay: subprocess.Popen[str]) -> str:
    """The next line of its record."""
    assert relay.stdout is not None
    assert select.select([relay.stdout], [], [], 20)[0]
    return relay.stdout.readline()


def test_hangup_leaves_the_relay_running_and_is_recorded(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port) as relay:
        assert " relay-start " in record(relay)
        relay.send_signal(signal.SIGHUP)
        assert " reload " in record(relay)
        socket.create_connection(("127.0.0.1", port), 10).close()
        relay.send_signal(signal.SIGTERM)
        records, _ = relay.communicate(timeout=20)
    assert relay.returncode == 0
    assert records.splitlines()[-1].endswith(" relay-end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_relay_explains_itself_runs_and_stops_by_signal(tmp_path: Path, number: signal.Signals) -> None:
    """Standard error is for people, standard output for records alone."""
    port = free_port()
    with running(tmp_path, port) as relay:
        started = record(relay)
        socket.create_connection(("127.0.0.1", port), 10).close()
        relay.send_signal(number)
        records, said = relay.communicate(timeout=20)
    assert relay.returncode == 0
    assert f" relay-start version=0.1.0 configuration=relay.toml listen=127.0.0.1:{port} outside=lo" in started
    assert records.splitlines()[-1].endswith(" relay-end")
    assert " counters connections=0 turned_away=0 associations=0 " in records
    assert "rules, the first that matches decides:" in said
    assert "plane batch" in said
    assert "Traceback" not in said
