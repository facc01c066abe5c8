"""UDP ASSOCIATE as clients see it, octet by octet; on loopback. More of its datagrams: planes/test_associates.py."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from mcastsocks.server import associate
from tests.server.loopback import Raw, Running, Udp
from tests.server.remotes import (
    ASSOCIATE,
    NOBODY,
    RULES,
    Afterwards,
    Destination,
    asking,
    block6,
    closed_port,
    greeted,
    names,
    refused,
    replying,
    serve,
)

__all__ = ["names"]
pytestmark = pytest.mark.usefixtures("names")
INTERFACE_REQUEST, USECLIENTSPORT = 0x01, 0x04


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    assert not caplog.records


def datagram(to: Destination, data: bytes, frag: int = 0) -> bytes:
    return bytes((0, 0, frag)) + block6(to) + data


def interface_data(to: Destination) -> str:
    return (b"\0\1\0" + block6(to)).hex()


async def associated(raw: Raw, announced: Destination = NOBODY, flag: int = 0, granted: int = 0) -> Destination:
    """The relay's own endpoint for this association's datagrams."""
    answer = await raw.ask(asking(ASSOCIATE, announced, flag).hex(), 10)
    door = ("127.0.0.1", int(answer[-4:], 16))
    assert answer == replying(0, door, granted)
    return door


@asynccontextmanager
async def opened(
    relay: Running, announced: Destination = NOBODY, **options: Any
) -> AsyncIterator[tuple[Raw, Destination]]:
    async with await greeted(relay, **options) as raw:
        yield raw, await associated(raw, announced)


async def exchanged(udp: Udp, door: Destination, remote: Udp, to: Destination | None = None) -> Destination:
    """A datagram there and one back; where the remote saw it come from."""
    udp.send(datagram(to or remote.address, b"question"), door)
    data, outside = await remote.received.get()
    assert data == b"question"
    remote.send(b"answer", outside)
    assert await udp.received.get() == (datagram(remote.address, b"answer"), door)
    return outside


def is_closed(door: Destination) -> bool:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(0)
        sock.connect(door)
        sock.send(b"anybody?")
        try:
            sock.recv(1)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:
            return False
    raise AssertionError("answered")


# There and back


@pytest.mark.parametrize("name", ["", "here.example", "both.example"])
def test_datagrams_pass_both_ways_and_are_recorded(name: str) -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (_, door), Udp.open() as udp, Udp.open() as remote:
            assert door[1] == relay.port + 1, "the first of the hundred above the TCP port"
            started = await relay.record("udp-associate-start", session=1, relay=f"127.0.0.1:{door[1]}")
            assert "outside" not in started
            for _ in range(2):
                await exchanged(udp, door, remote, (name, remote.address[1]) if name else None)
        ended = await relay.record("udp-associate-end", session=1, reason="closed by client")
        assert (ended["to_remote_datagrams"], ended["to_remote_octets"]) == (2, 16)
        assert (ended["to_client_datagrams"], ended["to_client_octets"]) == (2, 12)
        assert (ended["dropped_datagrams"], ended["refusals"]) == (0, 0)

    serve(test)


def test_client_by_ipv6_sends_by_ipv6() -> None:
    async def test(relay: Running) -> None:
        async with await greeted(relay, client="::1", host="::1") as raw, Udp.open() as remote:
            answer = await raw.ask(asking(ASSOCIATE, ("::", 0)).hex(), 22)
            door = ("::1", int(answer[-4:], 16))
            assert answer == replying(0, door)
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
                udp.bind(("::1", 0))
                udp.setblocking(False)
                udp.sendto(datagram(remote.address, b"six to four"), door)
                data, outside = await remote.received.get()
                assert data == b"six to four"
                remote.send(b"four to six", outside)
                octets, source = await asyncio.get_running_loop().sock_recvfrom(udp, 100)
                assert (octets, source[:2]) == (datagram(remote.address, b"four to six"), door)

    serve(test, listen=["127.0.0.1", "[::1]"])


def test_datagrams_to_a_slow_name_wait_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(relay: Running) -> None:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asked = []

        async def resolve(name: str, account: str) -> Any:
            asked.append((name, account))
            return await answer

        monkeypatch.setattr(relay.relay._services.resolver, "resolve", resolve)
        async with opened(relay) as (_, door), Udp.open() as udp, Udp.open() as remote:
            for number in range(5):
                udp.send(datagram(("slow.example", remote.address[1]), bytes((number,))), door)
            await exchanged(udp, door, remote)
            answer.set_result([ip_address("127.0.0.1")])
            for number in range(5):
                assert (await remote.received.get())[0] == bytes((number,))
            assert asked == [("slow.example", "127.0.0.1")]

    serve(test)


def test_look_up_ends_with_its_association(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(relay: Running) -> None:
        looking = asyncio.Event()
        ended = asyncio.Event()

        async def resolve(*_: str) -> Any:
            looking.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        monkeypatch.setattr(relay.relay._services.resolver, "resolve", resolve)
        async with opened(relay) as (_, door), Udp.open() as udp:
            udp.send(datagram(("slow.example", 80), b"x"), door)
            await looking.wait()
        await ended.wait()
        record = await relay.record("udp-associate-end")
        assert record["dropped_datagrams"] == 1

    serve(test)


def test_denied_and_unresolved_destinations_are_dropped_and_recorded() -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (_, door), Udp.open() as udp, Udp.open() as remote:
            for to in (("127.0.0.66", 80), ("nowhere.example", 80), ("127.0.0.1", 0), ("239.1.2.3", 80)):
                udp.send(datagram(to, b"x"), door)
                await relay.record("refused", session=1, command="udp", remote=f"{to[0]}:{to[1]}")
            await exchanged(udp, door, remote)
        ended = await relay.record("udp-associate-end")
        assert (ended["dropped_datagrams"], ended["refusals"]) == (4, 4)
        relay.relay.record_counters()
        counters = await relay.record("counters")
        assert (counters["drop.not-allowed"], counters["drop.unresolved"], counters["drop.bad-address"]) == (2, 1, 1)

    serve(test)


def test_refusals_do_not_fill_the_record() -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (_, door), Udp.open() as udp, Udp.open() as remote:
            for number in range(1, 151):
                udp.send(datagram(("127.0.0.66", number), b"x"), door)
            await exchanged(udp, door, remote)
        ended = await relay.record("udp-associate-end")
        assert ended["refusals"] == 150
        assert len(relay.records("refused")) == 100

    serve(test)


# Whose datagrams


ANNOUNCED = {
    # what: announced address, whether the port is taken from it
    "zero": ("0.0.0.0", True),
    "its own": ("127.0.0.1", True),
    "its own, mapped": ("::ffff:127.0.0.1", True),
    "IPv6 zero": ("::", True),
    "another's": ("127.0.0.2", False),
    "a name": ("localhost", False),
}


@pytest.mark.parametrize(("address", "is_taken"), ANNOUNCED.values(), ids=ANNOUNCED)
def test_port_is_as_announced_unless_for_another_address(address: str, is_taken: bool) -> None:
    async def test(relay: Running) -> None:
        async with (
            Udp.open() as udp,
            Udp.open() as other,
            Udp.open() as remote,
            opened(relay, (address, udp.address[1])) as (_, door),
        ):
            other.send(datagram(remote.address, b"other"), door)
            udp.send(datagram(remote.address, b"announced"), door)
            assert (await remote.received.get())[0] == (b"announced" if is_taken else b"other")
            relay.relay.record_counters()
            assert (await relay.record("counters"))["sent_outside"] == 1

    serve(test)


def test_datagram_from_a_foreign_address_hijacks_nothing() -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (_, door), Udp.open() as udp, Udp.open() as remote:
            with socket.socket(type=socket.SOCK_DGRAM) as thief:
                thief.bind(("127.0.0.2", 0))
                thief.setblocking(False)
                thief.sendto(datagram(remote.address, b"mine"), door)
                await exchanged(udp, door, remote)
                with pytest.raises(BlockingIOError):
                    thief.recv(1)
        relay.relay.record_counters()
        assert (await relay.record("counters"))["drop.wrong-address"] == 1

    serve(test)


def test_clients_that_announce_their_ports_share_one_and_others_have_their_own() -> None:
    async def test(relay: Running) -> None:
        async with (
            Udp.open() as one,
            Udp.open() as two,
            Udp.open() as remote,
            opened(relay, one.address) as (_, first),
            opened(relay, two.address) as (_, second),
            opened(relay) as (_, third),
            opened(relay) as (_, fourth),
            opened(relay, client="127.0.0.2") as (_, fifth),
        ):
            assert first == second == third == fifth
            assert fourth == (first[0], first[1] + 1)
            assert await exchanged(one, first, remote) != await exchanged(two, second, remote)

    serve(test)


# Ports


def test_ports_that_are_all_taken_are_a_general_failure() -> None:
    first = closed_port()

    async def test(relay: Running) -> None:
        async with opened(relay) as (_, door):
            assert door[1] == first
            why = "every port of [socks] udp_ports is taken"
            await refused(relay, asking(ASSOCIATE, NOBODY), replying(1), command="udp-associate", why=why)
        await relay.record("udp-associate-end")
        async with opened(relay) as (_, door):
            assert door[1] == first

    serve(test, socks=f'udp_ports = "{first}"')


def test_port_of_another_program_is_passed_over() -> None:
    async def test(relay: Running) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", relay.port + 1))
            async with opened(relay) as (_, door), Udp.open() as udp, Udp.open() as remote:
                assert door[1] == relay.port + 2
                await exchanged(udp, door, remote)

    serve(test)


def test_no_socket_left_is_a_general_failure() -> None:
    async def test(relay: Running) -> None:
        why = "the relay is full: 1 UDP sockets"
        await refused(relay, asking(ASSOCIATE, NOBODY), replying(1), command="udp-associate", why=why)

    serve(test, limits="udp_sockets = 1")


def test_client_without_any_right_to_datagrams_is_refused() -> None:
    async def test(relay: Running) -> None:
        why = "no rule allows this client any datagrams"
        await refused(relay, asking(ASSOCIATE, NOBODY), replying(2), command="udp-associate", why=why)

    serve(test, RULES.replace('["connect", "bind", "udp"]', '["connect", "bind"]'))


@pytest.mark.parametrize("granted", [True, False])
def test_wish_for_an_outside_port_is_echoed_only_when_honoured(granted: bool) -> None:
    async def test(relay: Running) -> None:
        async with Udp.open() as udp, Udp.open() as remote, await greeted(relay) as raw:
            announced = udp.address  # and so taken, as inside and outside are the same here
            with socket.socket(type=socket.SOCK_DGRAM) as elsewhere:
                elsewhere.bind(("127.0.0.1", 0))
                if granted:
                    announced = elsewhere.getsockname()
                    elsewhere.close()
                door = await associated(raw, announced, USECLIENTSPORT, USECLIENTSPORT if granted else 0)
                started = await relay.record("udp-associate-start")
                if granted:
                    assert started["outside"] == f"127.0.0.1:{announced[1]}"
                else:
                    assert (await exchanged(udp, door, remote))[1] != announced[1]
                    assert "outside" not in started

    serve(test)


def test_wish_for_port_zero_is_none() -> None:
    async def test(relay: Running) -> None:
        async with await greeted(relay) as raw:
            await associated(raw, NOBODY, USECLIENTSPORT | INTERFACE_REQUEST, INTERFACE_REQUEST)

    serve(test)


# INTERFACE REQUEST and INTERFACE DATA (pro-v5 §8)


@pytest.mark.parametrize("name", ["127.0.0.1", "here.example"])
def test_interface_data_is_answered_with_what_the_destination_will_see(name: str) -> None:
    async def test(relay: Running) -> None:
        async with Udp.open() as udp, Udp.open() as remote, await greeted(relay) as raw:
            door = await associated(raw, NOBODY, INTERFACE_REQUEST, INTERFACE_REQUEST)
            answer = await raw.ask(interface_data((name, remote.address[1])), 10)
            assert answer == replying(0, await exchanged(udp, door, remote))

    serve(test)


def test_interface_data_by_ipv6_is_answered_by_ipv6() -> None:
    async def test(relay: Running) -> None:
        async with await greeted(relay) as raw:
            await associated(raw, NOBODY, INTERFACE_REQUEST, INTERFACE_REQUEST)
            answer = await raw.ask(interface_data(("::1", 4004)), 22)
            assert answer == replying(0, ("::1", int(answer[-4:], 16)))

    serve(test)


@pytest.mark.parametrize(
    ("to", "code"),
    [
        (("127.0.0.66", 80), 2),
        (("nowhere.example", 80), 4),
        (("127.0.0.1", 0), 9),
        (("239.1.2.3", 80), 2),
        (("::1", 80), 3),
    ],
)
def test_interface_data_of_what_is_refused_is_answered_and_the_association_lives(to: Destination, code: int) -> None:
    async def test(relay: Running) -> None:
        outsides = relay.relay._services.outsides
        outsides["lo"] = replace(outsides["lo"], ipv6=None)
        async with Udp.open() as udp, Udp.open() as remote, await greeted(relay) as raw:
            door = await associated(raw, NOBODY, INTERFACE_REQUEST, INTERFACE_REQUEST)
            assert await raw.ask(interface_data(to), 10) == replying(code)
            await relay.record("refused", command="udp")
            await exchanged(udp, door, remote)

    serve(test)


def test_octets_on_an_association_that_did_not_ask_for_them_are_ignored() -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (raw, door), Udp.open() as udp, Udp.open() as remote:
            raw.write(bytes.fromhex(interface_data(remote.address)) + b"and what not" * 1000)
            await exchanged(udp, door, remote)
            raw.finish()
            assert await raw.is_closed()
            await relay.record("udp-associate-end", reason="closed by client")

    serve(test)


def test_broken_interface_data_ends_the_association() -> None:
    async def test(relay: Running) -> None:
        async with await greeted(relay) as raw:
            door = await associated(raw, NOBODY, INTERFACE_REQUEST, INTERFACE_REQUEST)
            assert await raw.ask("00020001", 10) == replying(7)
            record = await relay.record("udp-associate-end")
            assert record["reason"].startswith("protocol error: ")
            assert is_closed(door)

    serve(test)


def test_only_named_destinations_are_sent_to_where_that_is_demanded() -> None:
    async def test(relay: Running) -> None:
        async with Udp.open() as udp, Udp.open() as remote, Udp.open() as other, await greeted(relay) as raw:
            door = await associated(raw, NOBODY, INTERFACE_REQUEST, INTERFACE_REQUEST)
            udp.send(datagram(remote.address, b"too early"), door)
            await relay.record("refused", command="udp", why="not named by INTERFACE DATA")
            for each in (remote, other):
                await raw.ask(interface_data(each.address), 10)
                await exchanged(udp, door, each)
            await exchanged(udp, door, remote)
            udp.send(datagram(("here.example", remote.address[1]), b"not so named"), door)
            await relay.record("refused", command="udp", remote=f"here.example:{remote.address[1]}")

    serve(test, socks="only_named_destinations = true")


def test_client_that_cannot_name_its_destinations_need_not() -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (_, door), Udp.open() as udp, Udp.open() as remote:
            await exchanged(udp, door, remote)

    serve(test, socks="only_named_destinations = true")


def test_only_so_many_destinations_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(associate, "_MOST_NAMED", 2)

    async def test(relay: Running) -> None:
        async with await greeted(relay) as raw:
            await associated(raw, NOBODY, INTERFACE_REQUEST, INTERFACE_REQUEST)
            for port, code in ((1, 0), (2, 0), (1, 0), (3, 1), (2, 0)):
                assert (await raw.ask(interface_data(("127.0.0.1", port)), 10))[2:4] == f"{code:02x}"
            await relay.record("refused", command="udp", remote="127.0.0.1:3")

    serve(test, socks="only_named_destinations = true")


# The end


def test_association_ends_with_its_connection() -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (_, door), Udp.open() as udp, Udp.open() as remote:
            outside = await exchanged(udp, door, remote)
        await relay.record("udp-associate-end", reason="closed by client")
        assert is_closed(door)
        assert is_closed(outside)

    serve(test)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much had moved, at every look for idleness."""
    found: list[int] = []
    moved = associate.UdpAssociate._moved

    def look(association: associate.UdpAssociate) -> int:
        found.append(moved(association))
        return found[-1]

    monkeypatch.setattr(associate.UdpAssociate, "_moved", look)
    return found


