"""The library in MM-mode: two programs on one inside host, a neighbour beside it, and the group on both wires.

client ── "in" ──┐
               bridge "inside", relay ── "out" ── outside
neighbour "in" ──┘
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from mcastsocks.client import Association, Datagram, Relay, RelayError, RequestRefused, connect
from tests.netns.lab import BORDER, CLIENT, GROUP, INSIDE, REMOTE, SECOND, THIRD, Capture, Host, Lab, wait_for
from tests.netns.relay import RelayProcess
from tests.netns.test_groups import both_versions, outside_sender, udp_to
from tests.netns.test_modes import ANY_MODE, ONLY_MM, ONLY_MU, inside_talker, member

_T = TypeVar("_T")
NEIGHBOUR = {4: "10.77.1.9", 6: "fd77:1::9"}


class Street(Lab):
    """The lab with a neighbour of the client's: a bridge on the relay's host joins them."""

    def __enter__(self) -> Street:
        super().__enter__()
        try:
            self.neighbour = self._host(self.client.name.replace("client", "neighbour"))
            self._wire(self.neighbour, self.relay, "next", (NEIGHBOUR,), ())
            self._bridge()
        except BaseException:
            self.close()
            raise
        return self

    def _bridge(self) -> None:
        """It takes over the address that the relay listens on, and floods groups to both ports."""
        with self.relay.entered(), IPRoute() as route:
            route.link("add", ifname="inside", kind="bridge", br_mcast_snooping=0)
            bridge = route.link_lookup(ifname="inside")[0]
            for port in ("in", "next"):
                index = route.link_lookup(ifname=port)[0]
                route.flush_addr(index=index)
                route.link("set", index=index, master=bridge)
            route.addr("add", index=bridge, address=INSIDE[4], prefixlen=24)
            route.addr("add", index=bridge, address=INSIDE[6], prefixlen=64)
            route.link("set", index=bridge, state="up")


@pytest.fixture(scope="module")
def lab(_leave_nothing_behind: None) -> Iterator[Street]:
    with Street() as lab:
        yield lab


@pytest.fixture
def relay(start_relay: Callable[..., RelayProcess]) -> RelayProcess:
    return start_relay(rules=ANY_MODE)


class Program:
    """A program on a host, which uses the library: its sockets are made there."""

    def __init__(self, host: Host, relay: Relay) -> None:
        self.host, self.relay = host, relay

    async def join(self, group: tuple[str, int], **options: Any) -> Association:
        return await at(self.host, self.relay.join(*group, **options))

    async def sender(self, group: tuple[str, int], **options: Any) -> Association:
        return await at(self.host, self.relay.sender(*group, **options))


async def at(host: Host, work: Awaitable[_T]) -> _T:
    with host.entered():
        return await work


@asynccontextmanager
async def programs(version: int, *hosts: Host) -> AsyncIterator[list[Program]]:
    address = INSIDE[version] if version == 4 else f"[{INSIDE[version]}]"
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        connecting = [connect(f"socks5://alice:secret@{address}:1080") for _ in hosts]
        yield [
            Program(host, await at(host, stack.enter_async_context(each)))
            for host, each in zip(hosts, connecting, strict=True)
        ]


def holds(host: Host, version: int, group: tuple[str, int], sockets: int) -> bool:
    return host.memberships(version, "next" if "neighbour" in host.name else "in").get(group[0], 0) == sockets


@both_versions
def test_a_group_is_heard_on_the_network_itself(lab: Street, relay: RelayProcess, version: int) -> None:
    group = (GROUP[version], 5700)

    async def talk() -> None:
        async with programs(version, lab.client, lab.client, lab.neighbour) as everybody:
            joined = [await program.join(group, mode="mm") for program in everybody]
            assert [each.mode for each in joined] == ["mm"] * 3
            assert holds(lab.client, version, group, 2)
            assert holds(lab.neighbour, version, group, 1)
            sender.sendto(b"from outside", group)
            assert [await each.recv() for each in joined] == [Datagram(b"from outside")] * 3
            await joined[0].close()
            assert holds(lab.client, version, group, 1)
            sender.sendto(b"for those who stay", group)
            assert [(await each.recv()).data for each in joined[1:]] == [b"for those who stay"] * 2
            relay.stop()
            with pytest.raises(RelayError):
                await joined[1].recv()
            assert holds(lab.client, version, group, 0)

    with outside_sender(lab, version) as sender, Capture(lab.client, "in") as inside:
        asyncio.run(talk())
        packets = inside.wait_for("the group", udp_to(*group), count=2)
        assert [bytes(packet[UDP].payload) for packet in packets] == [b"from outside", b"for those who stay"]
    assert holds(lab.neighbour, version, group, 0)


@both_versions
def test_a_sender_is_heard_outside_and_by_everybody_inside_but_itself(
    lab: Street, relay: RelayProcess, version: int
) -> None:
    group = (GROUP[version], 5702)

    async def talk() -> None:
        async with programs(version, lab.client, lab.client, lab.neighbour) as (first, second, third):
            voice = await first.sender(group, ttl=9, mode="mm")
            await at(lab.client, voice.add(receive=True))
            hearers = [await second.join(group, mode="mm"), await third.join(group, mode="mu")]
            assert [voice.mode, *(each.mode for each in hearers)] == ["mm", "mm", "mu"]
            await voice.send(b"inside")
            assert [(await each.recv()).data for each in hearers] == [b"inside"] * 2
            await voice.send(bytes(voice.max_data_octets))
            assert [len((await each.recv()).data) for each in hearers] == [voice.max_data_octets] * 2
            assert voice.max_data_octets == {4: 65_507, 6: 65_527}[version]
            sender.sendto(b"outside", group)
            assert [(await each.recv()).data for each in (voice, *hearers)] == [b"outside"] * 3

    with (
        outside_sender(lab, version) as sender,
        member(lab.outside, "out", group, REMOTE[version]) as receiver,
        Capture(lab.client, "in") as inside,
        Capture(lab.outside, "out") as outside,
    ):
        asyncio.run(talk())
        assert len(receiver.recv(1 << 16)) == len(b"inside")
        own = {each[version] for each in (CLIENT, SECOND, THIRD)}
        for capture, sources, hops in ((inside, own, 1), (outside, {BORDER[version]}, 9)):
            packet = capture.wait_for("the datagram", udp_to(*group))[0]
            network = packet.getlayer(IP) or packet.getlayer(IPv6)
            assert bytes(packet[UDP].payload) == b"inside", "no header"
            assert network.src in sources
            assert (network.ttl if version == 4 else network.hlim) == hops


@both_versions
def test_both_modes_hear_each_other(lab: Street, relay: RelayProcess, version: int) -> None:
    group = (GROUP[version], 5704)

    async def talk() -> None:
        async with programs(version, lab.client, lab.client, lab.neighbour) as (first, second, third):
            copied, listener = await first.join(group, mode="mu"), await third.join(group, mode="mm")
            mu, mm = await second.sender(group, mode="mu"), await third.sender(group, mode="mm")
            await mu.send(b"MU")
            assert [(await each.recv()).data for each in (copied, listener)] == [b"MU"] * 2
            await mm.send(b"MM")
            assert (await copied.recv()).data == b"MM"
            await mu.send(b"last")
            assert [(await each.recv()).data for each in (copied, listener)] == [b"last"] * 2

    asyncio.run(talk())
    assert set(relay.drops()) <= {"own-datagram"}


def test_another_program_of_the_same_host_may_not_send_in_its_name(lab: Street, relay: RelayProcess) -> None:
    group = (GROUP[4], 5706)

    async def talk() -> None:
        async with programs(4, lab.client) as [first]:
            voice = await first.sender(group, mode="mm")
            thief.sendto(b"unasked", group)
            await voice.send(b"asked")
            assert await asyncio.to_thread(receiver.recv, 100) == b"asked"

    with inside_talker(lab, CLIENT[4]) as thief, member(lab.outside, "out", group, REMOTE[4]) as receiver:
        asyncio.run(talk())
    assert relay.drops() == {"unpermitted-sender": 1}


@both_versions
def test_a_direction_given_up_leaves_the_group_and_is_taken_up_again(
    lab: Street, relay: RelayProcess, version: int
) -> None:
    group = (GROUP[version], 5708)

    async def talk() -> None:
        async with programs(version, lab.client) as [first]:
            association = await first.sender(group, mode="mm")
            for _ in range(2):
                assert holds(lab.client, version, group, 0)
                await at(lab.client, association.add(receive=True))
                assert holds(lab.client, version, group, 1)
                sender.sendto(b"heard", group)
                assert (await association.recv()).data == b"heard"
                await association.release(receive=True)
            assert holds(lab.client, version, group, 0)
            with pytest.raises(RequestRefused, match="MM-mode"):
                await association.set_sources([REMOTE[version]])

    with outside_sender(lab, version) as sender:
        asyncio.run(talk())


@contextmanager
def another_network(host: Host) -> Iterator[dict[int, str]]:
    """A host's second interface, "aside", and its addresses; groups leave there unless somebody says otherwise."""
    addresses = {4: "10.77.9.2", 6: "fd77:9::2"}
    with host.entered(), IPRoute() as route:
        route.link("add", ifname="aside", kind="veth", peer={"ifname": "nobody"})
        for name in ("aside", "nobody"):
            route.link("set", index=route.link_lookup(ifname=name)[0], state="up")
        index = route.link_lookup(ifname="aside")[0]
        # IPv6 begins there only when the kernel has noticed the carrier.
        wait_for("the link", lambda: route.get_links(index)[0].get_attr("IFLA_OPERSTATE") == "UP")
        for version, address in addresses.items():
            route.addr("add", index=index, address=address, prefixlen={4: 24, 6: 64}[version])
        route.route("add", dst="239.0.0.0/8", oif=index)
        route.route("add", dst="ff15::/16", oif=index, table=255, type="multicast")
    yield addresses
    with host.entered(), IPRoute() as route:
        route.link("del", index=index)


