"""BIND as clients see it, octet by octet, with its two replies; on loopback."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest

from mcastsocks.server.streams.accept import Awaiter
from tests.server.loopback import Raw, Running
from tests.server.remotes import (
    BIND,
    RULES,
    Afterwards,
    Destination,
    asking,
    greeted,
    names,
    refused,
    replying,
    reset,
    serve,
)

__all__ = ["names"]
pytestmark = pytest.mark.usefixtures("names")
EXPECTED = ("127.0.0.1", 4004)


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    assert not caplog.records


async def announced(raw: Raw, to: Destination = EXPECTED) -> Destination:
    """Where the first reply says that a peer may connect to."""
    raw.write(asking(BIND, to))
    answer = await raw.read(22 if ":" in to[0] else 10)
    bound = (str(ip_address(bytes.fromhex(answer[8:-4]))), int(answer[-4:], 16))
    assert bound[1]
    assert answer == replying(0, bound)
    return bound


@asynccontextmanager
async def peer(to: Destination, host: str = "127.0.0.1") -> AsyncIterator[Raw]:
    async with Raw(*await asyncio.open_connection(*to, local_addr=(host, 0))) as raw:
        yield raw


def is_listening(at: Destination) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in at[0] else socket.AF_INET) as sock:
        return sock.connect_ex(at) != errno.ECONNREFUSED


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_first_reply_tells_where_to_connect_and_the_second_who_did(host: str) -> None:
    async def test(relay: Running) -> None:
        async with await greeted(relay) as raw:
            bound = await announced(raw, (host, 4004))
            assert bound[0] == host
            async with peer(bound, host) as far:
                answer = replying(0, far.address)
                assert await raw.read(len(answer) // 2) == answer
                raw.write(b"question")
                assert await far.read(8) == b"question".hex()
                far.write(b"answer!")
                assert await raw.read(7) == b"answer!".hex()
                assert not is_listening(bound), "for one peer only"
                far.finish()
                assert await raw.is_closed()
        where = f"[{host}]" if ":" in host else host
        started = await relay.record("bind-start", session=1, remote=f"{where}:4004", rule="loopback")
        assert started["outside"] == f"{where}:{bound[1]}"
        ended = await relay.record("bind-end", session=1, reason="closed by remote")
        assert (ended["to_remote_octets"], ended["to_client_octets"]) == (8, 7)

    serve(test)


@pytest.mark.parametrize("name", ["here.example", "both.example"])
def test_peer_may_be_named(name: str) -> None:
    async def test(relay: Running) -> None:
        async with await greeted(relay) as raw:
            raw.write(asking(BIND, (name, 4004)))
            answer = await raw.read(10)
            async with peer(("127.0.0.1", int(answer[-4:], 16))) as far:
                assert await raw.read(10) == replying(0, far.address)

    serve(test)


def test_peer_may_come_from_any_port_where_rules_deny_none() -> None:
    async def test(relay: Running) -> None:
        async with await greeted(relay) as raw, peer(await announced(raw, ("127.0.0.1", 0))) as far:
            assert await raw.read(10) == replying(0, far.address)

    serve(test, RULES.replace("ports = 9", 'to = ["127.0.0.99"]'))


def test_octets_before_the_peer_arrive_when_it_has_come() -> None:
    async def test(relay: Running) -> None:
        async with await relay.connect(enter=False) as raw:
            raw.write(bytes.fromhex("050100") + asking(BIND, EXPECTED) + b"early ")
            assert await raw.read(2) == "0500"
            answer = await raw.read(10)
            raw.write(b"and later")
            async with peer(("127.0.0.1", int(answer[-4:], 16))) as far:
                assert await raw.read(10) == replying(0, far.address)
                assert await far.read(15) == b"early and later".hex()

    serve(test)


def test_more_than_is_taken_ahead_holds_the_client_up_and_is_not_lost() -> None:
    data = bytes(range(256)) * 2048

    async def test(relay: Running) -> None:
        async with await greeted(relay) as raw:
            bound = await announced(raw)
            raw.write(data)
            async with peer(bound) as far:
                assert await raw.read(10) == replying(0, far.address)
                assert await far.read(len(data)) == data.hex()

    serve(test)


def test_wrong_peer_is_turned_away_and_the_right_one_still_let_in() -> None:
    async def test(relay: Running) -> None:
        async with await greeted(relay) as raw:
            bound = await announced(raw)
            for _ in range(3):
                async with peer(bound, "127.0.0.2") as stranger:
                    assert await stranger.is_closed()
            async with peer(bound) as far:
                assert await raw.read(10) == replying(0, far.address)

    serve(test)


def test_nobody_in_time_is_the_second_reply() -> None:
    async def test(relay: Running) -> None:
        async with await greeted(relay) as raw:
            bound = await announced(raw)
            assert await raw.read(10) == replying(6)
            assert await raw.is_closed()
            assert not is_listening(bound)
        await relay.record("refused", command="bind", why="nobody connected within 0.1 s")
        ended = await relay.record("bind-end", reason="nobody connected within 0.1 s")
        assert (ended["to_remote_octets"], ended["to_client_octets"]) == (0, 0)

    serve(test, limits="bind_timeout_s = 0.1")


@pytest.mark.parametrize(("by_reset", "reason"), [(False, "closed by client"), (True, "connection reset")])
def test_nobody_is_awaited_when_the_client_has_gone(by_reset: bool, reason: str) -> None:
    async def test(relay: Running) -> None:
        raw = await greeted(relay)
        bound = await announced(raw)
        if by_reset:
            reset(raw)
        else:
            raw.hang_up()
        await relay.record("bind-end", reason=reason)
        assert not relay.records("refused"), "the client was refused nothing"
        assert not is_listening(bound)
        await raw.__aexit__()

    serve(test)


def test_host_without_room_for_the_peer_says_so_in_the_second_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_room(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def test(relay: Running) -> None:
        monkeypatch.setattr(Awaiter, "accept", no_room)
        async with await greeted(relay) as raw:
            bound = await announced(raw)
            assert await raw.read(10) == replying(1)
            assert await raw.is_closed()
            assert not is_listening(bound)
        await relay.record("refused", command="bind", why="Too many open files")

    serve(test)


FAILURES: dict[str, tuple[Destination, int]] = {
    "a rule for the port": (("127.0.0.1", 9), 2),
    "a rule for the address": (("127.0.0.66", 80), 2),
    "no rule": (("203.0.113.1", 80), 2),
    "a group": (("239.1.2.3", 80), 2),
    "a name that nobody knows": (("nowhere.example", 80), 4),
    "any port, where a rule denies one": (("127.0.0.1", 0), 2),
    "address zero": (("0.0.0.0", 80), 9),
}


@pytest.mark.parametrize(("to", "code"), FAILURES.values(), ids=FAILURES)
def test_failure_is_answered_closed_and_recorded(to: Destination, code: int) -> None:
    async def test(relay: Running) -> None:
        await refused(relay, asking(BIND, to), replying(code), command="bind", remote=f"{to[0]}:{to[1]}")
        assert not relay.records("bind-start")

    serve(test)


def test_rules_that_allow_connecting_alone_allow_no_bind() -> None:
    async def test(relay: Running) -> None:
        await refused(relay, asking(BIND, EXPECTED), replying(2), command="bind")

    serve(test, RULES.replace('["connect", "bind", "udp"]', '["connect", "udp"]'))


def test_family_that_the_outside_does_not_speak_is_answered_03() -> None:
    async def test(relay: Running) -> None:
        outsides = relay.relay._services.outsides
        outsides["lo"] = replace(outsides["lo"], ipv6=None)
        await refused(relay, asking(BIND, ("::1", 80)), replying(3), why="lo has no IPv6 address")

    serve(test)


def test_address_that_the_outside_has_lost_is_answered_03() -> None:
    async def test(relay: Running) -> None:
        outsides = relay.relay._services.outsides
        outsides["lo"] = replace(outsides["lo"], ipv4=IPv4Address("192.0.2.99"))
        await refused(relay, asking(BIND, EXPECTED), replying(3), command="bind")

    serve(test)


def test_shutdown_closes_what_listens() -> None:
    async def test(relay: Running) -> Afterwards:
        raw = await greeted(relay)
        bound = await announced(raw)

        async def afterwards() -> None:
            assert not is_listening(bound)
            assert await raw.is_closed()
            await raw.__aexit__()
            await relay.record("bind-end", reason="shutdown")

        return afterwards

    serve(test)


def test_stream_that_is_silent_behind_its_second_reply_is_given_up() -> None:
    async def test(relay: Running) -> None:
        async with await greeted(relay) as raw:
            bound = await announced(raw)
            async with peer(bound) as far:
                assert await raw.read(10) == replying(0, far.address)
                await relay.record("bind-end", reason="idle")
                assert await far.is_closed()

    serve(test, limits="idle_tcp_s = 0.1")


def test_socks_4_has_two_replies_as_well() -> None:
    async def test(relay: Running) -> None:
        async with await relay.connect(enter=False) as raw:
            first = await raw.ask("0402" + "0fa4" + "7f000001" + "00", 8)
            assert first[:4] == "005a"
            assert first[8:] == "7f000001"
            async with peer(("127.0.0.1", int(first[4:8], 16))) as far:
                assert await raw.read(8) == f"005a{far.address[1]:04x}7f000001"
                far.write(b"x")
                assert await raw.read(1) == b"x".hex()

    serve(test, socks="socks4 = true")