def test_silent_association_is_given_up(looks: list[int]) -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (raw, door):
            assert await raw.is_closed()
            await relay.record("udp-associate-end", reason="idle")
            assert is_closed(door)
        assert looks == [0], "what never moved anything is idle after one period"

    serve(test, limits="idle_udp_s = 0.1")


def test_dead_client_is_not_taken_for_an_idle_one() -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (raw, _):
            [association] = relay.relay._services.associates.values()
            association._client.reader.set_exception(TimeoutError(errno.ETIMEDOUT, "what the kernel says of it"))
            await relay.record("udp-associate-end", reason="client dead")
            assert await raw.is_closed()

    serve(test)


def test_association_whose_datagrams_move_is_not_idle(looks: list[int]) -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (raw, door), Udp.open() as udp, Udp.open() as remote:
            while len(looks) < 3:
                await exchanged(udp, door, remote)
            assert not relay.records("udp-associate-end")
            assert await raw.is_closed()
            await relay.record("udp-associate-end", reason="idle")

    serve(test, limits="idle_udp_s = 0.3")


def test_user_has_only_so_many_connections() -> None:
    async def test(relay: Running) -> None:
        async with opened(relay):
            why = "127.0.0.1 has 1 connections, the limit for one user"
            await refused(relay, asking(ASSOCIATE, NOBODY), replying(1), command="udp-associate", why=why)

    serve(test, limits="connections_per_user = 1")


