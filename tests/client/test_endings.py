"""How requests and associations end: at once, late, or with the channel."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mcastsocks.client import ConnectionLost, Relay, RelayError, RelayUrl, connect
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlRequest, Encapsulated, Flags, UdpCommand
from tests.client.test_foreign_relays import against, at_9

NO_REPLY = b""
BROKEN = b"\xff"


def test_a_datagram_right_behind_the_grant_is_received() -> None:
    def answer(request: ControlRequest) -> bytes:
        return at_9(request) + Encapsulated(7, b"at once").encode()

    async def use(relay: Relay) -> None:
        association = await relay.associate("198.51.100.7", 53, over_tcp=True)
        assert (await association.recv()).data == b"at once"

    asyncio.run(against({}, answer, use))


def test_an_association_granted_in_the_channels_last_segment_ends_with_it() -> None:
    async def use(relay: Relay) -> None:
        association = await relay.associate("198.51.100.7", 53)
        with pytest.raises(ConnectionLost, match="broke the protocol"):
            await association.recv()

    asyncio.run(against({}, lambda request: at_9(request) + BROKEN, use))


def test_a_grant_that_comes_after_its_asker_has_gone_is_released() -> None:
    seen: list[ControlRequest] = []
    asked, released = asyncio.Event(), asyncio.Event()

    def answer(request: ControlRequest) -> bytes:
        seen.append(request)
        if request.command == UdpCommand.RELEASE:
            released.set()
            return NO_REPLY
        asked.set()
        return NO_REPLY if len(seen) == 1 else at_9(seen[0])

    async def use(relay: Relay) -> None:
        first = asyncio.create_task(relay.associate("198.51.100.7", 53))
        await asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(relay.associate("198.51.100.7", 54))
        await released.wait()
        second.cancel()

    asyncio.run(against({}, answer, use))
    assert (seen[2].command, seen[2].aid, seen[2].flags) == (UdpCommand.RELEASE, 7, BOTH_DIRECTIONS)
    assert len({request.tid for request in seen}) == 3, "the TID of a request under way is not taken again"


def test_a_relay_that_does_not_answer_in_time_is_given_up() -> None:
    ended = asyncio.Event()

    async def use(relay: Relay) -> None:
        with pytest.raises(ConnectionLost, match="did not answer within"):
            await relay.associate("198.51.100.7", 53)
        await ended.wait()
        with pytest.raises(ConnectionLost, match="did not answer within"):
            await relay.associate("198.51.100.7", 54)

    asyncio.run(against({}, lambda request: NO_REPLY, use, timeout_s=0.2, ask_features=False, ended=ended))


def test_closing_an_association_is_no_error_when_the_relay_goes_meanwhile() -> None:
    async def use(relay: Relay) -> None:
        association = await relay.associate("198.51.100.7", 53)
        await association.close()
        with pytest.raises(RelayError):
            await association.recv()

    asyncio.run(against({}, lambda request: None if request.command == UdpCommand.RELEASE else at_9(request), use))


def test_an_association_whose_closing_is_cancelled_is_over_nevertheless() -> None:
    asked = asyncio.Event()

    def answer(request: ControlRequest) -> bytes:
        if request.command != UdpCommand.RELEASE:
            return at_9(request)
        asked.set()
        return NO_REPLY

    async def use(relay: Relay) -> None:
        association = await relay.associate("198.51.100.7", 53)
        closing = asyncio.create_task(association.close())
        await asked.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(RelayError, match="the association is closed"):
            await association.recv()

    asyncio.run(against({}, answer, use))


def test_a_frame_without_the_source_it_should_have_breaks_the_protocol() -> None:
    def answer(request: ControlRequest) -> bytes:
        request = ControlRequest(
            request.command, request.tid, 0, request.flags | Flags.REPORT_SOURCE, 0, request.local, request.remote
        )
        return at_9(request) + Encapsulated(7, b"\x01\x7f").encode()

    async def use(relay: Relay) -> None:
        association = await relay.associate("198.51.100.7", 53, over_tcp=True)
        with pytest.raises(ConnectionLost, match="broke the protocol"):
            await association.recv()

    asyncio.run(against({}, answer, use))


def test_a_frame_for_a_channel_that_breaks_meanwhile_is_lost_with_it() -> None:
    async def use(relay: Relay) -> None:
        association = await relay.associate("198.51.100.7", 53, over_tcp=True)
        relay._channel._connection.abort()
        with pytest.raises(ConnectionLost, match="the control channel to"):
            await association.send(b"too late")

    asyncio.run(against({}, at_9, use))


def test_a_relay_that_cannot_be_reached_is_told_in_the_kernels_words() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        url = RelayUrl("127.0.0.1", nobody_listens.getsockname()[1])

        async def talk() -> None:
            async with connect(url):
                pass

        with pytest.raises(ConnectionLost) as lost:
            asyncio.run(talk())
        assert str(lost.value) == f"cannot reach {url}: Connection refused"
