"""A relay with little room, busy clients, and things that happen at the same time; on loopback, without root."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.errors import ConfigError
from mcastsocks.planes.switchboard import Switchboard
from mcastsocks.server import interfaces, resolver
from mcastsocks.server.channel import ControlChannel
from mcastsocks.tables.associations import Association
from mcastsocks.wire.control import ControlRequest, Flags
from tests.server.loopback import (
    BIND,
    BOTH,
    GROUP,
    MU,
    MULTICAST,
    RECEIVE,
    RELEASE,
    UNICAST,
    Raw,
    Running,
    request,
    run,
    running,
    until,
)

REMOTE = ("127.0.0.1", 7)
JOIN = RECEIVE | MULTICAST | MU


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    assert not caplog.records


def held(relay: Running) -> tuple[int, int, int]:
    """Connections, associations and UDP sockets."""
    services = relay.relay._services
    return len(services.connections), len(services.table), services.plane.descriptors()


# Connections


def test_one_address_with_many_idle_connections_leaves_room_for_others() -> None:
    async def dialogue() -> None:
        async with running(limits="connections = 8\nhandshakes_per_client = 2") as relay:
            crowd = [await relay.connect(enter=False) for _ in range(20)]
            connections = relay.relay._services.connections
            await until(lambda: connections.turned_away == 14)
            assert len(connections) == 6
            async with await relay.connect(client="127.0.0.2") as other:
                assert (await other.bind(BOTH | UNICAST, REMOTE)).code == 0
            relay.relay.record_counters()
            await relay.record("counters", turned_away=14)
            for raw in crowd:
                await raw.__aexit__()

    run(dialogue())


# Channels at the same time


def test_busy_channel_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of requests wait, and another client's request is handled after no more than a few segments."""
    handled: list[int] = []
    handle = ControlChannel.handle
    release = request(RELEASE, BOTH, aid=0xDEADBEEF)

    async def dialogue() -> None:
        async with running() as relay, await relay.connect() as busy, await relay.connect() as other:

            def noted(self: ControlChannel, asked: ControlRequest) -> None:
                handled.append(self._channel.number)
                if len(handled) == 100:
                    other.write_now(release)
                handle(self, asked)

            monkeypatch.setattr(ControlChannel, "handle", noted)
            busy.write(5000 * release)
            assert (await other.answer()).code == 0x10
            for _ in range(5000):
                assert (await busy.answer()).code == 0x10

    run(dialogue())
    assert (handled.count(1), handled.count(2)) == (5000, 1)
    assert handled.index(2) < 100 + 4 * 2048 // len(release)


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, threading.Event]]:
    """Names resolve to this host when their event is set; each thread that looks one up is noted."""
    known: dict[str, threading.Event] = {}

    def look_up(name: str) -> list[object]:
        gate = known[name] = threading.Event()
        return [ip_address("127.0.0.5")] if gate.wait(10) else []

    monkeypatch.setattr(resolver, "_look_up", look_up)
    yield known
    for gate in known.values():
        gate.set()


def test_name_that_is_found_as_its_channel_closes_opens_nothing(gates: dict[str, threading.Event]) -> None:
    """The two meet in every order that the event loop's turns allow."""

    async def dialogue() -> None:
        async with running() as relay:
            before = held(relay)
            for attempt in range(100):
                name = f"host{attempt}.example"
                async with await relay.connect() as raw:
                    raw.write(request(BIND, BOTH | UNICAST, (name, 7)))
                    await until(lambda name=name: name in gates)  # type: ignore[misc]
                    thread = next(each for each in threading.enumerate() if each.name == f"resolver {name}")
                    raw.hang_up()
                    for _ in range(attempt % 20):
                        await asyncio.sleep(0)
                    gates[name].set()
                    thread.join(10)
                await until(lambda: len(relay.relay._services.connections) == 0)
                await until(lambda: relay.relay._services.resolver._under_way == 0)
                assert held(relay) == before
        assert len(relay.records("association-start")) == len(relay.records("association-end"))
        assert sum(record["associations"] for record in relay.records("session-end")) == len(
            relay.records("association-start")
        )

    run(dialogue())


