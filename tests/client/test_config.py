"""For which groups and TTLs the library uses the relay, and whom it asks before it sends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mcastsocks.address import Endpoint, parse_endpoint
from mcastsocks.client import ClientConfig, NotConfirmed, NotRelayed, Relay, RelayUrl, connect
from mcastsocks.errors import ConfigError
from mcastsocks.settings import parse
from mcastsocks.wire.control import ControlRequest
from tests.client.test_foreign_relays import against, at_9

RANGES = 'groups = ["239.1.0.0/16", "ff15::/16"]\nttl = "2-32"\n'
EXAMPLE = Path(__file__).parents[2] / "deploy/client.toml"


def config(text: str) -> ClientConfig:
    return parse(text, ClientConfig, "client.toml")


def asked_of_relay(text: str, use: Callable[[Relay], Awaitable[None]]) -> list[ControlRequest]:
    """What the relay was asked for by a client with this configuration."""
    seen: list[ControlRequest] = []

    def answer(request: ControlRequest) -> bytes:
        seen.append(request)
        return at_9(request)

    asyncio.run(against({}, answer, use, config=config(text)))
    return seen


def test_the_example_has_every_setting_and_is_valid() -> None:
    example = ClientConfig.load(EXAMPLE)
    assert example.relay == RelayUrl("fw.example", user="alice")
    assert [str(network) for network in example.groups or ()] == ["239.1.0.0/16", "ff15::/16"]
    assert (example.ttl, example.confirm_sending) == ((1, 255), True)
    assert example.model_fields_set == set(ClientConfig.model_fields)


@pytest.mark.parametrize(
    ("group", "ttl", "reason"),
    [
        ("239.1.2.3:5004", None, None),
        ("[ff15::1]:5004", 2, None),
        ("[::ffff:239.1.2.3]:5004", 32, None),
        (
            "239.9.9.9:5004",
            16,
            "239.9.9.9 is not reached through the relay (client configuration: groups): it is on this network",
        ),
        (
            "[ff12::1]:5004",
            None,
            "ff12::1 is not reached through the relay (client configuration: groups): it is on this network",
        ),
        (
            "group.example:5004",
            None,
            "group.example is not reached through the relay (client configuration: groups): "
            "a name is in no range, give the group's address",
        ),
        (
            "239.1.2.3:5004",
            1,
            "TTL 1 to 239.1.2.3 does not go through the relay (client configuration: ttl): "
            "so few hops stay on this network",
        ),
        (
            "239.1.2.3:5004",
            33,
            "TTL 33 to 239.1.2.3 does not go through the relay (client configuration: ttl): it carries at most 32 hops",
        ),
    ],
)
def test_reason_says_why_the_relay_is_not_used(group: str, ttl: int | None, reason: str | None) -> None:
    assert config(RANGES).why_not_relayed(parse_endpoint(group), ttl) == reason


@pytest.mark.parametrize("group", ["224.0.0.1:1", "[ff0e::1]:1", "group.example:1"])
def test_nothing_configured_is_every_group_and_ttl_without_a_question(group: str) -> None:
    for ttl in (None, 1, 255):
        assert config("").why_not_relayed(parse_endpoint(group), ttl) is None
    assert not config("").confirm_sending


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("relay = 5", "relay: expected text in quotes, like socks5://alice@fw.example"),
        ('relay = "http://fw.example"', "relay: expected socks5://[user:password@]host[:port]; scheme 'http'"),
        ('groups = "239.1.0.0/16"', "groups: expected a list in brackets"),
        ("groups = []", "groups: expected at least one item"),
        ("groups = [5]", "groups[0]: expected groups: an address or a network like 239.1.0.0/16 or ff15::/16"),
        ('groups = ["239.1.0.0/16", "10.0.0.0/8"]', "groups[1]: expected groups: a network within 224.0.0.0/4"),
        ('groups = ["239.1.2.3/16"]', "groups[0]: the address has bits behind the prefix: expected 239.1.0.0/16"),
        ('ttl = "few"', 'ttl: expected a range of hops like "2-255"'),
        ('ttl = "0-255"', "ttl: expected a range from fewer to more hops, 1 to 255"),
        ('ttl = "5-4"', "ttl: expected a range from fewer to more hops, 1 to 255"),
        ("ttl = true", 'ttl: expected a range of hops like "2-255"'),
        ("confirm_sending = 1", "confirm_sending: expected true or false"),
        ("confirm = true", "confirm: unknown key; did you mean 'confirm_sending'?"),
    ],
)
def test_errors_in_the_file_have_line_and_key(line: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(f"\n{line}\n")
    [found] = caught.value.problems
    assert found.startswith(f"client.toml:2: {problem}")


def test_no_error_repeats_the_password_of_the_relay() -> None:
    with pytest.raises(ConfigError) as caught:
        config('relay = "socks5://alice:secret@fw.example/x"\nrelais = "socks5://alice:secret@fw.example"\n')
    assert len(caught.value.problems) == 2
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(config('relay = "socks5://alice:secret@fw.example"'))


def test_the_relay_is_that_of_the_configuration_unless_one_is_named() -> None:
    async def open_and_close(config: ClientConfig | None = None) -> None:
        async with connect(config=config):
            pass

    with pytest.raises(ValueError, match=r"no relay is named.*\(client configuration: relay\)"):
        asyncio.run(open_and_close())
    with pytest.raises(ValueError, match="no relay is named"):
        asyncio.run(open_and_close(config("")))

    async def use(relay: Relay) -> None:
        async with connect(config=config(f'relay = "socks5://127.0.0.1:{relay.url.port}"')) as again:
            assert again.url == relay.url

    asked_of_relay('relay = "socks5://fw.invalid"', use)


def test_what_is_out_of_range_is_not_asked_of_the_relay() -> None:
    async def use(relay: Relay) -> None:
        with pytest.raises(NotRelayed, match=r"239\.9\.9\.9 is not reached through the relay"):
            await relay.join("239.9.9.9", 5004)
        with pytest.raises(NotRelayed, match=r"239\.9\.9\.9 is not reached through the relay"):
            await relay.sender("239.9.9.9", 5004, ttl=16)
        with pytest.raises(NotRelayed, match=r"TTL 1 to 239\.1\.2\.3 does not go through the relay"):
            await relay.sender("239.1.2.3", 5004)

    assert asked_of_relay(RANGES, use) == []


def test_a_group_in_use_keeps_to_the_range_of_ttls() -> None:
    async def use(relay: Relay) -> None:
        group = await relay.join("239.1.2.3", 5004)
        with pytest.raises(NotRelayed, match="TTL 1 "):
            await group.add(send=True)
        await group.add(send=True, ttl=2)
        with pytest.raises(NotRelayed, match="TTL 33 "):
            await group.set_ttl(33)
        await group.set_ttl(32)

    assert [request.ttl for request in asked_of_relay(RANGES, use)] == [0, 2, 32]


def test_unicast_is_in_no_range_and_needs_no_confirmation() -> None:
    async def use(relay: Relay) -> None:
        unicast = await relay.associate("198.51.100.7", 53, send=False)
        await unicast.add(send=True)

    assert len(asked_of_relay(RANGES + "confirm_sending = true", use)) == 2


@pytest.mark.parametrize("agreed", [True, False])
def test_sending_is_confirmed_before_the_relay_is_asked(agreed: bool) -> None:
    questions: list[tuple[Endpoint, int]] = []
    seen: list[ControlRequest] = []

    async def confirm(group: Endpoint, ttl: int) -> bool:
        assert len(seen) == len(questions), "the relay is asked after the user"
        questions.append((group, ttl))
        return agreed

    def answer(request: ControlRequest) -> bytes:
        seen.append(request)
        return at_9(request)

    async def use(relay: Relay) -> None:
        if agreed:
            await relay.sender("239.1.2.3", 5004, ttl=7, confirm=confirm)
        else:
            with pytest.raises(NotConfirmed, match=r"sending to 239\.1\.2\.3:5004 was not confirmed"):
                await relay.sender("239.1.2.3", 5004, ttl=7, confirm=confirm)

    asyncio.run(against({}, answer, use))
    assert questions == [(parse_endpoint("239.1.2.3:5004"), 7)]
    assert len(seen) == agreed


def test_a_direction_to_send_that_is_added_is_confirmed_too() -> None:
    async def no(group: Endpoint, ttl: int) -> bool:
        return False

    async def use(relay: Relay) -> None:
        group = await relay.join("239.1.2.3", 5004)
        with pytest.raises(NotConfirmed, match="was not confirmed"):
            await group.add(send=True, confirm=no)

    assert len(asked_of_relay("", use)) == 1


def test_sending_that_must_be_confirmed_is_refused_where_nobody_is_asked() -> None:
    async def use(relay: Relay) -> None:
        with pytest.raises(
            NotConfirmed, match=r"\(client configuration: confirm_sending\), and there is nobody to ask"
        ):
            await relay.sender("239.1.2.3", 5004)

    assert asked_of_relay("confirm_sending = true", use) == []