def test_shutdown_ends_everything() -> None:
    async def test(relay: Running) -> Afterwards:
        raw = await greeted(relay)
        door = await associated(raw)
        async with Udp.open() as udp, Udp.open() as remote:
            outside = await exchanged(udp, door, remote)

        async def afterwards() -> None:
            assert is_closed(door)
            assert is_closed(outside)
            assert await raw.is_closed()
            await raw.__aexit__()
            await relay.record("udp-associate-end", reason="shutdown")

        return afterwards

    serve(test)


def test_shutdown_ends_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(relay: Running) -> Afterwards:
        looking = asyncio.Event()

        async def resolve(*_: str) -> Any:
            looking.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(relay.relay._services.resolver, "resolve", resolve)
        raw = await greeted(relay)
        door = await associated(raw)
        async with Udp.open() as udp:
            udp.send(datagram(("slow.example", 80), b"x"), door)
            await looking.wait()
        return raw.__aexit__

    serve(test)


def test_many_associations_leave_nothing() -> None:
    async def test(relay: Running) -> None:
        for number in range(1, 101):
            async with opened(relay) as (_, door):
                assert door[1] == relay.port + 1
            await relay.record("udp-associate-end", session=number)
        assert not relay.relay._services.associates
        assert relay.relay._services.plane.descriptors() == 1

    serve(test)


