"""One of our associations, and the one at an upstream that stands behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from mcastsocks import client
from mcastsocks.address import Endpoint
from mcastsocks.client.terms import Mode
from mcastsocks.errors import ConnectionLost, RelayError
from mcastsocks.planes.counters import DropReason
from mcastsocks.server.upstream import UpstreamFailed
from mcastsocks.server.upstream_channel import UpstreamChannel
from mcastsocks.tables.associations import Association
from mcastsocks.tables.bind import Plan
from mcastsocks.tables.filters import SourceFilter
from mcastsocks.wire.control import Flags
from mcastsocks.wire.replies import ReplyCode

_AT_ONCE = 32
"""Datagrams that are taken before the others get their turn."""

Give = Callable[[int, bytes, Endpoint | None], None]
"""Takes AID, data and sender of a datagram for our client."""
Lost = Callable[["UpstreamLink", str], None]
"""Told when nothing will come any more, and why."""


async def open_link(channel: UpstreamChannel, plan: Plan) -> UpstreamLink:
    """Ask the upstream for what a BIND asks of us. Raises UpstreamFailed."""
    relay, there = await channel.ask(lambda relay: _open(relay, plan))
    link = UpstreamLink(channel, relay, plan.association, there)
    try:
        if there.mode is Mode.MM:  # it would go to the network between us, and stay there
            raise UpstreamFailed(ReplyCode.GENERAL_FAILURE, f"upstream {channel.upstream}: in MM-mode only")
        link.check_reports(plan)
        if missing := plan.inquiry.directions & ~there.directions:
            await link.add(plan, missing)
    except UpstreamFailed:
        await link.close()
        raise
    return link


class UpstreamLink:
    """Whoever holds `turn` asks things of it: requests that name one association are executed in their order."""

    def __init__(
        self, channel: UpstreamChannel, relay: client.Relay, association: Association, there: client.Association
    ) -> None:
        self.association = association
        self.turn = asyncio.Lock()
        self._channel, self._relay, self._there = channel, relay, there
        self._reader: asyncio.Task[None] | None = None

    @property
    def outside(self) -> Endpoint | None:
        """What the remote sees, if the upstream tells; for a group that itself."""
        return None if self._there.terms.is_group else self._there.outside

    def start(self, give: Give, lost: Lost) -> None:
        self._reader = asyncio.create_task(self._read(give, lost))

    def stop(self) -> None:
        """Give nothing more, and tell of no loss."""
        if self._reader is not None:
            self._reader.cancel()

    def send(self, data: bytes) -> DropReason | None:
        """See planes.interface.Through."""
        return self._channel.send(self._there, data)

    async def add(self, plan: Plan, wanted: int) -> None:
        """These of a BIND's directions; all of them, or it is as it was. Raises UpstreamFailed.

        Where the association is no more, its code is BAD_ASSOCIATION.
        """
        there, before, granted = self._there, self._there.directions, plan.inquiry.directions & ~wanted
        receive, send = bool(wanted & Flags.RECEIVE_FROM), bool(wanted & Flags.SEND_TO)
        try:
            if not there.terms.is_group:
                await self._ask(there.add(receive=receive, send=send))
            elif receive:
                await self._ask(_filter(there, plan.inquiry.sources))
            if receive:
                self.check_reports(plan)
            if there.terms.is_group and send:
                granted |= wanted & Flags.RECEIVE_FROM
                await self._ask(there.add(send=True, ttl=plan.inquiry.request.ttl))
        except UpstreamFailed as failed:
            if failed.code != ReplyCode.BAD_ASSOCIATION:
                failed.granted |= granted
            await self._go_back(plan, wanted, before)
            raise

    def check_reports(self, plan: Plan) -> None:
        """Raises UpstreamFailed when the client wants to hear of senders that nobody names to us."""
        is_told = self._there.reports_source or self._only_sender is not None
        if plan.wanted.terms.reports_source and not is_told:
            why = f"upstream {self._channel.upstream}: it does not report sources"
            raise UpstreamFailed(ReplyCode.GENERAL_FAILURE, why, plan.inquiry.directions)

    async def set_ttl(self, ttl: int) -> None:
        """Raises UpstreamFailed, as `add` does."""
        await self._ask(self._there.set_ttl(ttl))

    async def keep(self, directions: int) -> None:
        """Give up the others there, too."""
        given_up = self._there.directions & ~directions
        if not directions:
            await self.close()
        elif given_up:
            with suppress(RelayError):  # it is lost, and the reader tells
                receive, send = bool(given_up & Flags.RECEIVE_FROM), bool(given_up & Flags.SEND_TO)
                await self._there.release(receive=receive, send=send)

    async def close(self) -> None:
        self.stop()
        with suppress(RelayError):
            await self._there.close()

    def _sender_of(self, datagram: client.Datagram) -> Endpoint | None:
        source = datagram.source
        return source if source is not None and not isinstance(source.host, str) else self._only_sender

    @property
    def _only_sender(self) -> Endpoint | None:
        """Whom everything comes from, where that can be known without being told."""
        target = self.association.target
        return None if target.is_group or not target.port else target

    async def _go_back(self, plan: Plan, wanted: int, before: int) -> None:
        """To the directions and sources that there were."""
        if self._there.terms.is_group and before & wanted & Flags.RECEIVE_FROM:
            with suppress(RelayError):
                await _filter(self._there, plan.association.terms.sources)
        await self.keep(before)

    async def _ask(self, request: Awaitable[None]) -> None:
        try:
            await request
        except RelayError as error:
            failed = self._channel.upstream.failed(error)
            if isinstance(error, ConnectionLost):
                failed.code = ReplyCode.BAD_ASSOCIATION
            raise failed from None

    async def _read(self, give: Give, lost: Lost) -> None:
        aid = self.association.aid
        try:
            while True:
                for _ in range(_AT_ONCE):
                    datagram = await self._there.recv()
                    give(aid, datagram.data, self._sender_of(datagram))
                await asyncio.sleep(0)
        except RelayError as error:
            self._channel.leave(self._relay)
            async with self._channel.ending:
                lost(self, str(error))


async def _open(relay: client.Relay, plan: Plan) -> tuple[client.Relay, client.Association]:
    """Of a group one direction, receiving first: the library adds the other."""
    inquiry, target = plan.inquiry, plan.association.target
    host, port, directions = str(target.host), target.port, inquiry.directions
    receives, sends = bool(directions & Flags.RECEIVE_FROM), bool(directions & Flags.SEND_TO)
    if not inquiry.multicast:
        return relay, await relay.associate(host, port, receive=receives, send=sends)
    if not receives:
        return relay, await relay.sender(host, port, ttl=inquiry.request.ttl, mode=Mode.MU)
    included, excluded = _named(inquiry.sources)
    return relay, await relay.join(host, port, sources=included, excluding=excluded, mode=Mode.MU)


async def _filter(there: client.Association, sources: SourceFilter) -> None:
    included, excluded = _named(sources)
    await there.set_sources(included, excluding=excluded)


def _named(sources: SourceFilter) -> tuple[list[str], list[str]]:
    """Those to include, those to exclude; neither for any source."""
    names = sorted(map(str, sources.sources))
    return (names, []) if sources.include else ([], names)
