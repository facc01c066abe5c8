"""LIST-FEATURES, octet by octet; on loopback, without root."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcastsocks.client import RequestRefused, connect, list_features
from mcastsocks.rules import users as users_file
from mcastsocks.server import features
from mcastsocks.server.auth import userpass
from mcastsocks.wire.features import Extension
from tests.server.loopback import BIND, BOTH, CHEAP, ENTER, ENTERED, UNICAST, request, run, running, until

LIST, LIST_ONCE = "05 10 01 01 00000000 0000", "05 10 00 01 00000000 0000"
GRANTED, GRANTED_ONCE = "05 00 01 01 00000000 0000", "05 00 00 01 00000000 0000"
HEAD = "00 10 02 0102  01 05 00  02 01 00  02 03 00  02 04 00"
CONNECT_LISTED, BIND_LISTED, UDP_LISTED = "04 01 00", "04 02 00", "04 03 00"
EVERYTHING = "04 04 05 0102818284"
WHAT_RULES_ALLOW = UDP_LISTED + EVERYTHING
TAIL = "04 10 01 01  10 03 0a 6d63617374736f636b73  ff 00 00"
LOGIN: dict[str, Any] = {"methods": '"userpass"', "passwords": {"alice": "right", "bob": "right"}}


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_file, "HASHER", CHEAP)
    monkeypatch.setattr(userpass, "HASHER", CHEAP)


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    assert not caplog.records


def listed(commands: str = "", *, auth: str = "03 00 00", granted: str = GRANTED, older: str = "") -> str:
    """Reply and list with these COMMANDs but LIST-FEATURES, and versions of SOCKS before 5; hex digits."""
    return (granted + HEAD.replace("01 05 00", f"01 05 00{older}") + auth + commands + TAIL).replace(" ", "")


def rule(allows: str) -> str:
    return f'[[rules]]\nname = "r"\n{allows}\n'


ALLOWED = {
    # what: one rule; the COMMANDs in the list of a client on loopback without a login
    "unicast": ('allow = true\ndo = ["udp"]', UDP_LISTED + "04 04 03 018284"),
    "receiving groups": ('allow = true\ndo = ["receive-group"]', "04 04 04 02818284"),
    "sending to groups": ('allow = true\ndo = ["send-group"]', "04 04 02 0284"),
    "both": ('allow = true\ndo = ["send-group", "udp"]', UDP_LISTED + "04 04 04 01028284"),
    "anything": ("allow = true", CONNECT_LISTED + BIND_LISTED + UDP_LISTED + EVERYTHING),
    "streams": ('allow = true\ndo = ["connect", "bind"]', CONNECT_LISTED + BIND_LISTED),
    "connecting": ('allow = true\ndo = ["connect"]', CONNECT_LISTED),
    "being connected to": ('allow = true\ndo = ["bind"]', BIND_LISTED),
    "nothing": ("allow = false", ""),
    "from elsewhere": ('allow = true\nclients = ["192.0.2.0/24"]', ""),
    "from here": ('allow = true\nclients = ["127.0.0.0/8"]\ndo = ["udp"]', UDP_LISTED + "04 04 03 018284"),
    "some user": ('allow = true\nusers = ["alice"]', ""),
}


@pytest.mark.parametrize(("allows", "commands"), ALLOWED.values(), ids=ALLOWED)
def test_commands_are_listed_as_far_as_a_rule_could_allow_them(allows: str, commands: str) -> None:
    async def dialogue() -> None:
        async with running(rule(allows)) as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050100", 2)
            expected = listed(commands)
            assert await raw.ask(LIST, len(expected) // 2) == expected

    run(dialogue())


@pytest.mark.parametrize(
    ("user", "commands"), [("alice", UDP_LISTED + "04 04 03 018284"), ("bob", "04 04 04 02818284")]
)
def test_list_is_that_of_the_user_who_logged_in(user: str, commands: str) -> None:
    rules = '[[rules]]\nname = "a"\nallow = true\nusers = ["alice"]\ndo = ["udp"]\n' + rule(
        'allow = true\nusers = ["bob"]\ndo = ["receive-group"]'
    )

    async def dialogue() -> None:
        async with running(rules, **LOGIN) as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050102", 2)
            assert await raw.login(user, "right") == "0100"
            expected = listed(commands, auth="03 02 00")
            assert await raw.ask(LIST, len(expected) // 2) == expected

    run(dialogue())


def test_every_configured_method_is_listed() -> None:
    async def dialogue() -> None:
        methods = LOGIN | {"methods": '"none", "userpass"'}
        async with running("", **methods) as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050100", 2)
            expected = listed(auth="03 00 00  03 02 00")
            assert await raw.ask(LIST, len(expected) // 2) == expected

    run(dialogue())


EXTENSIONS = {
    # what the rule allows: the COMMANDs in the list of a relay that supports all of ours
    "udp": UDP_LISTED + "04 04 04 01828384",
    "receive-group": "04 04 05 0281828384",
    "send-group": "04 04 03 028384",
    "connect": CONNECT_LISTED,
}


@pytest.mark.parametrize("action", EXTENSIONS)
def test_extensions_are_listed_where_they_are_of_use(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    ours = [each for each in Extension if each not in (Extension.UNICAST, Extension.GROUPS)]
    monkeypatch.setattr(features, "EXTENSIONS", tuple(reversed(ours)))

    async def dialogue() -> None:
        rules = rule(f'allow = true\ndo = ["{action}"]')
        async with running(rules) as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050100", 2)
            expected = listed(EXTENSIONS[action])
            assert await raw.ask(LIST, len(expected) // 2) == expected

    run(dialogue())


def test_connection_goes_on_behind_the_list() -> None:
    async def dialogue() -> None:
        async with running() as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050100", 2)
            expected = listed(WHAT_RULES_ALLOW)
            for _ in range(2):
                assert await raw.ask(LIST, len(expected) // 2) == expected
            assert await raw.ask(ENTER, 10) == ENTERED.replace(" ", "")
            assert (await raw.bind(BOTH | UNICAST, ("127.0.0.1", 7))).code == 0

    run(dialogue())


def test_login_list_mode_and_bind_may_come_in_one_segment_or_octet_by_octet() -> None:
    octets = bytes.fromhex("0501 00" + LIST + ENTER) + request(BIND, BOTH | UNICAST, ("127.0.0.1", 7), tid=0xBEEF)
    expected = "0500" + listed(WHAT_RULES_ALLOW) + ENTERED.replace(" ", "")

    async def dialogue() -> None:
        async with running() as relay:
            for pieces in ([octets], [octets[n : n + 1] for n in range(len(octets))]):
                async with await relay.connect(enter=False) as raw:
                    for piece in pieces:
                        raw.write(piece)
                        await asyncio.sleep(0)
                    assert await raw.read(len(expected) // 2) == expected
                    assert (await raw.answer()).tid == 0xBEEF

    run(dialogue())


@pytest.mark.parametrize("flag", ["00", "fe"])
def test_connection_ends_behind_the_list_when_nobody_asked_to_keep_it(flag: str) -> None:
    async def dialogue() -> None:
        async with running("") as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050100", 2)
            expected = listed(granted=GRANTED_ONCE)
            assert await raw.ask(f"05 10 {flag} 01 00000000 0000" + ENTER, len(expected) // 2) == expected
            assert await raw.is_closed()
            await until(lambda: len(relay.relay._services.connections) == 0)
            assert not relay.records("session-start")
            assert not relay.records("refused")

    run(dialogue())


def test_one_connection_may_ask_only_so_often() -> None:
    async def dialogue() -> None:
        async with running("") as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050100", 2)
            raw.write(bytes.fromhex(LIST) * 100)
            expected = listed()
            for _ in range(features.MOST_LISTS):
                assert await raw.read(len(expected) // 2) == expected
            assert await raw.read(10) == "05010001000000000000"
            assert await raw.is_closed()
            await relay.record("refused", command="list-features", why="asked for features more than 8 times")

    run(dialogue())


def test_socks_4_is_listed_where_it_is_served() -> None:
    async def dialogue() -> None:
        async with running("", socks="socks4 = true") as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050100", 2)
            expected = listed(older="01 04 00")
            assert await raw.ask(LIST, len(expected) // 2) == expected

    run(dialogue())


def test_whoever_only_asks_is_given_up_after_the_handshake_timeout() -> None:
    async def dialogue() -> None:
        async with running("", limits="handshake_timeout_s = 0.2") as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050100", 2)
            expected = listed()
            assert await raw.ask(LIST, len(expected) // 2) == expected
            assert await raw.is_closed()
            await relay.record("refused", command="session", why="handshake timeout")

    run(dialogue())


def test_list_is_not_for_who_has_not_logged_in() -> None:
    async def dialogue() -> None:
        async with running("", **LOGIN) as relay, await relay.connect(enter=False) as raw:
            await raw.ask("050102", 2)
            assert await raw.ask(LIST, 2) == "0101"
            assert await raw.is_closed()

    run(dialogue())


def test_library_asks_and_enters_on_one_connection() -> None:
    async def dialogue() -> None:
        async with running() as relay, connect(relay.url()) as client:
            assert client.extensions >= {Extension.UNICAST, Extension.GROUPS}
            await client.associate("127.0.0.1", 7)
            await relay.record("session-start", session=1)

    run(dialogue())


def test_library_lists_features_of_whoever_may_do_nothing() -> None:
    async def dialogue() -> None:
        async with running("") as relay:
            assert (await list_features(relay.url())).extensions == frozenset()
            with pytest.raises(RequestRefused, match="enhanced mode: not allowed by ruleset"):
                async with connect(relay.url()):
                    pass
            await until(lambda: len(relay.relay._services.connections) == 0)

    run(dialogue())
