"""The relay's configuration: what it takes, what it defaults to, and what it says about the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from mcastsocks.address import Endpoint
from mcastsocks.errors import ConfigError
from mcastsocks.rules.decide import Query, Ruleset
from mcastsocks.rules.model import Action
from mcastsocks.rules.protected import Protected
from mcastsocks.server.config import Loaded, load_config

HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("secret")
USERS = f'[users.alice]\npassword = "{HASH}"\n[teams]\ndesk = ["alice"]\n'
WHOLE = """\
[inside]
listen = ["192.0.2.1:1080", "[2001:db8::1]:1081"]
advertise = "198.51.100.1"
[outside]
interface = "eth1"
[auth]
methods = ["userpass", "none"]
users = "users.toml"
[plane]
kind = "auto"
[limits]
handshake_timeout_s = 2.5
associations = 10
[log]
format = "json"
[[rules]]
name = "desk may watch and talk"
allow = true
users = ["alice", "@desk"]
clients = ["192.0.2.0/24"]
do = ["receive-group", "send-group", "udp", "connect", "bind"]
groups = ["239.1.0.0/16", "ff15::/16"]
to = ["198.51.100.0/24"]
ports = "5000-5999"
max_ttl = 16
modes = ["mu"]
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def both(text: str, users: str | None = USERS) -> Path:
        if users is not None:
            (tmp_path / "users.toml").write_text(users)
            (tmp_path / "users.toml").chmod(0o600)
        file = tmp_path / "relay.toml"
        file.write_text(text)
        return file

    return both


def problems(file: Path) -> list[str]:
    """What is wrong, without the folder's name."""
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    return [problem.replace(f"{file.parent}/", "") for problem in caught.value.problems]


def test_whole_file_is_taken(write: Write) -> None:
    loaded = load_config(write(WHOLE))
    config = loaded.config
    assert config.inside.listen == [
        Endpoint(ip_address("192.0.2.1"), 1080),
        Endpoint(ip_address("2001:db8::1"), 1081),
    ]
    assert config.inside.advertise == ip_address("198.51.100.1")
    assert (config.limits.handshake_timeout_s, config.limits.associations) == (2.5, 10)
    assert (config.plane.kind, config.log.format) == ("auto", "json")
    assert list(loaded.users.users) == ["alice"]
    assert loaded.source.endswith("relay.toml")


def test_no_more_than_three_tables_are_needed(write: Write) -> None:
    text = '[inside]\nlisten = ["192.0.2.1:1080"]\n[outside]\ninterface = "eth1"\n[auth]\nusers = "users.toml"\n'
    config = load_config(write(text)).config
    assert (config.auth.methods, config.inside.advertise, config.rules) == (["userpass"], None, [])
    limits = config.limits
    assert limits.handshakes_per_client < limits.connections_per_user < limits.connections
    assert limits.associations_per_user < limits.associations
    assert limits.groups_per_user < limits.groups


def test_embedded_default_loads_and_allows_loopback_alone() -> None:
    loaded = load_config(None)
    assert loaded.source == "embedded default"
    assert loaded.config.inside.listen == [Endpoint(ip_address("127.0.0.1"), 1080)]
    assert ([each.interface for each in loaded.config.outside], loaded.config.auth.methods) == (["lo"], ["none"])
    rules = Ruleset(loaded.config.rules, {}, Protected(frozenset((ip_address("192.0.2.1"),))))

    def allows(action: str, address: str, port: int = 5004, client: str = "127.0.0.1") -> bool:
        return rules.decide(Query(None, ip_address(client), Action(action), ip_address(address), port)).allowed

    assert allows("udp", "127.0.0.1")
    assert allows("connect", "::1", client="::1")
    assert allows("receive-group", "239.1.2.3")
    assert not allows("udp", "127.0.0.1", 1080)  # the relay itself
    assert not allows("udp", "192.0.2.1")
    assert not allows("udp", "198.51.100.1")
    assert not allows("receive-group", "ff15::1")
    assert not allows("receive-group", "224.0.0.251")
    assert not allows("receive-group", "239.1.2.3", client="192.0.2.7")
    group = Query(None, ip_address("127.0.0.1"), Action.SEND_GROUP, ip_address("239.1.2.3"), 5004)
    assert rules.decide(group).max_ttl == 1


