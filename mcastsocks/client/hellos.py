"""Bare headers that show a relay our port, where a NAT keeps us from naming it."""

from __future__ import annotations

import asyncio

from mcastsocks.client.association import Association
from mcastsocks.client.paths import UdpPath

_FIRST_S, _LAST_S = 0.5, 15.0


class Hellos:
    """Those under way, by AID."""

    def __init__(self) -> None:
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def start(self, association: Association, path: UdpPath) -> None:
        self._tasks[association.aid] = asyncio.create_task(_repeat(association, path))

    def stop(self, aid: int) -> None:
        if task := self._tasks.pop(aid, None):
            task.cancel()


async def _repeat(association: Association, path: UdpPath) -> None:
    """Until data comes, because a datagram can be lost."""
    pause = _FIRST_S
    while not association.received:
        await path.hello()
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LAST_S)
