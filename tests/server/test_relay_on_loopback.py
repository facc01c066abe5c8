"""The relay as its clients see it, octet by octet, and as its records tell it; on loopback, without root."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from mcastsocks.client import LoginRefused, RequestRefused, connect
from mcastsocks.errors import ConfigError
from mcastsocks.planes.switchboard import Switchboard
from mcastsocks.rules import users as users_file
from mcastsocks.server import resolver
from mcastsocks.server.auth import userpass
from mcastsocks.server.records import Records
from mcastsocks.server.relay import Relay
from tests.server.loopback import (
    BIND,
    BOTH,
    CHEAP,
    ENTER,
    ENTERED,
    GROUP,
    MU,
    MULTICAST,
    RECEIVE,
    RELEASE,
    RULES,
    SEND,
    SET_TTL,
    UNICAST,
    Lines,
    Raw,
    Udp,
    configuration,
    free_port,
    request,
    run,
    running,
    until,
)

PASSWORDS = {"alice": "right", "bob": "right"}
LOGIN: dict[str, Any] = {"methods": '"userpass"', "passwords": PASSWORDS}
REMOTE = ("127.0.0.1", 7)
JOIN = RECEIVE | MULTICAST | MU


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_file, "HASHER", CHEAP)
    monkeypatch.setattr(userpass, "HASHER", CHEAP)


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Any:
    """A defect of a session, or of a task that nobody awaits, is logged by asyncio."""
    yield
    assert not caplog.records


def compact(octets: str) -> str:
    return octets.replace(" ", "")


# Getting in


def test_client_enters_the_enhanced_mode() -> None:
    async def dialogue() -> None:
        async with running() as relay, await relay.connect(enter=False) as raw:
            assert await raw.ask("050100", 2) == "0500"
            assert await raw.ask(ENTER, 10) == compact(ENTERED)
            started = await relay.record("session-start")
            assert started["relay"] == f"127.0.0.1:{relay.port}"
            assert started["client"].startswith("127.0.0.1:")
            assert "user" not in started

    run(dialogue())


def test_whole_dialogue_may_come_in_one_segment_or_octet_by_octet() -> None:
    octets = bytes.fromhex("0502 0002" + ENTER) + request(BIND, BOTH | UNICAST, REMOTE, tid=0xBEEF)

    async def dialogue() -> None:
        async with running() as relay:
            for pieces in ([octets], [octets[n : n + 1] for n in range(len(octets))]):
                async with await relay.connect(enter=False) as raw:
                    for piece in pieces:
                        raw.write(piece)
                        await asyncio.sleep(0)
                    assert await raw.read(12) == "0500" + compact(ENTERED)
                    answer = await raw.answer()
                    assert (answer.code, answer.tid) == (0, 0xBEEF)

    run(dialogue())


@pytest.mark.parametrize(
    ("methods", "offered", "chosen"),
    [
        ('"none"', "050100", "0500"),
        ('"userpass"', "050102", "0502"),
        ('"none", "userpass"', "05020002", "0502"),  # the strongest, not the first
        ('"none", "userpass"', "050100", "0500"),
        ('"userpass"', "050100", "05ff"),
        ('"none"', "050102", "05ff"),
        ('"none"', "0500", "05ff"),
    ],
)
def test_strongest_common_method_is_chosen_or_none(methods: str, offered: str, chosen: str) -> None:
    async def dialogue() -> None:
        async with running(methods=methods) as relay, await relay.connect(enter=False) as raw:
            assert await raw.ask(offered, 2) == chosen
            if chosen == "05ff":
                assert await raw.is_closed()
                await relay.record("refused", command="session", why="no common authentication method")

    run(dialogue())


def test_right_password_gets_in_and_is_named_in_the_records() -> None:
    async def dialogue() -> None:
        async with running(**LOGIN) as relay:
            async with await relay.connect(user=("alice", "right")):
                await relay.record("session-start", user="alice")
            await relay.record("session-end", user="alice", reason="closed by client")

    run(dialogue())


@pytest.mark.parametrize(("user", "password"), [("alice", "wrong"), ("eve", "right"), ("alice", "")])
def test_wrong_password_is_refused_and_closed(user: str, password: str) -> None:
    async def dialogue() -> None:
        async with running(**LOGIN) as relay, await relay.connect(enter=False) as raw:
            assert await raw.ask("050102", 2) == "0502"
            assert await raw.login(user, password) == "0101"
            assert await raw.is_closed()
            await relay.record("refused", user=user, command="session", why="wrong user name or password")
        assert not [record for record in relay.lines.records if "right" in record.values()]
        assert not relay.records("session-start")

    run(dialogue())


def test_hostile_user_name_stays_in_its_field() -> None:
    async def dialogue() -> None:
        async with running(**LOGIN) as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050102", 2)
            assert await raw.ask("01 04 0a 22 ff 1b 01 78", 2) == "0101"
            await relay.record("refused", user='\n"\ufffd\x1b')

    run(dialogue())


@pytest.mark.parametrize(
    ("before", "octets", "answer", "why"),
    [
        ([], "04 01 0050", "", "expected version X'05' of the greeting, not X'04'"),
        ([], "16 03 01", "", "expected version X'05' of the greeting, not X'16'"),
        (["050102"], "05 01 61 01 61", "0101", "expected version X'01' of the username/password request, not X'05'"),
        (["050102"], "01 00 01 61", "0101", "an empty user name"),
        (["050100"], "04 04 00 01 00000000 0000", "", "expected version X'05' of the request, not X'04'"),
        (["050100"], "05 04 00 07", "05 08 00 01 00000000 0000", "unknown address type X'07'"),
    ],
)
def test_broken_negotiation_is_answered_closed_and_recorded(
    before: list[str], octets: str, answer: str, why: str
) -> None:
    async def dialogue() -> None:
        async with running(methods='"none", "userpass"') as relay, await relay.connect(enter=False) as raw:
            for each in before:
                await raw.ask(each, 2)
            assert await raw.ask(octets, len(bytes.fromhex(answer))) == compact(answer)
            assert await raw.is_closed()
            await relay.record("refused", command="session", why=f"protocol error: {why}")

    run(dialogue())


@pytest.mark.parametrize("command", ["00", "05", "7f", "ff"])
def test_unknown_command_is_answered_07(command: str) -> None:
    async def dialogue() -> None:
        async with running() as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050100", 2)
            assert await raw.ask(f"05{command}00 01 7f000001 0050", 10) == compact("05 07 00 01 00000000 0000")
            assert await raw.is_closed()
            await relay.record("refused", command=f"X'{command}'", remote="127.0.0.1:80", why="no such command")

    run(dialogue())


@pytest.mark.parametrize(
    "rules",
    [
        "",
        '[[rules]]\nname = "r"\nallow = true\nusers = ["bob"]\n',
        '[[rules]]\nname = "r"\nallow = true\nclients = ["192.0.2.0/24"]\n',
        '[[rules]]\nname = "r"\nallow = true\ndo = ["connect"]\n',
        '[[rules]]\nname = "r"\nallow = false\n',
    ],
)
def test_client_that_no_rule_can_ever_allow_is_refused_the_mode(rules: str) -> None:
    async def dialogue() -> None:
        async with running(rules, **LOGIN) as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050102", 2)
            assert await raw.login("alice", "right") == "0100"
            assert await raw.ask(ENTER, 10) == compact("01 02 00 01 00000000 0000")
            assert await raw.is_closed()
            await relay.record("refused", user="alice", why="no rule allows this client any datagrams or groups")

    run(dialogue())


@pytest.mark.parametrize("octets", ["", "05", "0501", "050100", "050100 0504"])
def test_silent_client_is_given_up_after_the_handshake_timeout(octets: str) -> None:
    async def dialogue() -> None:
        async with running(limits="handshake_timeout_s = 0.2") as relay, await relay.connect(enter=False) as raw:
            raw.write(bytes.fromhex(octets))
            await raw.read(2 if octets.startswith("050100") else 0)
            assert await raw.is_closed()
            await relay.record("refused", command="session", why="handshake timeout")

    run(dialogue())


def test_channel_outlives_the_handshake_timeout() -> None:
    async def dialogue() -> None:
        async with running(limits="handshake_timeout_s = 0.2") as relay, await relay.connect() as raw:
            async with await relay.connect(enter=False) as late:
                assert await late.is_closed()
            assert (await raw.bind(BOTH | UNICAST, REMOTE)).code == 0

    run(dialogue())


# Requests that are refused


REFUSED = {
    # what: command, flags, remote, more; code and flags of the reply
    "no direction": (BIND, UNICAST, REMOTE, {}, 0x01, UNICAST),
    "no transport": (BIND, BOTH, REMOTE, {}, 0x01, BOTH),
    "mode for unicast": (BIND, BOTH | UNICAST | MU, REMOTE, {}, 0x01, BOTH | UNICAST),
    "unicast denied": (BIND, BOTH | UNICAST, ("198.51.100.7", 7), {}, 0x02, 0),
    "port denied": (BIND, BOTH | UNICAST, ("127.0.0.1", 9), {}, 0x02, 0),
    "receiving denied": (BIND, JOIN, ("239.1.1.1", 7), {}, 0x11, 0),
    "sending denied": (BIND, SEND | MULTICAST, ("239.255.1.1", 7), {"ttl": 1}, 0x12, 0),
    "half denied": (BIND, BOTH | MULTICAST, ("239.255.1.1", 7), {"ttl": 1}, 0x12, RECEIVE | MULTICAST),
    "name unknown": (BIND, BOTH | UNICAST, ("no..name", 7), {}, 0x04, 0),
    "command unknown": (9, BOTH | UNICAST, REMOTE, {}, 0x07, 0),
    "no address": (BIND, BOTH | UNICAST, None, {}, 0x09, 0),
    "zero address": (BIND, BOTH | UNICAST, ("0.0.0.0", 7), {}, 0x09, 0),
    "no port": (BIND, BOTH | UNICAST, ("127.0.0.1", 0), {}, 0x09, 0),
    "AID unknown": (BIND, BOTH | UNICAST, REMOTE, {"aid": 0xDEADBEEF}, 0x10, 0),
    "release of nothing": (RELEASE, BOTH, None, {"aid": 0xDEADBEEF}, 0x10, BOTH),
    "TTL of nothing": (SET_TTL, 0, None, {"aid": 0xDEADBEEF, "ttl": 1}, 0x10, 0),
    "no group": (BIND, JOIN, REMOTE, {}, 0x14, 0),
    "group as unicast": (BIND, BOTH | UNICAST, (GROUP, 7), {}, 0x14, 0),
    "source-specific group": (BIND, JOIN, ("232.1.1.1", 7), {}, 0x14, 0),
    "TTL too high": (BIND, SEND | MULTICAST, (GROUP, 7), {"ttl": 5}, 0x15, 0),
    "TTL zero": (BIND, SEND | MULTICAST, (GROUP, 7), {"ttl": 0}, 0x15, 0),
}


@pytest.mark.parametrize(("command", "flags", "remote", "more", "code", "possible"), REFUSED.values(), ids=REFUSED)
def test_refused_request_gets_its_code_and_the_channel_lives_on(
    command: int, flags: int, remote: tuple[str, int] | None, more: dict[str, int], code: int, possible: int
) -> None:
    async def dialogue() -> None:
        async with running() as relay, await relay.connect() as raw:
            answer = await raw.control(command, flags, remote, tid=0x0102, **more)
            assert (answer.code, answer.tid, answer.flags) == (code, 0x0102, possible)
            assert answer.blocks == bytes(14)
            record = await relay.record("refused", session=1)
            assert record["why"]
            assert record.get("remote") == (f"{remote[0]}:{remote[1]}" if remote else None)
            assert (await raw.bind(BOTH | UNICAST, REMOTE)).code == 0
        assert (await relay.record("session-end"))["refusals"] == 1

    run(dialogue())


def test_direction_that_is_held_in_another_way_is_a_bad_context() -> None:
    async def dialogue() -> None:
        async with running() as relay, await relay.connect() as raw:
            aid = (await raw.bind(RECEIVE | UNICAST, REMOTE)).aid
            assert (await raw.bind(SEND | UNICAST, ("127.0.0.1", 8), aid=aid)).code == 0x13
            assert (await raw.control(RELEASE, SEND, aid=aid)).code == 0x13
            assert (await raw.control(SET_TTL, aid=aid, ttl=1)).code == 0x13
            assert (await raw.control(RELEASE, RECEIVE, aid=aid)).code == 0

    run(dialogue())


def test_aid_of_another_channel_is_unknown() -> None:
    async def dialogue() -> None:
        async with running() as relay, await relay.connect() as one, await relay.connect() as other:
            aid = (await one.bind(BOTH | UNICAST, REMOTE)).aid
            assert (await other.control(RELEASE, BOTH, aid=aid)).code == 0x10
            assert (await one.control(RELEASE, BOTH, aid=aid)).code == 0

    run(dialogue())


@pytest.mark.parametrize(
    "octets",
    ["09", "01 0000", "01 000c", "02 001b 00 0007 00 0001 00000000" + 14 * "00", "01 000e 05 0007 00 0001 00000000 01"],
    ids=["packet type", "SIZE 0", "SIZE 12", "reply", "half a block"],
)
def test_broken_frame_closes_only_that_channel(octets: str) -> None:
    async def dialogue() -> None:
        async with running() as relay, await relay.connect() as sound, await relay.connect() as broken:
            aid = (await broken.bind(JOIN, (GROUP, 5004))).aid
            broken.write(bytes.fromhex(octets))
            assert await broken.is_closed()
            ended = await relay.record("association-end", aid=f"{aid:08x}")
            assert ended["reason"].startswith("protocol error: ")
            assert (await relay.record("session-end", session=2))["reason"] == ended["reason"]
            assert (await sound.bind(BOTH | UNICAST, REMOTE)).code == 0

    run(dialogue())


def test_encapsulated_datagram_for_nobody_is_silently_discarded() -> None:
    async def dialogue() -> None:
        async with running() as relay, await relay.connect() as raw:
            raw.write(bytes.fromhex("03 0009 00000001 6869"))
            assert (await raw.bind(BOTH | UNICAST, REMOTE)).code == 0

    run(dialogue())


# Names


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to; a name that is not there keeps its thread until the test ends."""
    known: dict[str, list[str]] = {}
    monkeypatch.setattr(resolver, "_look_up", lambda name: [ip_address(each) for each in known[name]])
    return known