@both_versions
def test_the_same_group_on_another_network_of_the_host_is_another(
    lab: Street, relay: RelayProcess, version: int
) -> None:
    group = (GROUP[version], 5718)

    async def talk() -> None:
        async with programs(version, lab.client) as [first]:
            association = await first.join(group, mode="mm")
            talker.sendto(b"aside", group)
            assert await asyncio.to_thread(listener.recv, 100) == b"aside"
            sender.sendto(b"from outside", group)
            assert (await association.recv()).data == b"from outside"
            voice = await first.sender(group, mode="mm")
            await voice.send(b"from inside")
            heard = [await asyncio.to_thread(receiver.recv, 100) for _ in range(2)]
            assert heard == [b"from outside", b"from inside"]

    with (
        another_network(lab.client) as addresses,
        member(lab.client, "aside", group, addresses[version]) as listener,
        inside_talker(lab, addresses[version]) as talker,
        outside_sender(lab, version) as sender,
        member(lab.outside, "out", group, REMOTE[version]) as receiver,
    ):
        with lab.client.entered():
            aside = socket.if_nametoindex("aside")
        if version == 4:
            request = struct.pack("=4s4si", b"", b"", aside)
            talker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
        else:
            talker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, aside)
        asyncio.run(talk())


@pytest.mark.parametrize(
    ("rules", "asked", "received", "sent"),
    [
        (ANY_MODE, None, "mu", "mm"),
        (ANY_MODE, "mm", "mm", "mm"),
        (ANY_MODE, "mu", "mu", "mu"),
        (ONLY_MM, None, "mm", "mm"),
        (ONLY_MM, "mu", "mm", "mm"),
        (ONLY_MU, "mm", "mu", "mu"),
    ],
)
def test_the_mode_is_the_one_asked_for_where_the_relay_grants_it(
    lab: Street, start_relay: Callable[..., RelayProcess], rules: str, asked: str | None, received: str, sent: str
) -> None:
    start_relay(rules=rules)
    group = (GROUP[4], 5710)

    async def talk() -> None:
        async with programs(4, lab.client) as [first]:
            assert (await first.join(group, mode=asked)).mode == received
            assert (await first.sender(group, mode=asked)).mode == sent

    asyncio.run(talk())


