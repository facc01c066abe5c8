"""CONNECT as clients see it, octet by octet, by SOCKS 5, 4 and 4a; on loopback."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.rules import users as users_file
from mcastsocks.server import tunnel
from mcastsocks.server.auth import userpass
from tests.server.loopback import CHEAP, Running, until
from tests.server.remotes import (
    CONNECT,
    NOBODY,
    RULES,
    Afterwards,
    Destination,
    asking,
    block6,
    closed_port,
    descriptors,
    greeted,
    listening,
    names,
    refused,
    replying,
    reset,
    serve,
)

__all__ = ["names"]
pytestmark = pytest.mark.usefixtures("names")
LOGIN: dict[str, Any] = {"methods": '"userpass"', "passwords": {"alice": "right"}}


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    assert not caplog.records


@pytest.fixture
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_file, "HASHER", CHEAP)
    monkeypatch.setattr(userpass, "HASHER", CHEAP)


# There and back


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_reply_tells_the_outside_endpoint_and_octets_pass_both_ways(host: str) -> None:
    async def test(relay: Running) -> None:
        async with listening(host) as remote, await greeted(relay) as raw:
            raw.write(asking(CONNECT, remote.address))
            far, peer = await remote.accept()
            async with far:
                answer = replying(0, peer)
                assert await raw.read(len(answer) // 2) == answer
                raw.write(b"question")
                assert await far.read(8) == b"question".hex()
                far.write(b"answer!")
                assert await raw.read(7) == b"answer!".hex()
                raw.finish()
                assert await far.is_closed()
        where = f"[{host}]:{remote.address[1]}" if ":" in host else f"{host}:{remote.address[1]}"
        started = await relay.record("connect-start", session=1)
        assert (started["remote"], started["address"], started["rule"]) == (where, where, "loopback")
        assert started["outside"].endswith(f":{peer[1]}")
        ended = await relay.record("connect-end", session=1)
        assert (ended["remote"], ended["to_remote_octets"], ended["to_client_octets"]) == (where, 8, 7)
        assert ended["reason"] == "closed by client"
        assert ended["duration_s"] >= 0

    serve(test)


@pytest.mark.parametrize("name", ["here.example", "both.example"])
def test_name_is_resolved_and_its_denied_addresses_are_left_out(name: str) -> None:
    async def test(relay: Running) -> None:
        async with listening() as remote, await greeted(relay) as raw:
            raw.write(asking(CONNECT, (name, remote.address[1])))
            far, peer = await remote.accept()
            async with far:
                assert await raw.read(10) == replying(0, peer)
            started = await relay.record("connect-start")
            assert started["remote"] == f"{name}:{remote.address[1]}"
            assert started["address"] == f"127.0.0.1:{remote.address[1]}"

    serve(test)


def test_octets_behind_the_request_arrive_whole_or_octet_by_octet() -> None:
    async def test(relay: Running) -> None:
        for is_whole in (True, False):
            async with listening() as remote, await relay.connect(enter=False) as raw:
                octets = bytes.fromhex("050100") + asking(CONNECT, remote.address) + b"early" * 100
                for piece in [octets] if is_whole else [octets[n : n + 1] for n in range(len(octets))]:
                    raw.write(piece)
                    await asyncio.sleep(0)
                far, peer = await remote.accept()
                async with far:
                    assert await far.read(500) == (b"early" * 100).hex()
                    assert await raw.read(12) == "0500" + replying(0, peer)

    serve(test)


def test_end_behind_the_request_in_one_segment_is_passed_on() -> None:
    async def test(relay: Running) -> None:
        async with listening() as remote, await greeted(relay) as raw:
            raw.write(asking(CONNECT, remote.address) + b"all")
            raw.finish()
            far, peer = await remote.accept()
            async with far:
                assert await far.read(3) == b"all".hex()
                assert await far.is_closed()
                far.write(b"answer")
                assert await raw.read(16) == replying(0, peer) + b"answer".hex()

    serve(test)


@pytest.mark.parametrize("by_client", [True, False])
def test_one_end_is_passed_on_and_the_other_direction_goes_on(by_client: bool) -> None:
    async def test(relay: Running) -> None:
        async with listening() as remote, await greeted(relay) as raw:
            raw.write(asking(CONNECT, remote.address))
            far, _ = await remote.accept()
            async with far:
                await raw.read(10)
                first, second = (raw, far) if by_client else (far, raw)
                first.finish()
                assert await second.is_closed()
                second.write(b"still here")
                assert await first.read(10) == b"still here".hex()
                second.finish()
                assert await first.is_closed()
        reason = f"closed by {'client' if by_client else 'remote'}"
        ended = await relay.record("connect-end", reason=reason)
        assert ended["to_client_octets" if by_client else "to_remote_octets"] == 10

    serve(test)


@pytest.mark.parametrize("by_client", [True, False])
def test_reset_is_passed_on(by_client: bool) -> None:
    async def test(relay: Running) -> None:
        async with listening() as remote, await greeted(relay) as raw:
            raw.write(asking(CONNECT, remote.address))
            far, _ = await remote.accept()
            async with far:
                await raw.read(10)
                first, second = (raw, far) if by_client else (far, raw)
                reset(first)
                with pytest.raises(ConnectionResetError):
                    await second.read(1)
        await relay.record("connect-end", reason=f"reset by {'client' if by_client else 'remote'}")

    serve(test)


# Failures


FAILURES: dict[str, tuple[Destination, int, str]] = {
    # what: destination, reply, the record's why
    "a rule for the port": (("127.0.0.1", 9), 2, "rule 'no hands on 9' denies it"),
    "a rule for the address": (("127.0.0.66", 80), 2, "rule 'not there' denies it"),
    "no rule": (("203.0.113.1", 80), 2, "no rule allows connect 203.0.113.1 port 80"),
    "mapped": (("::ffff:203.0.113.1", 80), 2, "no rule allows connect 203.0.113.1 port 80"),
    "a name whose every address is denied": (("denied.example", 80), 2, "rule 'not there' denies it"),
    "a group": (("239.1.2.3", 80), 2, "239.1.2.3:80 is a group: those need the enhanced mode"),
    "an IPv6 group": (("ff15::1", 80), 2, "[ff15::1]:80 is a group: those need the enhanced mode"),
    "a name that nobody knows": (("nowhere.example", 80), 4, "nowhere.example: Name or service not known"),
    "port 0": (("127.0.0.1", 0), 9, "127.0.0.1:0 is no destination"),
    "address zero": (("0.0.0.0", 80), 9, "0.0.0.0:80 is no destination"),
    "IPv6 address zero": (("::", 80), 9, "[::]:80 is no destination"),
    "a name of address zero": (("zero.example", 80), 9, "zero.example:80 is no destination"),
}


@pytest.mark.parametrize(("to", "code", "why"), FAILURES.values(), ids=FAILURES)
def test_failure_is_answered_closed_and_recorded(to: Destination, code: int, why: str) -> None:
    async def test(relay: Running) -> None:
        where = ip_address(to[0]) if ":" in to[0] or to[0][0].isdigit() else to[0]
        await refused(relay, asking(CONNECT, to), replying(code), command="connect", remote=str(Endpoint(where, to[1])))
        [record] = relay.records("refused")
        assert record["why"].startswith(why)
        assert not relay.records("connect-start")

    serve(test)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "here.example"])
def test_refused_connection_is_answered_05(host: str) -> None:
    async def test(relay: Running) -> None:
        address = "::1" if ":" in host else "127.0.0.1"
        port = closed_port(address)
        why = f"{address}: Connection refused"
        await refused(relay, asking(CONNECT, (host, port)), replying(5), command="connect", why=why)

    serve(test)


def test_connection_that_nobody_answers_ends_with_06() -> None:
    async def test(relay: Running) -> None:
        async with listening(backlog=0) as remote:
            with socket.socket() as filler:
                filler.connect(remote.address)  # the queue of one is full: the kernel drops what asks for more
                why = "127.0.0.1: no answer in time"
                await refused(relay, asking(CONNECT, remote.address), replying(6), command="connect", why=why)

    serve(test, limits="connect_timeout_s = 0.1")


def test_family_that_the_outside_does_not_speak_is_answered_03() -> None:
    async def test(relay: Running) -> None:
        outsides = relay.relay._services.outsides
        outsides["lo"] = replace(outsides["lo"], ipv6=None)
        await refused(relay, asking(CONNECT, ("::1", 80)), replying(3), why="lo has no IPv6 address")

    serve(test)


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        ("05 01 00 02 7f000001 0050", 8),
        ("05 01 00 03 00 0050", 9),
        ("05 01 00 03 01 00 0050", 9),
        ("05 01 00 00 7f000001 0050", 8),
        ("05 01 00 00 00000000 0000", 8),
    ],
    ids=["unknown kind of address", "empty name", "name with a NUL", "address type 00", "nobody"],
)
def test_destination_that_cannot_be_one_is_answered(octets: str, code: int) -> None:
    async def test(relay: Running) -> None:
        await refused(relay, bytes.fromhex(octets), replying(code), command="session")

    serve(test)


def test_rules_that_allow_datagrams_alone_allow_no_stream() -> None:
    async def test(relay: Running) -> None:
        await refused(relay, asking(CONNECT, ("127.0.0.1", closed_port())), replying(2), command="connect")

    serve(test, RULES.replace('["connect", "bind", "udp"]', '["bind", "udp"]'))


def test_remote_that_resets_at_once_is_answered_05(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dial_in_vain(*_: object, **__: object) -> socket.socket:
        """What dial gives when the reset comes right behind the connection: a socket without a peer."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            sock = socket.create_connection(listener.getsockname())
            sock.setblocking(False)
            far, _ = listener.accept()
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            far.close()
        return sock

    async def test(relay: Running) -> None:
        monkeypatch.setattr(tunnel, "dial", dial_in_vain)
        await refused(relay, asking(CONNECT, ("127.0.0.1", 80)), replying(5), command="connect")
        assert not relay.records("connect-start")

    serve(test)