def test_of_several_addresses_the_denied_ones_are_dropped(addresses: dict[str, list[str]]) -> None:
    addresses["host.example"] = ["198.51.100.7", "127.0.0.5", "127.0.0.6"]

    async def dialogue() -> None:
        async with running() as relay, await relay.connect() as raw:
            assert (await raw.bind(BOTH | UNICAST, ("host.example", 7))).code == 0
            opened = await relay.record("association-start")
            assert (opened["remote"], opened["address"]) == ("host.example:7", "127.0.0.5:7")

    run(dialogue())


def test_address_must_be_allowed_in_every_direction_asked(addresses: dict[str, list[str]]) -> None:
    addresses["group.example"] = ["239.255.1.1", GROUP]  # where nobody may speak, where everybody may

    async def dialogue() -> None:
        async with running() as relay, await relay.connect() as raw:
            assert (await raw.bind(JOIN | SEND, ("group.example", 5004), ttl=1)).code == 0
            assert (await relay.record("association-start"))["address"] == f"{GROUP}:5004"
            assert (await raw.bind(JOIN, ("group.example", 5004))).code == 0
            await relay.record("association-start", address="239.255.1.1:5004")

    run(dialogue())


def test_name_that_rules_allow_opens_no_protected_range(addresses: dict[str, list[str]]) -> None:
    addresses["host.example"] = ["127.0.0.5"]

    async def dialogue() -> None:
        rules = '[[rules]]\nname = "names"\nallow = true\nto = ["*.example"]\n'
        async with running(rules) as relay, await relay.connect() as raw:
            assert (await raw.bind(BOTH | UNICAST, ("host.example", 7))).code == 0x02
            refused = await relay.record("refused")
            assert "127.0.0.0/8 is protected" in refused["why"]

    run(dialogue())


