"""What the library writes on its control channel, read by the scripted relay of test_foreign_relays."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address

from mcastsocks.address import Endpoint, from_sockaddr
from mcastsocks.client import Relay
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, ControlRequest, Flags, UdpCommand
from tests.client.test_foreign_relays import against

SOMEWHERE = Endpoint(IPv4Address("127.0.0.1"), 9)


def requests_of(use: Callable[[Relay], Awaitable[None]], local: Endpoint = SOMEWHERE) -> list[ControlRequest]:
    """Every request, granted as asked; AIDs count from 1."""
    seen: list[ControlRequest] = []

    def answer(request: ControlRequest) -> bytes:
        seen.append(request)
        aid = request.aid or len(seen)
        return ControlReply(0, request.tid, aid, request.flags, local, request.remote).encode()

    asyncio.run(against({}, answer, use))
    return seen


def test_a_bind_names_both_endpoints_and_zeroes_the_rest() -> None:
    async def use(relay: Relay) -> None:
        await relay.associate("198.51.100.7", 53)
        await relay.join("239.1.2.3", 5004)
        await relay.sender("239.1.2.3", 5004, ttl=7)
        requests[0] = relay.endpoint.local

    requests: dict[int, Endpoint] = {}
    unicast, join, sender = requests_of(use)
    for request in (unicast, join, sender):
        assert (request.command, request.aid, request.local) == (UdpCommand.BIND, 0, requests[0])
    group = Endpoint(IPv4Address("239.1.2.3"), 5004)
    assert (unicast.flags, unicast.ttl) == (BOTH_DIRECTIONS | Flags.UDP_UNICAST, 0)
    assert unicast.remote == Endpoint(IPv4Address("198.51.100.7"), 53)
    assert (join.flags, join.ttl, join.remote) == (
        Flags.RECEIVE_FROM | Flags.UDP_MULTICAST | Flags.MU_MODE,
        0,
        group,
    )
    assert (sender.flags, sender.ttl, sender.remote) == (
        Flags.SEND_TO | Flags.UDP_MULTICAST | Flags.MU_MODE,
        7,
        group,
    )


def test_every_waiting_request_has_a_tid_of_its_own() -> None:
    async def use(relay: Relay) -> None:
        await asyncio.gather(*(relay.associate("198.51.100.7", port) for port in range(1, 200)))

    tids = [request.tid for request in requests_of(use)]
    assert len(set(tids)) == len(tids) == 199


def test_a_second_direction_reuses_the_aid_with_the_same_addresses() -> None:
    async def use(relay: Relay) -> None:
        group = await relay.join("239.1.2.3", 5004)
        await group.add(send=True, ttl=3)

    first, second = requests_of(use)
    assert second.aid == 1
    assert (second.local, second.remote) == (first.local, first.remote)
    assert (second.flags & BOTH_DIRECTIONS, second.ttl) == (Flags.SEND_TO, 3)


def test_release_carries_the_aid_and_the_directions_held() -> None:
    async def use(relay: Relay) -> None:
        one = await relay.associate("198.51.100.7", 53)
        two = await relay.join("239.1.2.3", 5004)
        await one.release(send=True)
        await one.close()
        await two.close()

    releases = [request for request in requests_of(use) if request.command == UdpCommand.RELEASE]
    assert [(each.aid, each.flags, each.ttl) for each in releases] == [
        (1, Flags.SEND_TO, 0),
        (1, Flags.RECEIVE_FROM, 0),
        (2, Flags.RECEIVE_FROM, 0),
    ]


def test_set_ttl_carries_it_in_rsvd_and_no_flags() -> None:
    async def use(relay: Relay) -> None:
        sender = await relay.sender("239.1.2.3", 5004)
        await sender.set_ttl(33)

    request = requests_of(use)[1]
    assert (request.command, request.aid, request.flags, request.ttl) == (UdpCommand.SET_TTL, 1, 0, 33)


def test_datagrams_go_to_local_of_the_reply_behind_the_header() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relayed:
        relayed.bind(("127.0.0.1", 0))
        relayed.setblocking(False)

        async def use(relay: Relay) -> None:
            association = await relay.associate("198.51.100.7", 53)
            await association.send(b"data")
            octets, source = await asyncio.get_running_loop().sock_recvfrom(relayed, 100)
            assert octets == bytes.fromhex("0000000000000001") + b"data"
            assert from_sockaddr(source) == relay.endpoint.local

        requests_of(use, from_sockaddr(relayed.getsockname()))
