"""What one client's UDP ASSOCIATE has at upstreams: made when first needed, made anew when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mcastsocks.address import Endpoint
from mcastsocks.server.services import Services
from mcastsocks.server.upstream import UpstreamAssociation


class UpstreamAssociations:
    """By name and way out. `lost` is told when an upstream has ended one."""

    def __init__(self, services: Services, lost: Callable[[], None]) -> None:
        self._services, self._lost = services, lost
        self._closed = False
        self._made: dict[tuple[str, str], asyncio.Task[UpstreamAssociation]] = {}
        self._watching: set[asyncio.Task[None]] = set()

    async def relay(self, name: str, via: str) -> Endpoint:
        """Where the upstream takes our datagrams. Raises UpstreamFailed."""
        key = (name, via)
        if key not in self._made:
            making = self._services.upstreams[name].associate(self._services.outsides[via])
            self._made[key] = asyncio.create_task(making)
            self._made[key].add_done_callback(lambda made: self._watch(key, made))
        return (await asyncio.shield(self._made[key])).relay

    def close(self) -> None:
        self._closed = True
        for made in self._made.values():
            made.cancel()
        for watching in self._watching:
            watching.cancel()

    def _watch(self, key: tuple[str, str], made: asyncio.Task[UpstreamAssociation]) -> None:
        """One that failed is forgotten, so that the next datagrams try again."""
        if made.cancelled() or made.exception() is not None:
            self._made.pop(key, None)
            return
        if self._closed:
            made.result().sock.close()
            return
        watching = asyncio.create_task(self._await_end(key, made.result()))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def _await_end(self, key: tuple[str, str], association: UpstreamAssociation) -> None:
        try:
            await association.ended()
            self._made.pop(key, None)
            self._lost()
        finally:
            association.sock.close()