def test_slow_name_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(resolver, "_look_up", lambda name: [ip_address("127.0.0.5")] if gate.wait(10) else [])

    async def dialogue() -> None:
        async with running() as relay, await relay.connect() as raw:
            raw.write(request(BIND, BOTH | UNICAST, ("slow.example", 7), tid=1))
            assert (await raw.bind(BOTH | UNICAST, REMOTE, tid=2)).tid == 2
            gate.set()
            answer = await raw.answer()
            assert (answer.tid, answer.code) == (1, 0)

    run(dialogue())


def test_channel_that_closes_forgets_the_names_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(resolver, "_look_up", lambda name: [ip_address("127.0.0.5")] if gate.wait(10) else [])

    async def dialogue() -> None:
        async with running() as relay:
            async with await relay.connect() as raw:
                raw.write(request(BIND, BOTH | UNICAST, ("slow.example", 7), tid=1))
                assert (await raw.bind(BOTH | UNICAST, REMOTE)).code == 0  # the look-up is under way
            await relay.record("session-end", associations=1)
            gate.set()
            async with await relay.connect() as raw:
                assert (await raw.bind(BOTH | UNICAST, ("another.example", 7))).code == 0
            await relay.record("session-end", session=2)
            assert not relay.records("association-start", remote="slow.example:7")
            assert len(relay.relay._services.table) == 0

    run(dialogue())


