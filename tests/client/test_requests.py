"""What the library writes on its control channel, read by the scripted relay of test_foreign_relays."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address

import pytest

from mcastsocks.address import Endpoint, from_sockaddr
from mcastsocks.client import Relay, RelayError, RequestRefused
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, ControlRequest, Encapsulated, Flags, UdpCommand
from mcastsocks.wire.options import reason
from tests.client.test_foreign_relays import FEATURES, LISTED, against, grant

SOMEWHERE = Endpoint(IPv4Address("127.0.0.1"), 9)
BROADCAST = Endpoint(IPv4Address("255.255.255.255"), 9)


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
    assert (join.flags, join.ttl, join.remote) == (Flags.RECEIVE_FROM | Flags.UDP_MULTICAST, 0, group)
    assert (sender.flags, sender.ttl, sender.remote) == (Flags.SEND_TO | Flags.UDP_MULTICAST, 7, group)


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


@pytest.mark.parametrize("host", ["169.254.1.1", "127.0.0.1"])
def test_every_ipv4_address_is_without_a_zone(host: str) -> None:
    async def use(relay: Relay) -> None:
        assert (await relay.associate("198.51.100.7", 53)).relay_endpoint == local

    local = Endpoint(IPv4Address(host), 9)
    requests_of(use, local)


def test_a_datagram_behind_one_that_the_kernel_did_not_take_is_sent() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relayed:
        relayed.bind(("127.0.0.1", 0))
        relayed.setblocking(False)
        local = from_sockaddr(relayed.getsockname())

        def answer(request: ControlRequest) -> bytes:
            assert request.remote is not None
            return grant(request, BROADCAST if request.remote.port == 1 else local, aid=request.remote.port)

        async def use(relay: Relay) -> None:
            nowhere = await relay.associate("198.51.100.7", 1)
            somewhere = await relay.associate("198.51.100.7", 2)
            for _ in range(2):
                await nowhere.send(b"broadcast: not without asking for it")
                await somewhere.send(b"data")
                assert (await asyncio.get_running_loop().sock_recv(relayed, 100))[8:] == b"data"
            assert relay.endpoint.unsent == 2

        asyncio.run(against({}, answer, use))


def test_sending_through_a_closed_socket_is_a_relay_error() -> None:
    async def use(relay: Relay) -> None:
        association = await relay.associate("198.51.100.7", 53)
        await relay.endpoint.close()
        with pytest.raises(RelayError, match="the socket for datagrams is closed"):
            await association.send(b"too late")

    requests_of(use)


def test_what_no_message_can_carry_is_not_asked_for() -> None:
    async def use(relay: Relay) -> None:
        for host, port in (("198.51.100.7", 70_000), ("a" * 300, 53), ("a..b", 53)):
            with pytest.raises(ValueError, match=r"expected a port|host name"):
                await relay.associate(host, port)
        with pytest.raises(ValueError, match="expected a TTL"):
            await relay.sender("239.1.2.3", 5004, ttl=300)
        group = await relay.join("239.1.2.3", 5004)
        with pytest.raises(ValueError, match="expected a TTL"):
            await group.add(send=True, ttl=0)
        with pytest.raises(ValueError, match="expected a TTL"):
            await group.set_ttl(256)
        assert not relay._channel._requests

    assert len(requests_of(use)) == 1


def test_a_name_is_asked_for_in_ascii() -> None:
    async def use(relay: Relay) -> None:
        await relay.associate("exämple.org", 53)

    [request] = requests_of(use)
    assert request.remote == Endpoint("xn--exmple-cua.org", 53)


@pytest.mark.parametrize(
    ("features", "why", "locals_named"),
    [
        (LISTED + FEATURES, "LOCAL 127.0.0.1 is not the client's own address", ["127.0.0.1", "0.0.0.0"]),
        (LISTED + FEATURES, "no rule allows udp 127.0.0.1 port 53", ["127.0.0.1"]),
        (None, "", ["127.0.0.1", "0.0.0.0"]),
    ],
    ids=["behind a NAT", "by a rule", "without a reason"],
)
def test_a_refusal_is_asked_about_again_only_when_a_nat_may_be_why(
    features: bytes | None, why: str, locals_named: list[str]
) -> None:
    seen: list[ControlRequest] = []

    def answer(request: ControlRequest) -> bytes:
        seen.append(request)
        options = (reason(f"not allowed by ruleset: {why}"),) if why else ()
        return ControlReply(2, request.tid, flags=Flags.EXTENDED if why else 0, options=options).encode()

    async def use(relay: Relay) -> None:
        with pytest.raises(RequestRefused, match="not allowed by ruleset"):
            await relay.associate("127.0.0.1", 53)

    asyncio.run(against({"features": features} if features else {}, answer, use))
    assert [str(request.local.host) for request in seen if request.local] == locals_named


@pytest.mark.parametrize("local", [None, Endpoint(IPv6Address("2001:db8::1"), 1080)], ids=["nowhere", "another family"])
def test_a_grant_of_nowhere_to_send_is_an_error_and_not_a_defect(local: Endpoint | None) -> None:
    def answer(request: ControlRequest) -> bytes:
        return ControlReply(0, request.tid, 7, request.flags, local, request.remote).encode()

    async def use(relay: Relay) -> None:
        with pytest.raises(RelayError, match="without saying where to send"):
            await relay.associate("198.51.100.7", 53)

    asyncio.run(against({}, answer, use))


def test_a_direction_added_over_tcp_may_report_sources_from_then_on() -> None:
    """REPORT-SOURCE comes with RECEIVE-FROM alone, so a sender that also receives learns it later."""

    def answer(request: ControlRequest) -> bytes:
        granted = grant(request, SOMEWHERE)
        if not request.flags & Flags.REPORT_SOURCE:
            return granted
        return granted + Encapsulated(7, bytes.fromhex("01c63364071389") + b"data").encode()

    async def use(relay: Relay) -> None:
        group = await relay.sender("239.1.2.3", 5004, over_tcp=True)
        await group.add(receive=True)
        datagram = await group.recv()
        assert (datagram.data, str(datagram.source)) == (b"data", "198.51.100.7:5001")

    asyncio.run(against({"features": LISTED + FEATURES}, answer, use))