def test_user_has_only_so_many_names_looked_up(gates: dict[str, threading.Event]) -> None:
    async def dialogue() -> None:
        limits = "name_lookups_per_user = 1\nname_timeout_s = 0.5"
        async with running(limits=limits) as relay, await relay.connect() as raw:
            raw.write(request(BIND, BOTH | UNICAST, ("slow.example", 7), tid=1))
            await until(lambda: "slow.example" in gates)
            assert (await raw.bind(BOTH | UNICAST, ("next.example", 7), tid=2)).code == 0x04
            await relay.record("refused", why="1 names are being looked up for 127.0.0.1 already")
            assert (await raw.answer()).code == 0x04, "slow as it is"
            gates["slow.example"].set()

    run(dialogue())


# The end


async def opened(raw: Raw, count: int) -> None:
    raw.write(count * request(BIND, BOTH | UNICAST, REMOTE))
    for _ in range(count):
        assert (await raw.answer()).code == 0


def test_stop_while_a_large_channel_closes_records_every_end() -> None:
    async def dialogue() -> None:
        async with running() as relay:
            raw = await relay.connect()
            await opened(raw, 1000)
            raw.hang_up()
            await until(lambda: len(relay.relay._services.table) < 1000)
            assert len(relay.relay._services.table) > 0
        await raw.__aexit__()
        assert len(relay.records("association-end", reason="closed by client")) == 1000
        assert len(relay.records("session-end", associations=1000, reason="closed by client")) == 1
        assert held(relay) == (0, 0, 0)

    run(dialogue())


@pytest.mark.parametrize("turns", range(12))
def test_stop_in_any_turn_of_a_channels_end_records_every_end(turns: int) -> None:
    async def dialogue() -> None:
        async with running() as relay:
            raw = await relay.connect()
            await opened(raw, 3)
            raw.hang_up()
            for _ in range(turns):
                await asyncio.sleep(0)
        await raw.__aexit__()
        assert len(relay.records("association-end")) == 3
        assert len(relay.records("session-end", associations=3)) == 1
        assert held(relay) == (0, 0, 0)

    run(dialogue())


# Endpoints


def test_endpoint_of_the_relay_itself_is_no_clients() -> None:
    """Its datagrams would go round for ever, whether it is the address reached or another one that is listened on."""

    async def dialogue() -> None:
        async with running(listen=["127.0.0.1", "127.0.0.2"]) as relay:
            for host in ("127.0.0.1", "127.0.0.2"):
                async with await relay.connect(host=host) as raw:
                    before = held(relay)
                    refused = await raw.bind(BOTH | UNICAST, REMOTE, local=("127.0.0.1", relay.port))
                    assert (refused.code, refused.aid) == (0x02, 0)
                    assert held(relay) == before
                    assert (await raw.bind(BOTH | UNICAST, REMOTE, local=("127.0.0.1", 9))).code == 0
                    # anybody may have the port of the other address
                    assert (await raw.bind(BOTH | UNICAST, REMOTE, local=("127.0.0.1", 0))).code == 0

    run(dialogue())


def test_wildcard_is_listened_on_although_an_address_cannot_be_used_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "own_addresses", lambda: frozenset({ip_address("127.0.0.1")}))

    def tentative(self: Switchboard, endpoint: Endpoint, zone: int = 0) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    async def dialogue() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Switchboard, "open_inside", tentative)
            starting = running(listen=["0.0.0.0"])
            relay = await starting.__aenter__()
        try:
            assert held(relay) == (0, 0, 0)
            async with await relay.connect() as raw:  # it is there by now
                assert (await raw.bind(BOTH | UNICAST, REMOTE)).code == 0
                assert held(relay) == (1, 1, 2)
        finally:
            await starting.__aexit__(None, None, None)

    run(dialogue())