# Limits


def test_connection_beyond_the_limit_is_told_so() -> None:
    async def dialogue() -> None:
        async with running(limits="connections = 1") as relay:
            async with await relay.connect() as first:
                async with await relay.connect(enter=False) as second:
                    assert await second.ask("050100", 2) == "05ff"
                    assert await second.is_closed()
                await relay.record("refused", why="the relay is full: 1 connections")
                assert (await first.bind(BOTH | UNICAST, REMOTE)).code == 0
            await relay.record("session-end")
            await until(lambda: len(relay.relay._services.connections) == 0)
            async with await relay.connect():
                pass

    run(dialogue())


def test_connections_far_beyond_the_limit_are_closed_without_a_word() -> None:
    async def dialogue() -> None:
        async with running(limits="connections = 1") as relay, asyncio.TaskGroup() as group:
            crowd = [await relay.connect(enter=False) for _ in range(40)]
            await until(lambda: len(relay.relay._services.connections) == 33)
            closed = [group.create_task(raw.is_closed()) for raw in crowd[33:]]
            assert [await each for each in closed] == 7 * [True]
            assert await crowd[0].ask("050100", 2) == "0500"
            for raw in crowd:
                await raw.__aexit__()
            await until(lambda: len(relay.relay._services.connections) == 0)

    run(dialogue())