# Limits and ends


def test_silent_stream_is_given_up() -> None:
    async def test(relay: Running) -> None:
        async with listening() as remote, await greeted(relay) as raw:
            raw.write(asking(CONNECT, remote.address))
            far, _ = await remote.accept()
            async with far:
                await raw.read(10)
                await relay.record("connect-end", reason="idle")
                assert await raw.is_closed()
                assert await far.is_closed()

    serve(test, limits="idle_tcp_s = 0.1")


def test_user_has_only_so_many_connections() -> None:
    async def test(relay: Running) -> None:
        async with listening() as remote, await greeted(relay) as raw:
            raw.write(asking(CONNECT, remote.address))
            far, _ = await remote.accept()
            async with far:
                await raw.read(10)
                why = "127.0.0.1 has 1 connections, the limit for one user"
                await refused(relay, asking(CONNECT, remote.address), replying(1), command="connect", why=why)
            assert await raw.is_closed()
            raw.finish()
            await relay.record("connect-end")
            async with await greeted(relay) as again:
                again.write(asking(CONNECT, remote.address))
                far, _ = await remote.accept()
                async with far:
                    assert (await again.read(10))[:4] == "0500"

    serve(test, limits="connections_per_user = 1")


def test_shutdown_cuts_streams_short() -> None:
    async def test(relay: Running) -> Afterwards:
        async with listening() as remote:
            raw = await greeted(relay)
            raw.write(asking(CONNECT, remote.address))
            far, _ = await remote.accept()
        await raw.read(10)
        raw.write(b"cut")
        await far.read(3)

        async def afterwards() -> None:
            for side in (raw, far):
                with pytest.raises(ConnectionResetError):
                    await side.read(1)
                await side.__aexit__()
            ended = await relay.record("connect-end", reason="shutdown")
            assert ended["to_remote_octets"] == 3

        return afterwards

    serve(test)


