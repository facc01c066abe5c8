"""How join and send connect again and stop, and what they say without a stream to work on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mcastsocks.address import parse_group
from mcastsocks.cli import datagrams
from mcastsocks.client import ConnectionLost, Datagram, RelayUrl
from mcastsocks.wire.features import FeatureList


@pytest.mark.parametrize(("features", "again"), [(None, False), (FeatureList(()), True)])
def test_relay_that_knows_no_features_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, features: FeatureList | None, again: bool
) -> None:
    asked: list[bool] = []

    @asynccontextmanager
    async def connected(url: RelayUrl, *, ask_features: bool) -> AsyncIterator[Any]:
        asked.append(ask_features)
        yield SimpleNamespace(features=features)

    async def work(relay: Any) -> None:
        if len(asked) < 3:
            raise ConnectionLost("the relay was restarted")

    monkeypatch.setattr(datagrams, "connect", connected)
    monkeypatch.setattr(datagrams, "_RETRY_FIRST_S", 0)
    asyncio.run(datagrams._reconnecting(RelayUrl("fw.example"), work))
    assert asked == [True, again, again]


def test_count_holds_for_all_groups_together() -> None:
    """Both groups' datagrams are there in the same turn of the loop."""
    taken: list[bytes] = []
    output = SimpleNamespace(taken=0)

    def write(group: object, datagram: Datagram) -> None:
        output.taken += 1
        taken.append(datagram.data)

    class Group:
        mode, dropped = None, 0

        def __init__(self, port: int) -> None:
            self.remote = parse_group(f"239.1.2.3:{port}")

        async def __aiter__(self) -> AsyncIterator[Datagram]:
            for number in range(3):
                await asyncio.sleep(0)
                yield Datagram(b"%d" % number)

    async def join(relay: object) -> list[Any]:
        return [Group(5004), Group(5005)]

    output.write = write
    receiver = datagrams._Receiver(RelayUrl("fw.example"), join, cast(Any, output), 3)
    asyncio.run(receiver._receive(cast(Any, None)))
    assert taken == [b"0", b"0", b"1"]


@pytest.mark.parametrize(
    ("arguments", "closed", "said"),
    [
        (["send", "239.1.2.3:5004"], "<&-", "standard input is closed"),
        (["join", "239.1.2.3:5004"], ">&-", "standard output is closed"),
        (["probe", "192.0.2.1:7"], ">&-", "standard output is closed"),
    ],
)
def test_a_closed_stream_is_one_line_and_exit_code_1(arguments: list[str], closed: str, said: str) -> None:
    command = [sys.executable, "-m", "mcastsocks", *arguments, "--relay", "127.0.0.1:9"]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    ran = subprocess.run([*shell, *command], check=False, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[0] == f"mcastsocks: {said}"
    assert "Traceback" not in ran.stderr
