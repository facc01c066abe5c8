"""The library against relays that this project did not write."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from mcastsocks.address import Endpoint, from_sockaddr
from mcastsocks.client import ConnectionLost, LoginRefused, Relay, RequestRefused, connect
from mcastsocks.errors import RelayError
from mcastsocks.wire.control import ControlReply, ControlRequest, Flags, parse_message

Answer = Callable[[ControlRequest], bytes | None]
ENHANCED = bytes.fromhex("01000001000000000000")


async def against(script: dict[str, bytes], answer: Answer, use: Callable[[Relay], Awaitable[None]]) -> None:
    """A relay of a few lines: fixed octets in the negotiation, `answer` for control requests."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly((await reader.readexactly(2))[1])
            writer.write(script.get("method", b"\x05\x00"))
            await reader.readexactly(10)
            writer.write(script.get("enhanced", ENHANCED))
            while head := await reader.read(3):
                octets = head + await reader.readexactly(int.from_bytes(head[1:]) - 3)
                parsed = parse_message(octets)
                assert parsed is not None
                assert isinstance(parsed[0], ControlRequest)
                reply = answer(parsed[0])
                if reply is None:
                    break
                writer.write(reply)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(10), connect(f"socks5://127.0.0.1:{port}", timeout_s=2) as relay:
            await use(relay)
    finally:
        server.close()


def no_answer(request: ControlRequest) -> None:
    return None


async def nothing(relay: Relay) -> None:
    return None


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
