"""What people type for groups, remotes, relays and players, and what they are told when it is wrong."""

from __future__ import annotations

import json
import socket

import pytest
import typer

from mcastsocks.address import Endpoint
from mcastsocks.cli import targets
from mcastsocks.cli.targets import Format, Player
from tests.cli.conftest import Command


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("239.1.2.3:5004", ["239.1.2.3:5004"]),
        ("239.1.2.3:5004-5005", ["239.1.2.3:5004", "239.1.2.3:5005"]),
        ("239.1.2.3:5004-5004", ["239.1.2.3:5004"]),
        ("[ff15::1]:5004", ["[ff15::1]:5004"]),
        ("[ff15::1]:65534-65535", ["[ff15::1]:65534", "[ff15::1]:65535"]),
    ],
)
def test_group_has_a_port_or_a_range(text: str, groups: list[str]) -> None:
    assert [str(group) for group in targets.groups(text)] == groups


def test_range_has_at_most_64_ports() -> None:
    assert len(targets.groups("239.1.2.3:1-64")) == 64
    with pytest.raises(typer.BadParameter, match="expected a range of 1 to 64 ports"):
        targets.groups("239.1.2.3:1-65")


NOT_A_GROUP = "is not a group: expected 224.0.0.0 to 239.255.255.255 or ff00::/8"
BAD_GROUPS = [
    ("239.1.2.3", "expected host:port"),
    ("", "expected host:port"),
    ("ff15::1:5004", "expected host:port (an IPv6 address in brackets: [2001:db8::1]:5004), not 'ff15::1:5004'"),
    ("[ff15::1]", "expected [IPv6 address]:port, not '[ff15::1]'"),
    ("[ff15::g]:1", "'ff15::g'"),
    ("192.0.2.1:5004", f"192.0.2.1 {NOT_A_GROUP}"),
    ("[2001:db8::1]:5004", f"2001:db8::1 {NOT_A_GROUP}"),
    ("group.example:5004", f"group.example {NOT_A_GROUP}"),
    ("239.1.2.256:5004", "expected an IPv4 address of four numbers from 0 to 255, not '239.1.2.256'"),
    ("239.1.2.3:0", "a group needs a port from 1 to 65535"),
    ("239.1.2.3:65536", "expected a port number from 0 to 65535, not '65536'"),
    ("239.1.2.3:rtp", "expected a port number from 0 to 65535, not 'rtp'"),
]
BAD_RANGES = [
    ("239.1.2.3:5005-5004", "expected a range of 1 to 64 ports, from low to high, not '5005-5004'"),
    ("239.1.2.3:0-1", "a group needs a port from 1 to 65535"),
    ("239.1.2.3:1-", "expected a port number from 0 to 65535, not ''"),
    ("239.1.2.3:65535-65536", "expected a port number from 0 to 65535, not '65536'"),
    ("192.0.2.1:1-2", f"192.0.2.1 {NOT_A_GROUP}"),
]
BAD_REMOTES = [
    ("host.example", "expected host:port"),
    ("239.1.2.3:5004", "239.1.2.3 is a group; try 'mcastsocks send' and 'mcastsocks join'"),
    ("host.example:0", "expected a port from 1 to 65535"),
    ("192.0.2.1:99999", "expected a port number from 0 to 65535, not '99999'"),
    ("192.0.2:53", "expected an IPv4 address of four numbers from 0 to 255, not '192.0.2'"),
    ("2001:db8::1:53", "an IPv6 address in brackets"),
]
BAD_NAMES = [
    ("a..b:9", "'a..b' is no host name"),
    (f"{'abc.' * 75}:9", "a host name has 1 to 255 octets, this one 300"),
]
BAD_SOURCES = [
    (["--source", "host.example"], "--source", "'host.example' does not appear to be an IPv4 or IPv6 address"),
    (["--exclude", "192.0.2.256"], "--exclude", "'192.0.2.256' does not appear to be an IPv4 or IPv6 address"),
    (
        ["--source", "192.0.2.1", "--exclude", "192.0.2.2"],
        "--source or --exclude",
        "sources are either included or excluded",
    ),
    (
        ["--source", "192.0.2.1", "--source", "2001:db8::1"],
        "--source or --exclude",
        "a source list holds 1 to 64 addresses of one family",
    ),
]
BAD_PLAYERS = [
    ("127.0.0.1:5004", "expected udp://HOST:PORT"),
    ("tcp://127.0.0.1:5004", "expected udp://HOST:PORT"),
    ("udp://127.0.0.1", "expected host:port"),
    ("udp://127.0.0.1:0", "expected a port from 1 to 65535"),
    ("udp://127.0.0.1:65536", "expected a port number from 0 to 65535, not '65536'"),
    ("udp://a..b:5004", "a..b is no name that could be looked up"),
]