WRONG = {
    # what: text in WHOLE, what stands in its place, the problem
    "listen on a name": (
        '"192.0.2.1:1080"',
        '"localhost:1080"',
        "2: inside.listen[0]: expected an address of this host and a port, not 'localhost:1080'",
    ),
    "listen on port 0": (
        '"[2001:db8::1]:1081"',
        '"[2001:db8::1]:0"',
        "2: inside.listen[1]: expected a port from 1 to 65535, not '[2001:db8::1]:0'",
    ),
    "listen on no port": (
        '"192.0.2.1:1080"',
        '"192.0.2.1"',
        "2: inside.listen[0]: expected host:port (an IPv6 address in brackets: [2001:db8::1]:5004), not '192.0.2.1'",
    ),
    "listen on a number": (
        '"192.0.2.1:1080"',
        "1080",
        '2: inside.listen[0]: expected an address and port like "192.0.2.1:1080", not 1080',
    ),
    "listen nowhere": (
        '["192.0.2.1:1080", "[2001:db8::1]:1081"]',
        "[]",
        "2: inside.listen: expected at least one item",
    ),
    "advertise a name": (
        '"198.51.100.1"',
        '"fw.example"',
        "3: inside.advertise: expected an address that clients reach the relay by, or nothing, not 'fw.example'",
    ),
    "advertise a group": (
        '"198.51.100.1"',
        '"239.1.2.3"',
        "3: inside.advertise: expected an address that clients reach the relay by, or nothing, not '239.1.2.3'",
    ),
    "advertise a number": (
        '"198.51.100.1"',
        "5",
        "3: inside.advertise: expected an address that clients reach the relay by, or nothing, not 5",
    ),
    "no interface": (
        '"eth1"',
        '""',
        "5: outside.interface: expected the name or an address of a network interface, not ''",
    ),
    "unknown way": (
        "max_ttl = 16",
        'via = "eth9"',
        "25: rules[0].via: no outside is called 'eth9'; known are 'eth1'",
    ),
    "DSCP of seven bits": ("max_ttl = 16", "dscp = 64", "25: rules[0].dscp: expected less than or equal to 63, not 64"),
    "unknown method": (
        '["userpass", "none"]',
        '["gssapi"]',
        "7: auth.methods[0]: expected 'none' or 'userpass', not 'gssapi'",
    ),
    "no method": ('["userpass", "none"]', "[]", "7: auth.methods: expected at least one item"),
    "password without users": (
        'users = "users.toml"',
        "",
        '6: auth.users: method "userpass" needs users = "FILE"; \'mcastsocks user add NAME\' writes it',
    ),
    "users that are not there": (
        '"users.toml"',
        '"nobody.toml"',
        "8: auth.users: no file nobody.toml; 'mcastsocks user add NAME -f nobody.toml' writes it",
    ),
    "unknown plane": ('"auto"', '"fast"', "10: plane.kind: expected 'auto', 'batch' or 'portable', not 'fast'"),
    "no time": ("2.5", "0", "12: limits.handshake_timeout_s: expected greater than 0, not 0"),
    "endless time": ("2.5", "inf", "12: limits.handshake_timeout_s: expected less than or equal to 86400, not inf"),
    "no time to connect": (
        "associations = 10",
        "connect_timeout_s = 0",
        "13: limits.connect_timeout_s: expected greater than 0, not 0",
    ),
    "endless wait for a peer": (
        "associations = 10",
        "bind_timeout_s = 86_401",
        "13: limits.bind_timeout_s: expected less than or equal to 86400, not 86401",
    ),
    "endless silence of a stream": (
        "associations = 10",
        "idle_tcp_s = nan",
        "13: limits.idle_tcp_s: expected less than or equal to 86400, not nan",
    ),
    "no silence of an association": (
        "associations = 10",
        "idle_udp_s = -1",
        "13: limits.idle_udp_s: expected greater than 0, not -1",
    ),
    "fewer pipes than none": (
        "associations = 10",
        "splice_pipes = -1",
        "13: limits.splice_pipes: expected greater than or equal to 0, not -1",
    ),
    "pipes without end": (
        "associations = 10",
        "splice_pipes = 1025",
        "13: limits.splice_pipes: expected less than or equal to 1024, not 1025",
    ),
    "unknown user": (
        '["alice", "@desk"]',
        '[\n"alice",\n"eve"]',
        "21: rules[0].users[1]: 'eve' is not in the users file",
    ),
    "unknown team": ('"@desk"', '"@alice"', "19: rules[0].users[1]: '@alice' is not in the users file"),
    "team without its sign": ('"@desk"', '"desk"', "19: rules[0].users[1]: 'desk' is not in the users file"),
}