def test_one_address_has_only_so_many_unfinished_logins() -> None:
    async def dialogue() -> None:
        limits = "handshakes_per_client = 1"
        async with running(limits=limits) as relay, await relay.connect(), await relay.connect(enter=False):
            async with await relay.connect(enter=False) as third:
                assert await third.ask("050100", 2) == "05ff"
            await relay.record("refused", why="127.0.0.1 has 1 connections that have not logged in")

    run(dialogue())


def test_user_has_only_so_many_connections() -> None:
    async def dialogue() -> None:
        async with running(limits="connections_per_user = 1", **LOGIN) as relay:
            async with await relay.connect(user=("alice", "right")), await relay.connect(enter=False) as second:
                await raw_login(second, "alice")
                assert await second.ask(ENTER, 10) == compact("01 01 00 01 00000000 0000")
                assert await second.is_closed()
                await relay.record("refused", why="alice has 1 connections, the limit for one user")
                async with await relay.connect(user=("bob", "right")):
                    pass
            await until(lambda: len(relay.relay._services.connections) == 0)
            async with await relay.connect(user=("alice", "right")):
                pass

    run(dialogue())


async def raw_login(raw: Raw, user: str) -> None:
    assert await raw.ask("050102", 2) == "0502"
    assert await raw.login(user, "right") == "0100"


