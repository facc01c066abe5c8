"""The mode of a group: what is asked for, and what is made of a relay's answer (mcast §5.1)."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import Any

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.client import Mode, Relay, RelayError, RequestRefused
from mcastsocks.wire.control import ControlReply, ControlRequest, Flags, UdpCommand
from mcastsocks.wire.replies import ReplyCode
from tests.client.test_foreign_relays import FEATURES, LISTED, Answer, against

GROUP = Endpoint(IPv4Address("239.1.2.3"), 5004)
RELAY = Endpoint(IPv4Address("127.0.0.1"), 9)
MODES = Flags.MU_MODE | Flags.MM_MODE
EXTENDED = {"features": LISTED + FEATURES}


def granting(seen: list[ControlRequest], mode: int, local: Endpoint | None, remote: Endpoint | None) -> Answer:
    def answer(request: ControlRequest) -> bytes:
        seen.append(request)
        flags = request.flags & ~MODES | mode
        return ControlReply(0, request.tid, 7, flags, local, remote).encode()

    return answer


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, Flags.NONE),
        ({"mode": None}, Flags.NONE),
        ({"mode": "mu"}, Flags.MU_MODE),
        ({"mode": Mode.MU}, Flags.MU_MODE),
        ({"mode": "mm"}, Flags.MM_MODE),
        ({"over_tcp": True}, Flags.TCP_ENCAPSULATED),
        ({"over_tcp": True, "mode": "mu"}, Flags.TCP_ENCAPSULATED),
        ({"sources": ["198.51.100.7"]}, Flags.MU_MODE),
    ],
)
def test_a_wish_is_a_flag(options: dict[str, Any], asked: int) -> None:
    async def use(relay: Relay) -> None:
        await relay.join("239.1.2.3", 5004, **options)

    seen: list[ControlRequest] = []
    asyncio.run(against(EXTENDED, granting(seen, Flags.MU_MODE, RELAY, GROUP), use))
    assert seen[0].flags & (MODES | Flags.TCP_ENCAPSULATED) == asked
    assert bool(seen[0].flags & Flags.REPORT_SOURCE) == (asked != Flags.MM_MODE)


@pytest.mark.parametrize("options", [{"over_tcp": True}, {"sources": ["198.51.100.7"]}, {"excluding": ["192.0.2.1"]}])
def test_mm_mode_with_what_it_cannot_do_is_not_asked_for(options: dict[str, Any]) -> None:
    async def use(relay: Relay) -> None:
        with pytest.raises(ValueError, match="in MM-mode there are no"):
            await relay.join("239.1.2.3", 5004, mode="mm", **options)
        with pytest.raises(ValueError, match="expected mode mu or mm, not 'um'"):
            await relay.sender("239.1.2.3", 5004, mode="um")

    seen: list[ControlRequest] = []
    asyncio.run(against(EXTENDED, granting(seen, Flags.MM_MODE, None, GROUP), use))
    assert not seen


@pytest.mark.parametrize(
    ("granted", "options", "mode"),
    [(Flags.MU_MODE, {}, "mu"), (Flags.NONE, {}, "mu"), (Flags.NONE, {"over_tcp": True}, "mu")],
)
def test_an_association_says_its_mode(granted: int, options: dict[str, Any], mode: str) -> None:
    async def use(relay: Relay) -> None:
        assert (await relay.join("239.1.2.3", 5004, **options)).mode == mode

    asyncio.run(against({}, granting([], granted, RELAY, GROUP), use))


def test_an_association_with_a_remote_has_no_mode() -> None:
    async def use(relay: Relay) -> None:
        assert (await relay.associate("198.51.100.7", 53)).mode is None

    asyncio.run(against({}, granting([], Flags.NONE, RELAY, RELAY), use))


@pytest.mark.parametrize(
    ("group", "remote", "options", "why"),
    [
        ("239.1.2.3", GROUP, {"over_tcp": True}, "cannot do what was asked for"),
        ("239.1.2.3", GROUP, {"sources": ["198.51.100.7"]}, "cannot do what was asked for"),
        ("239.1.2.3", None, {}, "without naming that group"),
        ("239.1.2.3", GROUP._replace(port=5005), {}, "without naming that group"),
        ("group.example", RELAY, {}, "without naming that group"),
        ("group.example", Endpoint(IPv4Address("239.1.2.3"), 0), {}, "without naming that group"),
    ],
)
def test_mm_mode_that_makes_no_sense_is_released(
    group: str, remote: Endpoint | None, options: dict[str, Any], why: str
) -> None:
    async def use(relay: Relay) -> None:
        with pytest.raises(RelayError, match=why):
            await relay.join(group, 5004, **options)
        with pytest.raises(RelayError):
            await relay.join(group, 5004, **options)

    seen: list[ControlRequest] = []
    asyncio.run(against(EXTENDED, granting(seen, Flags.MM_MODE, None, remote), use))
    assert [(each.command, each.aid) for each in seen[:3]] == [
        (UdpCommand.BIND, 0),
        (UdpCommand.RELEASE, 7),
        (UdpCommand.BIND, 0),
    ]


def test_mm_mode_of_another_family_is_released() -> None:
    async def use(relay: Relay) -> None:
        with pytest.raises(RelayError, match="of another family than we are"):
            await relay.join("ff15::1", 5004)

    seen: list[ControlRequest] = []

    def answer(request: ControlRequest) -> bytes:
        return granting(seen, Flags.MM_MODE, None, request.remote)(request) or b""

    asyncio.run(against({}, answer, use))


@pytest.mark.parametrize(
    ("possible", "options", "asked"),
    [
        (Flags.RECEIVE_FROM | Flags.UDP_MULTICAST, {}, [True, False]),
        (Flags.RECEIVE_FROM | Flags.UDP_MULTICAST, {"over_tcp": True}, [True]),
        (Flags.RECEIVE_FROM | Flags.UDP_MULTICAST, {"sources": ["198.51.100.7"]}, [True]),
        (Flags.RECEIVE_FROM | Flags.UDP_MULTICAST, {"mode": "mm"}, [False]),
        (Flags.NONE, {}, [True]),
    ],
    ids=["the reports are in the way", "over TCP", "sources", "none were asked for", "nothing is possible"],
)
def test_reports_of_sources_are_done_without_where_they_keep_a_relay_from_granting(
    possible: int, options: dict[str, Any], asked: list[bool]
) -> None:
    seen: list[ControlRequest] = []

    def answer(request: ControlRequest) -> bytes:
        seen.append(request)
        return ControlReply(ReplyCode.GENERAL_FAILURE, request.tid, flags=possible).encode()

    async def use(relay: Relay) -> None:
        with pytest.raises(RequestRefused):
            await relay.join("239.1.2.3", 5004, **options)

    asyncio.run(against(EXTENDED, answer, use))
    assert [bool(request.flags & Flags.REPORT_SOURCE) for request in seen] == asked
