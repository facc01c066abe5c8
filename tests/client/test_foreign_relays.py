"""The library against relays that this project did not write."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from mcastsocks.address import Endpoint, from_sockaddr
from mcastsocks.client import ClientConfig, ConnectionLost, LoginRefused, Relay, RequestRefused, connect
from mcastsocks.errors import RelayError
from mcastsocks.wire.control import ControlReply, ControlRequest, Flags, parse_message
from mcastsocks.wire.features import Extension
from tests.vectors import octets

Answer = Callable[[ControlRequest], bytes | None]
ENHANCED = bytes.fromhex("01000001000000000000")
NOT_SUPPORTED = bytes.fromhex("05070001000000000000")
LISTED, LISTED_ONCE = bytes.fromhex("05000101000000000000"), bytes.fromhex("05000001000000000000")
FEATURES = octets("feature list of this project")


async def against(
    script: dict[str, bytes],
    answer: Answer,
    use: Callable[[Relay], Awaitable[None]],
    *,
    ask_features: bool = True,
    timeout_s: float = 2,
    ended: asyncio.Event | None = None,
    config: ClientConfig | None = None,
    host: str = "127.0.0.1",
) -> list[str]:
    """A relay of a few lines: fixed octets in the negotiation, `answer` for control requests; what it was asked.

    Its connection lives on behind LIST-FEATURES when the answer says so; with "silent" it never ends. `ended` is set
    when the control channel is closed.
    """
    asked = []

    async def negotiate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """True when the connection is a control channel."""
        asked.append("method")
        await reader.readexactly((await reader.readexactly(2))[1])
        writer.write(script.get("method", b"\x05\x00"))
        while (await reader.readexactly(10))[1] == 0x10:
            asked.append("features")
            listed = script.get("features", NOT_SUPPORTED)
            writer.write(listed)
            if "silent" in script:
                await reader.read()
            if listed[:3] != LISTED[:3] or "leaves" in script:
                return False
        asked.append("enhanced")
        writer.write(script.get("enhanced", ENHANCED))
        return True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not await negotiate(reader, writer):
                return
            while head := await reader.read(3):
                octets = head + await reader.readexactly(int.from_bytes(head[1:]) - 3)
                parsed = parse_message(octets)
                assert parsed is not None
                assert isinstance(parsed[0], ControlRequest)
                reply = answer(parsed[0])
                if reply is None:
                    break
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            if ended is not None:
                ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        url = f"socks5://{host}:{port}"
        opening = connect(url, config=config, timeout_s=timeout_s, ask_features=ask_features)
        async with asyncio.timeout(10), opening as relay:
            await use(relay)
    finally:
        server.close()
    return asked


def no_answer(request: ControlRequest) -> None:
    return None


async def nothing(relay: Relay) -> None:
    return None


def at_9(request: ControlRequest) -> bytes:
    return grant(request, from_sockaddr(("127.0.0.1", 9)))


def grant(request: ControlRequest, local: Endpoint, remote: Endpoint | None = None, aid: int = 7) -> bytes:
    return ControlReply(0, request.tid, aid, request.flags, local, remote or request.remote).encode()


def test_a_relay_that_wants_a_login_is_explained() -> None:
    with pytest.raises(LoginRefused, match="name and password"):
        asyncio.run(against({"method": b"\x05\xff"}, no_answer, nothing))


@pytest.mark.parametrize("octets", ["05070001000000000000", "01020001000000000000"])
def test_an_enhanced_mode_refused_in_either_version_is_understood(octets: str) -> None:
    with pytest.raises(RequestRefused, match="refused the enhanced mode"):
        asyncio.run(against({"enhanced": bytes.fromhex(octets)}, no_answer, nothing))


def test_something_that_is_no_relay_is_not_taken_for_one() -> None:
    with pytest.raises(ConnectionLost, match="does not speak this protocol"):
        asyncio.run(against({"method": b"HTTP/1.1 400 Bad Request\r\n"}, no_answer, nothing))


ON_ONE_CONNECTION = ["method", "features", "enhanced"]
ON_TWO = ["method", "features", "method", "enhanced"]


def test_a_relay_that_lists_features_is_entered_on_the_same_connection() -> None:
    async def use(relay: Relay) -> None:
        assert relay.features is not None
        assert relay.features.encode() == FEATURES
        assert relay.extensions == frozenset(Extension)
        assert (await relay.associate("198.51.100.7", 53)).aid == 7

    asked = asyncio.run(against({"features": LISTED + FEATURES}, at_9, use))
    assert asked == ON_ONE_CONNECTION


@pytest.mark.parametrize(
    "script",
    [
        {"features": LISTED_ONCE + FEATURES},
        {"features": LISTED_ONCE + FEATURES[:-2]},  # the stream ends behind FF
        {"features": LISTED + FEATURES, "leaves": b""},  # not what its FLAG said
    ],
    ids=["as its FLAG said", "right behind FF", "against its FLAG"],
)
def test_a_relay_that_closes_behind_its_list_is_connected_to_again(script: dict[str, bytes]) -> None:
    async def use(relay: Relay) -> None:
        assert relay.extensions == frozenset(Extension)
        assert (await relay.associate("198.51.100.7", 53)).aid == 7

    assert asyncio.run(against(script, at_9, use)) == ON_TWO


@pytest.mark.parametrize(
    "script",
    [
        {},
        {"features": bytes.fromhex("05020001000000000000")},
        {"features": b""},
        {"features": LISTED[:4], "leaves": b""},
        {"features": LISTED + FEATURES[:-3], "leaves": b""},
        {"features": b"HTTP/1.1 400 Bad Request\r\n"},
        {"features": LISTED_ONCE + bytes(20_000)},
        {"features": b"", "silent": b""},
        {"features": LISTED + FEATURES[:-3], "silent": b""},
    ],
    ids=[
        "refuses it as unknown",
        "denies it",
        "closes",
        "closes in its reply",
        "closes in its list",
        "speaks another protocol",
        "lists without an end",
        "is silent",
        "is silent in its list",
    ],
)
def test_a_relay_that_lists_no_features_is_lived_with(script: dict[str, bytes]) -> None:
    async def use(relay: Relay) -> None:
        assert relay.features is None
        assert relay.extensions == frozenset()
        assert (await relay.associate("198.51.100.7", 53)).aid == 7

    assert asyncio.run(against(script, at_9, use)) == ON_TWO


def test_features_are_not_asked_for_when_nobody_wants_them() -> None:
    async def use(relay: Relay) -> None:
        assert relay.features is None

    assert asyncio.run(against({}, at_9, use, ask_features=False)) == ["method", "enhanced"]


def test_an_enhanced_mode_refused_behind_the_list_is_not_asked_for_again() -> None:
    script = {"features": LISTED + FEATURES, "enhanced": bytes.fromhex("01020001000000000000")}
    with pytest.raises(RequestRefused, match="refused the enhanced mode: not allowed by ruleset") as refused:
        asyncio.run(against(script, no_answer, nothing))
    assert refused.value.code == 0x02


def test_a_relay_that_is_no_proxy_gets_plain_datagrams() -> None:
    """LOCAL of the reply is the REMOTE asked for (mcast §4.3.1.2): no header, straight to the remote."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as remote:
        remote.bind(("127.0.0.1", 0))
        remote.setblocking(False)
        endpoint = from_sockaddr(remote.getsockname())

        async def use(relay: Relay) -> None:
            association = await relay.associate(str(endpoint.host), endpoint.port)
            assert association.max_data_octets == 65_507
            await association.send(b"plain")
            data, source = await asyncio.get_running_loop().sock_recvfrom(remote, 100)
            assert data == b"plain"
            remote.sendto(b"answer", source)
            assert (await association.recv()).data == b"answer"

        asyncio.run(against({}, lambda request: grant(request, endpoint), use))