@pytest.mark.parametrize("options", [{"over_tcp": True}, {"sources": [REMOTE[4]]}])
def test_what_mm_mode_cannot_do_is_asked_for_in_mu_mode(
    lab: Street, start_relay: Callable[..., RelayProcess], options: dict[str, Any]
) -> None:
    group = (GROUP[4], 5712)

    async def talk(mode: str | None) -> None:
        async with programs(4, lab.client) as [first]:
            assert (await first.join(group, mode=mode, **options)).mode == "mu"

    relay = start_relay(rules=ANY_MODE)
    asyncio.run(talk(None))
    asyncio.run(talk("mu"))
    with pytest.raises(ValueError, match="in MM-mode there are no"):
        asyncio.run(talk("mm"))
    relay.stop()
    start_relay(rules=ONLY_MM)
    with pytest.raises(RequestRefused, match="the rules leave no mode"):
        asyncio.run(talk(None))


def test_a_group_that_cannot_be_joined_here_is_given_back(lab: Street, relay: RelayProcess) -> None:
    """Another program has the port for itself."""
    group = (GROUP[4], 5714)

    async def talk() -> None:
        async with programs(4, lab.client) as [first]:
            with pytest.raises(RelayError, match=r"in MM-mode, on this network itself: Address already in use"):
                await first.join(group, mode="mm")
            voice = await first.sender(group, mode="mm")
            with pytest.raises(RelayError, match="Address already in use"):
                await at(lab.client, voice.add(receive=True))
            await asyncio.to_thread(wait_for, "the relay to leave", lambda: group[0] not in joined_outside())
            await voice.send(b"it still sends")
            assert await asyncio.to_thread(receiver.recv, 100) == b"it still sends"

    def joined_outside() -> dict[str, int]:
        return lab.relay.memberships(4, "out")

    with ExitStack() as stack:
        stack.enter_context(lab.client.udp("0.0.0.0", group[1]))
        receiver = stack.enter_context(member(lab.outside, "out", group, REMOTE[4]))
        asyncio.run(talk())