def test_shutdown_ends_a_connection_that_is_being_made() -> None:
    async def test(relay: Running) -> Afterwards:
        raw = await greeted(relay)
        remote, filler = socket.socket(), socket.socket()
        remote.bind(("127.0.0.1", 0))
        remote.listen(0)
        filler.connect(remote.getsockname())
        raw.write(asking(CONNECT, remote.getsockname()))
        before = descriptors()
        await until(lambda: descriptors() > before)

        async def afterwards() -> None:
            assert await raw.is_closed()
            await raw.__aexit__()
            remote.close()
            filler.close()
            assert not relay.records("connect-start")

        return afterwards

    serve(test)


@pytest.mark.usefixtures("_cheap_hashes")
def test_records_name_the_user() -> None:
    async def test(relay: Running) -> None:
        async with listening() as remote, await relay.connect(enter=False) as raw:
            await raw.ask("050102", 2)
            assert await raw.login("alice", "right") == "0100"
            raw.write(asking(CONNECT, remote.address))
            far, _ = await remote.accept()
            async with far:
                await raw.read(10)
            raw.finish()
            await relay.record("connect-start", user="alice")
            await relay.record("connect-end", user="alice")

    serve(test, RULES.replace('name = "loopback"\n', 'name = "loopback"\nusers = ["alice"]\n'), **LOGIN)