def test_a_relay_named_by_a_mapped_address_is_sent_to_by_ipv4() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relayed:
        relayed.bind(("127.0.0.1", 0))
        relayed.setblocking(False)

        async def use(relay: Relay) -> None:
            association = await relay.associate("198.51.100.7", 53)
            await association.send(b"data")
            octets, source = await asyncio.get_running_loop().sock_recvfrom(relayed, 100)
            assert octets[8:] == b"data"
            assert from_sockaddr(source) == relay.endpoint.local

        local = from_sockaddr(relayed.getsockname())
        asyncio.run(against({}, lambda request: grant(request, local), use, host="[::ffff:127.0.0.1]"))


def test_an_association_reports_eight_octets_less_than_udp_carries() -> None:
    async def use(relay: Relay) -> None:
        association = await relay.associate("198.51.100.7", 53)
        assert association.max_data_octets == 65_507 - 8
        with pytest.raises(ValueError, match="65500 octets"):
            await association.send(bytes(65_500))

    local = from_sockaddr(("127.0.0.1", 9))
    asyncio.run(against({}, lambda request: grant(request, local), use))


def test_replies_in_any_order_find_their_requests() -> None:
    waiting: list[ControlRequest] = []

    def answer(request: ControlRequest) -> bytes:
        waiting.append(request)
        if len(waiting) < 3:
            return b""
        local = from_sockaddr(("127.0.0.1", 9))
        return b"".join(grant(each, local, aid=each.remote.port) for each in reversed(waiting) if each.remote)

    async def use(relay: Relay) -> None:
        opened = await asyncio.gather(*(relay.associate("198.51.100.7", port) for port in (1, 2, 3)))
        assert [(each.aid, each.remote.port) for each in opened] == [(1, 1), (2, 2), (3, 3)]

    asyncio.run(against({}, answer, use))


def test_a_lost_channel_ends_everything_that_waits() -> None:
    local = from_sockaddr(("127.0.0.1", 9))

    def answer(request: ControlRequest) -> bytes | None:
        return None if request.flags & Flags.UDP_MULTICAST else grant(request, local)

    async def use(relay: Relay) -> None:
        association = await relay.associate("198.51.100.7", 53)
        waiting = asyncio.create_task(association.recv())
        with pytest.raises(ConnectionLost):
            await relay.join("239.1.2.3", 5004)
        with pytest.raises(ConnectionLost):
            await waiting
        with pytest.raises(RelayError):
            await association.send(b"too late")

    asyncio.run(against({}, answer, use))


def test_datagrams_from_anyone_but_the_relay_are_strays() -> None:
    async def use(relay: Relay) -> None:
        association = await relay.associate("198.51.100.7", 53)
        host, port = relay.endpoint.local
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            thief.sendto(bytes.fromhex("0000000000000007") + b"forged", (str(host), port))
        relayed.sendto(bytes.fromhex("0000000000000007") + b"genuine", (str(host), port))
        assert (await association.recv()).data == b"genuine"
        assert relay.endpoint.strays == 1

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relayed:
        relayed.bind(("127.0.0.1", 0))
        local = from_sockaddr(relayed.getsockname())
        asyncio.run(against({}, lambda request: grant(request, local), use))