WRONG_SOCKS = {
    # what: a line of [socks], the problem
    "SOCKS 4 by a word": ('socks4 = "yes"', "socks.socks4: expected true or false, not 'yes'"),
    "a port that is a number": (
        "udp_ports = 1100",
        'socks.udp_ports: expected a range of UDP ports like "1081-1180", not 1100',
    ),
    "ports the wrong way round": (
        'udp_ports = "1180-1100"',
        "socks.udp_ports: expected a range of UDP ports like \"1081-1180\", not '1180-1100'",
    ),
    "ports from zero": (
        'udp_ports = "0-1180"',
        "socks.udp_ports: expected a range of UDP ports like \"1081-1180\", not '0-1180'",
    ),
    "ports beyond the last": (
        'udp_ports = "65000-65536"',
        "socks.udp_ports: expected a range of UDP ports like \"1081-1180\", not '65000-65536'",
    ),
    "half a range": (
        'udp_ports = "1100-"',
        "socks.udp_ports: expected a range of UDP ports like \"1081-1180\", not '1100-'",
    ),
    "no ports": ('udp_ports = ""', "socks.udp_ports: expected a range of UDP ports like \"1081-1180\", not ''"),
    "ports with one that is listened on": (
        'udp_ports = "1000-1080"',
        "socks.udp_ports: port 1080 carries the enhanced mode's datagrams: [inside] listen",
    ),
    "just the other one that is listened on": (
        'udp_ports = "1081"',
        "socks.udp_ports: port 1081 carries the enhanced mode's datagrams: [inside] listen",
    ),
    "answers from nowhere": (
        'udp_answers = "nobody"',
        "socks.udp_answers: expected 'contacted-host', 'exact' or 'anyone', not 'nobody'",
    ),
    "what there is not": ("upd_fragments = true", "socks.upd_fragments: unknown key; did you mean 'udp_fragments'?"),
}


@pytest.mark.parametrize(("line", "problem"), WRONG_SOCKS.values(), ids=WRONG_SOCKS)
def test_wrong_value_of_plain_socks_is_told_with_its_place(write: Write, line: str, problem: str) -> None:
    assert problems(write(f"{WHOLE}[socks]\n{line}\n")) == [f"relay.toml:28: {problem}"]


def test_plain_socks_is_careful_unless_told_otherwise(write: Write) -> None:
    socks = load_config(write(WHOLE)).config.socks
    assert (socks.socks4, socks.udp_fragments, socks.only_named_destinations) == (False, False, False)
    assert socks.udp_answers == "contacted-host"


@pytest.mark.parametrize(
    ("line", "ports"),
    [
        ("", range(1082, 1182)),
        ('udp_ports = "2000-2009"', range(2000, 2010)),
        ('udp_ports = "2000"', range(2000, 2001)),
        ('udp_ports = "65535-65535"', range(65_535, 65_536)),
        ('udp_ports = "1-1079"', range(1, 1080)),
    ],
)
def test_udp_ports_are_those_named_or_the_hundred_above_what_is_listened_on(
    write: Write, line: str, ports: range
) -> None:
    assert load_config(write(f"{WHOLE}[socks]\n{line}\n")).config.udp_ports == ports