@pytest.mark.parametrize(
    ("limit", "flags", "first", "second", "why"),
    [
        ("associations_per_user", BOTH | UNICAST, REMOTE, REMOTE, "alice holds 1 associations, the limit for one user"),
        ("groups_per_user", JOIN, (GROUP, 5001), (GROUP, 5002), "alice uses 1 groups, the limit for one user"),
        ("associations", BOTH | UNICAST, REMOTE, REMOTE, "the relay is full: 1 associations"),
        ("groups", JOIN, (GROUP, 5001), (GROUP, 5002), "the relay is full: 1 groups"),
        ("udp_sockets", JOIN, (GROUP, 5001), (GROUP, 5002), "the relay is full: 2 UDP sockets"),
    ],
)
def test_full_means_reply_01_and_room_comes_back(
    limit: str, flags: int, first: tuple[str, int], second: tuple[str, int], why: str
) -> None:
    async def dialogue() -> None:
        number = 2 if limit == "udp_sockets" else 1  # one of them is the inside's
        alice, bob = ("alice", "right"), ("bob", "right")
        async with running(limits=f"{limit} = {number}", **LOGIN) as relay, await relay.connect(user=alice) as raw:
            aid = (await raw.bind(flags, first)).aid
            refused = await raw.bind(flags, second, tid=7)
            assert (refused.code, refused.tid, refused.aid) == (0x01, 7, 0)
            await relay.record("refused", why=why, reply="general failure")
            if limit.endswith("_user"):
                async with await relay.connect(user=bob) as other:
                    assert (await other.bind(flags, second)).code == 0
            assert (await raw.control(RELEASE, flags & BOTH, aid=aid)).code == 0
            assert (await raw.bind(flags, second)).code == 0

    run(dialogue())


def test_association_that_fails_half_way_leaves_nothing() -> None:
    async def dialogue() -> None:
        async with running(limits="udp_sockets = 2") as relay, await relay.connect() as raw:
            refused = await raw.bind(JOIN | SEND, (GROUP, 5004), ttl=1)  # room to send, none to receive
            assert refused.code == 0x01
            assert relay.relay._services.plane.descriptors() == 1
            assert len(relay.relay._services.table) == 0
            assert (await raw.bind(JOIN, (GROUP, 5004))).code == 0

    run(dialogue())


def test_mode_is_refused_with_01_when_there_is_no_udp_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: object) -> None:
        raise OSError(98, "Address already in use")

    async def dialogue() -> None:
        async with running() as relay, await relay.connect(enter=False) as raw:
            monkeypatch.setattr(Switchboard, "open_inside", taken)
            await raw.ask("050100", 2)
            assert await raw.ask(ENTER, 10) == compact("01 01 00 01 00000000 0000")
            assert await raw.is_closed()
            await relay.record("refused", why=f"no UDP socket on 127.0.0.1:{relay.port}: Address already in use")

    run(dialogue())


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection over loopback: the client's, and the one that was accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    accepted.setblocking(False)
    return client, accepted


def test_client_that_is_gone_at_once_is_not_counted_at_all() -> None:
    async def dialogue() -> None:
        async with running() as relay:
            client, accepted = tcp_pair()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            relay.relay._accepted(accepted)
            assert accepted.fileno() == -1
            assert len(relay.relay._services.connections) == 0

    run(dialogue())


def test_client_that_is_gone_before_its_session_begins_is_not_counted_for_ever() -> None:
    async def dialogue() -> None:
        async with running() as relay:
            client, accepted = tcp_pair()
            relay.relay._accepted(accepted)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()  # a reset, at once
            assert len(relay.relay._services.connections) == 1
            await until(lambda: len(relay.relay._services.connections) == 0)
        assert not relay.records("defect")

    run(dialogue())


# Datagrams and records