# SOCKS 4 and 4a


def older(command: int, to: Destination, user: bytes = b"somebody") -> bytes:
    """VN CD DSTPORT DSTIP USERID NUL, and the name behind 0.0.0.1."""
    host, port = to
    is_name = host[-1].isalpha()
    address = b"\0\0\0\1" if is_name else block6(to)[1:5]
    return bytes((4, command)) + port.to_bytes(2) + address + user + b"\0" + (host.encode() + b"\0" if is_name else b"")


def older_reply(code: int, bound: Destination = NOBODY) -> str:
    return (bytes((0, code)) + bound[1].to_bytes(2) + block6(bound)[1:5]).hex()


@pytest.mark.parametrize("host", ["127.0.0.1", "here.example"])
@pytest.mark.parametrize("user", [b"", b"somebody"])
def test_socks_4_connects_by_address_and_name(host: str, user: bytes) -> None:
    async def test(relay: Running) -> None:
        async with listening() as remote, await relay.connect(enter=False) as raw:
            raw.write(older(CONNECT, (host, remote.address[1]), user) + b"early")
            far, peer = await remote.accept()
            async with far:
                assert await raw.read(8) == older_reply(90, peer)
                assert await far.read(5) == b"early".hex()
                far.write(b"answer")
                assert await raw.read(6) == b"answer".hex()
        started = await relay.record("connect-start")
        assert started["remote"] == f"{host}:{remote.address[1]}"
        assert "user" not in started

    serve(test, socks="socks4 = true")


@pytest.mark.parametrize("to", [("127.0.0.1", 9), ("nowhere.example", 80), ("127.0.0.1", 0), ("0.0.0.0", 80)])
def test_socks_4_knows_one_failure(to: Destination) -> None:
    async def test(relay: Running) -> None:
        async with await relay.connect(enter=False) as raw:
            assert await raw.ask(older(CONNECT, to).hex(), 8) == older_reply(91)
            assert await raw.is_closed()
        await relay.record("refused", command="connect", remote=f"{to[0]}:{to[1]}")

    serve(test, socks="socks4 = true")


def test_socks_4_is_off_unless_switched_on() -> None:
    async def test(relay: Running) -> None:
        async with await relay.connect(enter=False) as raw:
            raw.write(older(CONNECT, ("127.0.0.1", 80)))
            assert await raw.is_closed()

    serve(test)


@pytest.mark.usefixtures("_cheap_hashes")
def test_socks_4_is_refused_where_authentication_is_demanded() -> None:
    async def test(relay: Running) -> None:
        async with await relay.connect(enter=False) as raw:
            assert await raw.ask(older(CONNECT, ("127.0.0.1", 80), b"alice").hex(), 8) == older_reply(91)
            assert await raw.is_closed()
        await relay.record("refused", why="SOCKS 4 knows no authentication, and one is demanded")

    serve(test, socks="socks4 = true", **LOGIN)


def test_socks_4_user_id_gives_no_rights() -> None:
    async def test(relay: Running) -> None:
        async with await relay.connect(enter=False) as raw:
            assert await raw.ask(older(CONNECT, ("127.0.0.1", 80), b"alice").hex(), 8) == older_reply(91)
        assert "user" not in await relay.record("refused", command="connect")

    rules = RULES.replace('name = "loopback"\n', 'name = "loopback"\nusers = ["alice"]\n')
    serve(test, rules, socks="socks4 = true", methods='"none"', passwords={"alice": "right"})


def test_socks_5_goes_on_where_socks_4_is_on() -> None:
    async def test(relay: Running) -> None:
        await refused(relay, asking(CONNECT, ("127.0.0.1", 9)), replying(2), command="connect")

    serve(test, socks="socks4 = true")