def test_udp_ports_end_where_ports_end(write: Write) -> None:
    text = WHOLE.replace(":1081", ":65500")
    assert load_config(write(text)).config.udp_ports == range(65_501, 65_536)


@pytest.mark.parametrize(("line", "workers"), [("", 1), ("workers = 1", 1), ("workers = 2", 2), ("workers = 64", 64)])
def test_workers_are_as_many_as_told(write: Write, line: str, workers: int) -> None:
    text = WHOLE.replace('kind = "auto"', line).replace(":1081", ":1180")
    assert load_config(write(text)).config.plane.workers == workers


@pytest.mark.parametrize(("cpus", "workers"), [({0}, 1), ({1, 3}, 2), (set(range(100)), 64)])
def test_auto_is_a_worker_for_each_cpu_that_may_be_used(
    write: Write, monkeypatch: pytest.MonkeyPatch, cpus: set[int], workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus)
    text = WHOLE.replace('kind = "auto"', 'workers = "auto"').replace(":1081", ":1180")
    assert load_config(write(text)).config.plane.workers == workers


@pytest.mark.parametrize("value", ["0", "65", "-1", "1.5", "true", '"2"', '"all"', "[2]"])
def test_wrong_number_of_workers_is_told_with_its_place(write: Write, value: str) -> None:
    [problem] = problems(write(WHOLE.replace('kind = "auto"', f"workers = {value}")))
    wanted = 'plane.workers: expected a number of processes from 1 to 64, or "auto": one for each CPU'
    assert problem.startswith(f"relay.toml:10: {wanted}")


def test_workers_divide_the_udp_ports_of_plain_socks(write: Write) -> None:
    text = WHOLE.replace('kind = "auto"', "workers = 3") + '[socks]\nudp_ports = "2000-2010"\n'
    config = load_config(write(text)).config
    parts = [config.udp_ports_of(worker) for worker in range(3)]
    assert parts == [range(2000, 2003), range(2003, 2007), range(2007, 2011)]
    one = load_config(write(text.replace("workers = 3", ""))).config
    assert one.udp_ports_of(0) == range(2000, 2011)


def test_no_port_of_a_worker_is_anybody_elses(write: Write) -> None:
    config = load_config(write(WHOLE.replace('kind = "auto"', "workers = 3"))).config
    assert [config.worker_ports(port) for port in (1080, 1081)] == [range(1080, 1083), range(1081, 1084)]
    assert config.udp_ports == range(1084, 1184)
    assert [port for port in range(1000, 1300) if config.is_own_port(port)] == list(range(1080, 1184))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"[2001:db8::1]:1081"', '"192.0.2.1:1082"', "overlap"),
        ('"[2001:db8::1]:1081"', '"0.0.0.0:1078"', "overlap"),
        ('"[2001:db8::1]:1081"', '"192.0.2.1:1083"', None),
        ('"[2001:db8::1]:1081"', '"192.0.2.2:1082"', None),
        (":1081", ":65534", "relay.toml:2: inside.listen[1]: 3 workers take UDP ports from 65534 on"),
        ("[log]", '[socks]\nudp_ports = "2000-2001"\n[log]', "2 ports for 3 workers: each needs one at least"),
        ("[log]", '[socks]\nudp_ports = "1083-1099"\n[log]', "port 1083 carries the enhanced mode's datagrams"),
    ],
)
def test_ports_of_workers_have_to_fit(write: Write, old: str, new: str, problem: str | None) -> None:
    text = WHOLE.replace('kind = "auto"', "workers = 3").replace(old, new)
    if problem is None:
        load_config(write(text))
    elif problem == "overlap":
        why = "its 3 workers' UDP ports overlap with those of inside.listen[0]"
        assert problems(write(text)) == [f"relay.toml:2: inside.listen[1]: {why}"]
    else:
        assert problem in "\n".join(problems(write(text)))