def test_association_is_recorded_at_start_and_end_with_what_it_moved() -> None:
    async def dialogue() -> None:
        async with running(**LOGIN) as relay, Udp.open() as remote, connect(relay.url("alice:right")) as client:
            association = await client.associate(*remote.address)
            for data in (b"one", b"", b"three"):
                await association.send(data)
                received, source = await remote.received.get()
                assert received == data
                remote.send(b"re:" + data, source)
                assert (await association.recv()).data == b"re:" + data
            await association.close()
            started = await relay.record("association-start", user="alice", session=1)
            ended = await relay.record("association-end", user="alice", session=1)
        whole = {
            "what": "receive+send-unicast",
            "remote": f"127.0.0.1:{remote.address[1]}",
            "rule": "loopback",
            "outside": f"127.0.0.1:{source[1]}",
        }
        assert started.items() >= whole.items()
        moved = {
            "to_remote_datagrams": 3,
            "to_remote_octets": 8,
            "to_client_datagrams": 3,
            "to_client_octets": 17,
            "dropped_datagrams": 0,
            "reason": "released",
        }
        assert ended.items() >= (whole | moved | {"aid": started["aid"]}).items()
        assert 0 <= ended["duration_s"] < 10
        assert not started.keys() & moved.keys()
        session = await relay.record("session-end")
        assert (session["associations"], session["refusals"]) == (1, 0)

    run(dialogue())


def test_group_is_received_and_sent_to_and_recorded() -> None:
    group = (GROUP, free_port())

    async def dialogue() -> None:
        async with running() as relay, Udp.open() as outside, Udp.open(group) as listener:
            async with connect(relay.url()) as client, connect(relay.url()) as other:
                joined, heard = await client.join(*group), await other.join(*group)
                outside.send(b"hello", group)
                assert (await joined.recv()).data == (await heard.recv()).data == b"hello"
                assert await listener.received.get() == (b"hello", outside.address)
                await joined.add(send=True, ttl=4)
                await joined.send(b"answer")
                assert (await listener.received.get())[0] == b"answer"
                assert (await heard.recv()).data == b"answer"
                await joined.set_ttl(2)
                with pytest.raises(RequestRefused) as refused:
                    await joined.set_ttl(5)
                assert refused.value.code == 0x15
            ended = await relay.record("association-end", session=1)
            other_ended = await relay.record("association-end", session=2)
        assert ended["what"] == "receive+send-group"
        assert ended["remote"] == f"{group[0]}:{group[1]}"
        assert (ended["rule"], ended["ttl"]) == ("hear and speak", 2)
        assert (ended["to_client_datagrams"], ended["to_client_octets"]) == (1, 5)
        assert (ended["to_remote_datagrams"], ended["to_remote_octets"]) == (1, 6)
        assert ended["reason"] == "closed by client"
        assert other_ended["to_client_octets"] == 11
        changes = relay.records("association-change", session=1)
        assert [(change["what"], change["ttl"]) for change in changes] == [
            ("receive+send-group", 4),
            ("receive+send-group", 2),
        ]

    run(dialogue())


def test_one_membership_serves_all_receivers_and_is_gone_with_the_last() -> None:
    group = (GROUP.replace("77", "78"), free_port())

    def members() -> int:
        """References that sockets hold on the group, from the kernel (/proc/net/igmp writes it backwards)."""
        written = ip_address(group[0]).packed[::-1].hex().upper()
        lines = Path("/proc/net/igmp").read_text().split("\n")
        return sum(int(line.split()[1]) for line in lines if line.split()[:1] == [written])

    async def dialogue() -> None:
        async with running() as relay:
            async with await relay.connect() as one:
                async with await relay.connect() as other:
                    first = (await one.bind(JOIN, group)).aid
                    for _ in range(3):
                        assert (await other.bind(JOIN, group)).code == 0
                    assert members() == 1
                await relay.record("session-end", session=2)
                assert members() == 1
                assert (await one.control(RELEASE, RECEIVE, aid=first)).code == 0
                assert members() == 0
                assert (await one.bind(JOIN, group)).code == 0
            await relay.record("session-end", session=1)
            assert members() == 0

    run(dialogue())