@pytest.mark.parametrize(
    ("arguments", "parameter", "expected"),
    [
        *((["join", text], "GROUP:PORT", expected) for text, expected in (*BAD_GROUPS, *BAD_RANGES)),
        *((["send", text], "GROUP:PORT", expected) for text, expected in BAD_GROUPS),
        (["send", "239.1.2.3:1-2"], "GROUP:PORT", "expected a port number from 0 to 65535, not '1-2'"),
        *((["probe", text], "HOST:PORT", expected) for text, expected in (*BAD_REMOTES, *BAD_NAMES)),
        *((["join", "239.1.2.3:5004", *options], parameter, expected) for options, parameter, expected in BAD_SOURCES),
        *((["join", "239.1.2.3:5004", "--to", text], "--to", expected) for text, expected in BAD_PLAYERS),
        (
            ["join", "239.1.2.3:5004", "--relay", "http://alice:secret@h"],
            "--relay",
            "expected socks5://[user:password@]host[:port]",
        ),
        (
            ["send", "239.1.2.3:5004", "--relay", "socks5://alice:sec/ret@h"],
            "--relay",
            "expected socks5://[user:password@]host[:port]",
        ),
        (
            ["join", "239.1.2.3:5004", "--relay", "socks5://alice:secret@a..b:1080"],
            "--relay",
            "the host is no name that could be looked up",
        ),
        (
            ["probe", "192.0.2.1:7", "--relay", "socks5://alice:secret@"],
            "--relay",
            "expected socks5://[user:password@]host[:port]",
        ),
    ],
)
def test_wrong_target_is_a_usage_error_that_says_what_was_expected(
    command: Command, arguments: list[str], parameter: str, expected: str
) -> None:
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    (error,) = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert error.startswith(f"Error: Invalid value for {parameter}: ")
    assert expected in error
    assert "secret" not in ran.err


def test_password_in_the_environment_shows_in_no_error(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCASTSOCKS_RELAY", "socks4://alice:secret@h")
    ran = command("join", "239.1.2.3:5004")
    assert ran.code == 2
    assert "expected socks5://[user:password@]host[:port]" in ran.err
    assert "secret" not in ran.err


@pytest.mark.parametrize(("option", "value"), [("--ttl", "0"), ("--ttl", "256"), ("--ttl", "x"), ("--octets", "0")])
def test_number_out_of_range_is_a_usage_error(command: Command, option: str, value: str) -> None:
    ran = command("send", "239.1.2.3:5004", option, value)
    assert ran.code == 2
    assert option in ran.err


@pytest.mark.parametrize(
    ("text", "player"),
    [
        ("udp://127.0.0.1:5004", Player(socket.AF_INET, ("127.0.0.1", 5004))),
        ("udp://[::1]:5004", Player(socket.AF_INET6, ("::1", 5004, 0, 0))),
        ("udp://239.1.2.3:5004", Player(socket.AF_INET, ("239.1.2.3", 5004))),
    ],
)
def test_player_is_an_address_to_send_to(text: str, player: Player) -> None:
    assert targets.player(text) == player


def test_player_may_have_a_name() -> None:
    assert targets.player("udp://localhost:5004").sockaddr[1] == 5004


def test_remote_may_be_a_name_or_an_address() -> None:
    assert targets.remote("host.example:53") == Endpoint("host.example", 53)
    assert targets.remote("exämple.org:53") == Endpoint("xn--exmple-cua.org", 53)
    assert str(targets.remote("[2001:db8::1]:53")) == "[2001:db8::1]:53"


@pytest.mark.parametrize(
    ("form", "written"),
    [(Format.raw, b"a\nb"), (Format.hex, b"610a62\n"), (Format.json, b'{"port": 7, "octets": 3, "data": "610a62"}\n')],
)
def test_data_is_written_in_the_format_asked_for(form: Format, written: bytes) -> None:
    assert targets.encode(b"a\nb", form, port=7) == written
    if form is Format.json:
        assert bytes.fromhex(json.loads(written)["data"]) == b"a\nb"