@pytest.mark.parametrize(("old", "new", "problem"), WRONG.values(), ids=WRONG)
def test_wrong_value_is_told_with_its_place(write: Write, old: str, new: str, problem: str) -> None:
    assert WHOLE.count(old) == 1
    assert problems(write(WHOLE.replace(old, new))) == [f"relay.toml:{problem}"]


def test_every_unknown_user_is_told_at_once(write: Write) -> None:
    text = WHOLE + '[[rules]]\nname = "second"\nallow = false\nusers = ["eve", "alice", "@ops"]\n'
    assert problems(write(text)) == [
        "relay.toml:30: rules[1].users[0]: 'eve' is not in the users file",
        "relay.toml:30: rules[1].users[2]: '@ops' is not in the users file",
    ]


def test_rules_of_one_name_are_told_apart_by_their_lines(write: Write) -> None:
    rule = '[[rules]]\nname = "one  name"\nallow = true\n'
    text = WHOLE + rule + "# a comment\n" + rule.replace("  ", " ") + '[[rules]]\nname = "other"\nallow = true\n' + rule
    assert problems(write(text)) == [
        f"relay.toml:{line}: rules[{index}].name: rules[1] is called 'one name' too; records name rules"
        for line, index in ((32, 2), (38, 4))
    ]


def test_one_outside_or_a_list_of_them_is_the_same(write: Write) -> None:
    for text in (WHOLE, WHOLE.replace("[outside]", "[[outside]]")):
        assert [outside.called for outside in load_config(write(text)).config.outside] == ["eth1"]


def test_rules_may_name_any_outside_and_outsides_have_different_names(write: Write) -> None:
    annex = '[[outside]]\nname = "annex"\ninterface = "eth2"\n'
    text = WHOLE.replace("[outside]", "[[outside]]") + 'via = "annex"\n'
    assert load_config(write(text + annex)).config.rules[0].via == "annex"
    assert problems(write(text + annex + annex)) == [
        "relay.toml:32: outside[2].name: outside[1] is called 'annex' too; rules name outsides"
    ]


def test_mm_mode_has_to_know_where_to_multicast(write: Write) -> None:
    text = WHOLE.replace('"192.0.2.1:1080"', '"0.0.0.0:1080"').replace('["mu"]', '["mu", "mm"]')
    assert problems(write(text)) == [
        'relay.toml:26: rules[0].modes: MM-mode needs [inside] interface = "NAME": where to multicast'
    ]
    assert load_config(write(text.replace("[outside]", 'interface = "eth0"\n[outside]'))).config.inside.interface


def test_five_thousand_rules_load(write: Write) -> None:
    rules = "".join(f'[[rules]]\nname = "{n}"\nallow = true\nusers = ["@desk"]\n' for n in range(5000))
    assert len(load_config(write(WHOLE + rules)).config.rules) == 5001


@pytest.mark.parametrize(
    ("users", "problem"),
    [
        ("[users\n", "users.toml:1: not TOML: Expected ']' at the end of a table declaration"),
        (USERS.replace("alice]", "bob]"), "users.toml:4: teams.desk[0]: no user 'alice' in this file"),
    ],
)
def test_broken_users_file_is_named_itself(write: Write, users: str, problem: str) -> None:
    assert problems(write(WHOLE, users)) == [problem]


def test_users_file_that_others_may_read_is_refused(write: Write) -> None:
    file = write(WHOLE)
    (file.parent / "users.toml").chmod(0o640)
    assert problems(file)[0].startswith("users.toml: mode 0640 lets others read password hashes; expected 0600")


def test_users_file_is_looked_for_beside_the_configuration(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(WHOLE)
    monkeypatch.chdir("/")
    assert list(load_config(file).users.users) == ["alice"]


def test_problem_of_this_host_is_told_with_its_place(write: Write) -> None:
    loaded: Loaded = load_config(write(WHOLE))
    error = loaded.error((("outside", 0, "interface"), "no such interface"), (("log",), "too long"))
    assert error.problems == (
        f"{loaded.source}:5: outside.interface: no such interface",
        f"{loaded.source}:14: log: too long",
    )