def test_two_users_have_the_rights_of_their_rules() -> None:
    rules = '[[rules]]\nname = "a"\nallow = true\nusers = ["alice"]\ngroups = ["239.255.0.0/16"]\n' + RULES.replace(
        "allow = true\n", 'allow = true\nusers = ["bob"]\n'
    ).replace("239.255.0.0/16", "239.255.1.1")

    async def dialogue() -> None:
        async with running(rules, **LOGIN) as relay:
            async with connect(relay.url("alice:right")) as alice, connect(relay.url("bob:right")) as bob:
                await alice.join(GROUP, 5004)
                with pytest.raises(RequestRefused) as refused:
                    await bob.join(GROUP, 5004)
                assert refused.value.code == 0x11
                await bob.join("239.255.1.1", 5004)
            record = await relay.record("refused", user="bob")
            assert record["reply"] == "multicast receive not allowed by ruleset"
            assert record["command"] == "bind"
            for password in ("wrong", ""):
                with pytest.raises(LoginRefused):
                    async with connect(relay.url(f"alice:{password}")):
                        pass

    run(dialogue())


# The end


def descriptors() -> dict[str, str]:
    """What this process has open, but for what the directory's own listing opens."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
    return found


def test_shutdown_releases_everything() -> None:
    async def dialogue() -> None:
        before = descriptors()
        threads = set(threading.enumerate())
        async with running() as relay:
            raw = await relay.connect()
            half = await relay.connect(enter=False)
            assert (await raw.bind(JOIN, (GROUP, 5004))).code == 0
            assert (await raw.bind(BOTH | UNICAST, REMOTE)).code == 0
            await half.ask("050100", 2)
        assert await raw.is_closed()
        assert await half.is_closed()
        for client in (raw, half):
            await client.__aexit__()
        assert descriptors() == before
        assert not [each for each in set(threading.enumerate()) - threads if each.name == "records"]
        events = [record["event"] for record in relay.lines.records]
        assert events[0] == "relay-start"
        assert events[-5:] == ["association-end", "association-end", "session-end", "counters", "relay-end"]
        assert {record["reason"] for record in relay.lines.records if "reason" in record} == {"shutdown"}
        assert relay.records("counters")[0]["connections"] == 0
        assert relay.records("counters")[0]["associations"] == 0

    run(dialogue())


def test_connection_that_comes_with_the_shutdown_is_closed_too() -> None:
    async def dialogue() -> None:
        before = descriptors()
        async with running() as relay:
            client, accepted = tcp_pair()
            relay.relay._accepted(accepted)
        with client:
            assert client.recv(1) == b""
        assert descriptors() == before

    run(dialogue())


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_port_that_is_taken_is_told_with_its_place_and_nothing_is_left(kind: socket.SocketKind) -> None:
    async def dialogue() -> None:
        before = descriptors()
        lines = Lines()
        with socket.socket(type=kind) as taken:
            port = free_port()
            taken.bind(("127.0.0.1", port))
            if kind == socket.SOCK_STREAM:
                taken.listen()
            relay = Relay(configuration(port, RULES, "", '"none"', {}), Records("json", lines))
            protocol = "TCP" if kind == socket.SOCK_STREAM else "UDP"
            with pytest.raises(ConfigError) as caught:
                relay.start()
            assert str(caught.value).startswith("relay.toml:2: inside.listen[0]: cannot ")
            assert str(caught.value).endswith(f"on {protocol} 127.0.0.1:{port}: Address already in use")
            await relay.stop()
        assert descriptors() == before
        assert lines.records == []

    run(dialogue())


def test_outside_interface_that_is_not_there_is_told_with_its_place() -> None:
    async def dialogue() -> None:
        loaded = configuration(free_port(), RULES, "", '"none"', {})
        text = loaded.text.replace('"lo"', '"none9"')
        [outside] = loaded.config.outside
        config = loaded.config.model_copy(update={"outside": [outside.model_copy(update={"interface": "none9"})]})
        with pytest.raises(ConfigError, match=r"^relay\.toml:4: outside\.interface: no interface 'none9' here; .*lo"):
            Relay(type(loaded)(config, loaded.users, loaded.source, text))

    run(dialogue())
