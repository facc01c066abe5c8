"""The list of features, as it is printed."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cli.conftest import Command
from tests.vectors import octets

GRANTED = octets("LIST-FEATURES granted, persistent")


@contextmanager
def relay(answer: bytes) -> Iterator[str]:
    """One connection: no authentication, then this answer to any request; the URL, with a password."""

    def serve() -> None:
        client, _ = server.accept()
        with client:
            assert client.recv(100) == bytes.fromhex("05020002")
            client.sendall(b"\5\0")
            assert client.recv(100) == octets("LIST-FEATURES persistent")
            client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"socks5://alice:secret@127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_list_is_printed_in_words(command: Command) -> None:
    scope, unknown, server = "0010020102", "07130648656c6c6f2e", "10030a6d63617374736f636b73"
    listed = octets("feature list: both UDP extensions")[:-3] + bytes.fromhex(scope + unknown + server + "ff0000")
    with relay(GRANTED + listed) as url:
        ran = command("features", "--relay", url)
    assert (ran.code, ran.err) == (0, "")
    assert (
        ran.out
        == f"""\
{url.replace(":secret", "")}
  SOCKS versions    5
  address types     IPv4, names, IPv6
  authentication    username/password
  commands          CONNECT
                    UDP ASSOCIATE
                    ENHANCED_UDP_MODE: unicast, groups
                    LIST-FEATURES: the connection can be kept
  list depends on   client address, authentication method
  X'07'             X'13': X'48656c6c6f2e'
  server            says: mcastsocks
"""
    )


def test_list_is_written_as_json(command: Command) -> None:
    with relay(GRANTED + octets("feature list of this project")) as url:
        ran = command("features", "--relay", url, "--format", "json")
    assert ran.code == 0
    assert json.loads(ran.out) == {
        "relay": url.replace(":secret", ""),
        "features": [
            {
                "tag": 4,
                "subtag": 4,
                "value": "010281828384",
                "about": "commands",
                "words": "ENHANCED_UDP_MODE: unicast, groups, source filters, source reporting, "
                "datagram protection, reasons",
            }
        ],
    }


def test_list_that_is_empty_is_printed_too(command: Command) -> None:
    with relay(GRANTED + bytes.fromhex("ff0000")) as url:
        ran = command("features", "--relay", url)
    assert (ran.code, ran.out) == (0, url.replace(":secret", "") + "\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (bytes.fromhex("05070001000000000000"), "the relay lists no features: command not supported"),
        (bytes.fromhex("05020001000000000000"), "the relay lists no features: not allowed by ruleset"),
        (b"", "the relay lists no features: it closed the connection instead"),
        (GRANTED + b"\1\5", "the relay lists no features: the feature list ends without its END"),
        (b"HTTP/1.1 400", "the relay lists no features: expected a reply of version X'05' or X'01', not X'48'"),
    ],
)
def test_relay_without_a_list_is_said_in_one_line(command: Command, answer: bytes, said: str) -> None:
    with relay(answer) as url:
        ran = command("features", "--relay", url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"mcastsocks: {said}\n"