def test_what_was_sent_before_the_end_is_relayed() -> None:
    """To a destination that nobody has asked about before."""

    async def test(relay: Running) -> None:
        for number in range(1, 21):
            async with Udp.open() as udp, Udp.open() as remote:
                async with opened(relay) as (_, door):
                    udp.send(datagram(remote.address, b"goodbye"), door)
                assert (await remote.received.get())[0] == b"goodbye"
            record = await relay.record("udp-associate-end", session=number)
            assert record["to_remote_datagrams"] == 1

    serve(test)


# Options


def test_answers_from_strangers_where_the_configuration_says_so() -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (_, door), Udp.open() as udp, Udp.open() as remote:
            outside = await exchanged(udp, door, remote)
            with socket.socket(type=socket.SOCK_DGRAM) as stranger:
                stranger.bind(("127.0.0.3", 0))
                stranger.sendto(b"hello", outside)
                assert await udp.received.get() == (datagram(stranger.getsockname(), b"hello"), door)

    serve(test, socks='udp_answers = "anyone"')


def test_fragments_are_put_together_where_the_configuration_says_so() -> None:
    async def test(relay: Running) -> None:
        async with opened(relay) as (_, door), Udp.open() as udp, Udp.open() as remote:
            udp.send(datagram(remote.address, b"a", 0x01), door)
            udp.send(datagram(remote.address, b"b", 0x82), door)
            assert (await remote.received.get())[0] == b"ab"

    serve(test, socks="udp_fragments = true")