@pytest.mark.parametrize(
    ("listen", "number"), [("0.0.0.0", errno.EADDRINUSE), ("127.0.0.1", errno.EADDRNOTAVAIL)], ids=["taken", "named"]
)
def test_address_that_is_taken_or_named_must_be_had_at_the_start(
    monkeypatch: pytest.MonkeyPatch, listen: str, number: int
) -> None:
    monkeypatch.setattr(interfaces, "own_addresses", lambda: frozenset({ip_address("127.0.0.1")}))

    def failing(self: Switchboard, endpoint: Endpoint, zone: int = 0) -> None:
        raise OSError(number, "no")

    async def dialogue() -> None:
        monkeypatch.setattr(Switchboard, "open_inside", failing)
        with pytest.raises(
            ConfigError, match=r"inside\.listen\[0\]: cannot take datagrams on UDP 127\.0\.0\.1:\d+: no$"
        ):
            async with running(listen=[listen]):
                pass

    run(dialogue())


def test_relay_needs_a_udp_socket_for_each_address_at_the_start() -> None:
    async def dialogue() -> None:
        with pytest.raises(ConfigError, match=r"listen\[1\]: .* the relay is full: 1 UDP sockets"):
            async with running(limits="udp_sockets = 1", listen=["127.0.0.1", "127.0.0.2"]):
                pass

    run(dialogue())


# Limits


@pytest.mark.parametrize(
    ("limit", "flags", "remotes", "ports", "why"),
    [
        (
            "local_endpoints_per_user",
            BOTH | UNICAST,
            (REMOTE, REMOTE),
            (1, 2),
            "127.0.0.1 uses 1 local endpoints, the limit for one user",
        ),
        (
            "group_receivers_per_user",
            JOIN,
            ((GROUP, 5001), (GROUP, 5001)),
            (1, 1),
            f"127.0.0.1 has 1 associations with {GROUP}:5001, the limit for one user",
        ),
    ],
)
def test_user_that_is_full_gets_01_and_room_comes_back(
    limit: str, flags: int, remotes: tuple[tuple[str, int], ...], ports: tuple[int, int], why: str
) -> None:
    async def dialogue() -> None:
        async with running(limits=f"{limit} = 1") as relay, await relay.connect() as raw:
            locals_ = [("127.0.0.1", 40_000 + port) for port in ports]
            aid = (await raw.bind(flags, remotes[0], local=locals_[0])).aid
            refused = await raw.bind(flags, remotes[1], local=locals_[1], tid=7)
            assert (refused.code, refused.tid, refused.aid) == (0x01, 7, 0)
            await relay.record("refused", why=why, reply="general failure")
            async with await relay.connect(client="127.0.0.2") as other:
                assert (await other.bind(flags, remotes[1])).code == 0
            assert (await raw.control(RELEASE, flags & BOTH, aid=aid)).code == 0
            assert (await raw.bind(flags, remotes[1], local=locals_[1])).code == 0

    run(dialogue())


def test_one_local_endpoint_may_have_many_associations_on_one_channel_only() -> None:
    async def dialogue() -> None:
        local = ("127.0.0.1", 40_000)
        async with running(limits="local_endpoints_per_user = 1") as relay:
            async with await relay.connect() as raw, await relay.connect() as second:
                for _ in range(3):
                    assert (await raw.bind(BOTH | UNICAST, REMOTE, local=local)).code == 0
                assert (await second.bind(BOTH | UNICAST, REMOTE, local=local)).code == 0x01
            await until(lambda: len(relay.relay._services.connections) == 0)
            async with await relay.connect() as raw:
                assert (await raw.bind(BOTH | UNICAST, REMOTE)).code == 0

    run(dialogue())


def test_association_that_ends_while_its_channel_closes_keeps_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does whose upstream is lost while the others have their turn."""
    end = ControlChannel.end
    ended: list[int] = []

    def end_and_lose_the_last(self: ControlChannel, association: Association, kept: int, reason: str) -> None:
        end(self, association, kept, reason)
        ended.append(association.aid)
        if len(ended) == 1:
            *_, last = self._services.table.of_channel(self._channel)
            end(self, last, Flags.NONE, "its upstream was lost")

    async def dialogue() -> None:
        async with running() as relay:
            raw = await relay.connect()
            await opened(raw, 5)
            monkeypatch.setattr(ControlChannel, "end", end_and_lose_the_last)
            raw.hang_up()
            await relay.record("session-end", reason="closed by client")
            assert len(relay.relay._services.table) == 0
            assert len(relay.records("association-end")) == 5
            assert relay.records("defect") == []
        await raw.__aexit__()

    run(dialogue())