def link_local(host: Host, interface: str) -> str:
    def found() -> str:
        for line in host.read("/proc/net/if_inet6").splitlines():
            address, _, _, scope, _, name = line.split()
            if (scope, name) == ("20", interface):
                return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))
        return ""

    return wait_for(f"a link-local address of {interface}", found)


@pytest.mark.parametrize("mode", ["mu", "mm"])
@pytest.mark.parametrize("percent", ["%", "%25"])
def test_a_relay_is_reached_by_a_link_local_address_with_a_zone(
    lab: Street, start_relay: Callable[..., RelayProcess], monkeypatch: pytest.MonkeyPatch, mode: str, percent: str
) -> None:
    address, group = link_local(lab.relay, "inside"), (GROUP[6], 5716)
    monkeypatch.setitem(INSIDE, 6, "::")
    start_relay(rules=ANY_MODE, inside='interface = "inside"')

    async def talk() -> None:
        with lab.client.entered():
            async with asyncio.timeout(20), connect(f"socks5://alice:secret@[{address}{percent}in]") as relay:
                joined, voice = await relay.join(*group, mode=mode), await relay.sender(*group, mode=mode)
                sender.sendto(b"from outside", group)
                assert (await joined.recv()).data == b"from outside"
                assert relay.endpoint.strays == 0
                await voice.send(b"from inside")
                heard = [await asyncio.to_thread(receiver.recv, 100) for _ in range(2)]
                assert heard == [b"from outside", b"from inside"]

    with outside_sender(lab, 6) as sender, member(lab.outside, "out", group, REMOTE[6]) as receiver:
        asyncio.run(talk())
