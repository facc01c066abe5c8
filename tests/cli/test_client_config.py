"""--client-config: the relay that is taken, what is not sent there, and the question before sending."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastsocks.cli import terminal
from mcastsocks.cli.targets import client_config, relay_url
from mcastsocks.cli.terminal import Question
from tests.cli.conftest import Command

FILE = Path("client.toml")


@pytest.fixture
def closed_port() -> int:
    """Where no relay listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    "arguments", [["join", "239.1.2.3:5004"], ["send", "239.1.2.3:5004"], ["probe", "198.51.100.7:7"], ["features"]]
)
def test_every_client_command_reports_errors_in_the_file(command: Command, arguments: list[str]) -> None:
    FILE.write_text('relay = "fw.example"\nttl = "0-5"\ngroups = ["239.1.0.0/16", "10.0.0.0/8"]\n')
    ran = command(*arguments, "--client-config", "client.toml")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "client.toml:2: ttl: expected a range from fewer to more hops, 1 to 255",
        "client.toml:3: groups[1]: expected groups: a network within 224.0.0.0/4 or ff00::/8",
    ]


def test_file_of_the_environment_is_used(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCASTSOCKS_CLIENT", "nowhere.toml")
    ran = command("features")
    assert (ran.code, ran.err) == (2, "nowhere.toml: No such file or directory\n")


def test_relay_asked_for_stands_before_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text('relay = "alice@fw.example"\n')
    config, none = client_config(file), client_config(None)
    assert str(relay_url(None, config)) == "socks5://alice@fw.example:1080"
    assert str(relay_url("bob@fw.test", config)) == "socks5://bob@fw.test:1080"
    assert str(relay_url(None, none)) == "socks5://127.0.0.1:1080"


def test_commands_go_to_the_relay_of_the_file(command: Command, closed_port: int) -> None:
    FILE.write_text(f'relay = "socks5://127.0.0.1:{closed_port}"\n')
    for arguments in (["features"], ["probe", "198.51.100.7:7"]):
        ran = command(*arguments, "--client-config", "client.toml")
        assert ran.code == 1
        assert f"127.0.0.1:{closed_port}" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["join", "239.9.9.9:5004-5005"],
            "239.9.9.9 is not reached through the relay (client.toml: groups): it is on this network",
        ),
        (
            ["send", "239.9.9.9:5004", "--ttl", "9"],
            "239.9.9.9 is not reached through the relay (client.toml: groups): it is on this network",
        ),
        (
            ["send", "239.1.2.3:5004"],
            "TTL 1 to 239.1.2.3 does not go through the relay (client.toml: ttl): so few hops stay on this network",
        ),
    ],
)
def test_what_is_out_of_range_is_one_line_and_exit_code_1(command: Command, arguments: list[str], said: str) -> None:
    FILE.write_text('groups = ["239.1.0.0/16"]\nttl = "2-255"\n')
    ran = command(*arguments, "--client-config", "client.toml")
    assert (ran.code, ran.out, ran.err) == (1, "", f"mcastsocks: {said}\n")


def test_send_that_can_ask_nobody_is_refused_and_names_the_way_out(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PATH", "no-terminal")
    FILE.write_text("confirm_sending = true\n")
    ran = command("send", "239.1.2.3:5004", "--client-config", "client.toml")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "mcastsocks: sending to 239.1.2.3:5004 has to be confirmed (client.toml: confirm_sending), "
        "and there is no terminal to ask on; --yes answers in advance\n"
    )


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other side of the terminal that questions are asked on."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)  # no echo: what is read here is what the command wrote
    monkeypatch.setattr(terminal, "PATH", os.ttyname(theirs))
    yield ours
    os.close(theirs)
    os.close(ours)


@pytest.mark.parametrize(
    ("typed", "agreed"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("yesterday\n", False)]
)
def test_question_is_asked_on_the_terminal_once(keyboard: int, typed: str, agreed: bool) -> None:
    async def ask_twice() -> list[bool]:
        return [await question.ask(), await question.ask()]

    os.write(keyboard, typed.encode())
    question = Question("send?")
    try:
        assert asyncio.run(ask_twice()) == [agreed, agreed]
    finally:
        question.close()
    assert os.read(keyboard, 100) == b"send? [y/N] "
