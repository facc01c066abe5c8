"""UDP BIND as a client asks it (mcast §4.3.1), and again where the first answer tells how."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mcastsocks.address import Endpoint
from mcastsocks.client.association import Association
from mcastsocks.client.channel import ControlChannel
from mcastsocks.client.endpoint import ClientEndpoint
from mcastsocks.client.requests import Refused
from mcastsocks.client.terms import Terms
from mcastsocks.errors import RelayError, RequestRefused
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, ControlRequest, Flags, UdpCommand
from mcastsocks.wire.features import Extension
from mcastsocks.wire.replies import ReplyCode

Opened = Callable[[ControlReply, Endpoint | None, Endpoint, Terms], Association]


class Binds:
    """Asks for associations, with the extensions that the relay says it has; `opened` makes them of the replies."""

    def __init__(
        self, channel: ControlChannel, endpoint: ClientEndpoint, extensions: frozenset[Extension], opened: Opened
    ) -> None:
        self._channel, self._endpoint, self._extensions, self._opened = channel, endpoint, extensions, opened
        self._behind_nat: bool | None = None  # until a BIND has succeeded

    async def open(self, remote: Endpoint, wanted: Terms) -> Association:
        """Name our own endpoint; when the relay sees another address of us, let it learn (a NAT is between)."""
        local = self._local(wanted)
        try:
            association = await self._open_in_any_mode(local, remote, wanted)
        except RequestRefused as refused:
            if local is None or self._behind_nat is not None or not self._may_be_nat(refused):
                raise
            association = await self._open_in_any_mode(self._endpoint.learnt, remote, wanted)
            self._behind_nat = True
        else:
            if local is not None:
                self._behind_nat = bool(self._behind_nat)
        return association

    async def change(self, association: Association, wanted: Terms) -> None:
        """What is wanted on top of what an association has."""
        request = self._request(association.aid, association.local, association.remote, wanted)

        def take(reply: ControlReply) -> None:
            try:
                association.granted(wanted, reply)
            except RelayError:
                self._channel.give_up(association.aid, wanted.flags & BOTH_DIRECTIONS)
                raise

        await self._channel.ask(request, take)

    def _local(self, wanted: Terms) -> Endpoint | None:
        if wanted.is_encapsulated:
            return None
        return self._endpoint.learnt if self._behind_nat else self._endpoint.local

    def _may_be_nat(self, refused: RequestRefused) -> bool:
        """Whether LOCAL was refused: then a REASON names it. Without one, 02 says that and much else."""
        if refused.code != ReplyCode.NOT_ALLOWED:
            return False
        return Extension.REASONS not in self._extensions or f"LOCAL {self._endpoint.local.host}" in str(refused)

    async def _open_in_any_mode(self, local: Endpoint | None, remote: Endpoint, wanted: Terms) -> Association:
        """Without reports of sources, when those were all that kept the relay from granting MM-mode."""
        request = self._request(0, local, remote, wanted)
        try:
            return await self._open(request, remote, wanted)
        except Refused as refused:
            reports = Flags.REPORT_SOURCE & request.flags
            if not reports or not wanted.is_group or wanted.needs_mu or not refused.is_possible_in_part:
                raise
        request = self._request(0, local, remote, wanted, may_report=False)
        return await self._open(request, remote, wanted)

    async def _open(self, request: ControlRequest, remote: Endpoint, wanted: Terms) -> Association:
        """A new association; released when it is granted after whoever asked has gone."""
        opened: list[Association] = []
        is_awaited = True

        def take(reply: ControlReply) -> Association:
            association = self._opened(reply, request.local, remote, wanted)
            opened.append(association)
            if not is_awaited:
                self._abandon(association)
            return association

        try:
            return await self._channel.ask(request, take)
        except asyncio.CancelledError:
            is_awaited = False
            for association in opened:
                self._abandon(association)
            raise

    def _abandon(self, association: Association) -> None:
        self._channel.give_up(association.aid, association.directions)
        association.end(None)

    def _request(
        self, aid: int, local: Endpoint | None, remote: Endpoint, wanted: Terms, *, may_report: bool = True
    ) -> ControlRequest:
        if wanted.options and Extension.SOURCE_FILTERS not in self._extensions:
            raise RelayError(f"{self._channel.url} filters no sources")
        flags = wanted.flags
        if may_report and wanted.may_report_sources and Extension.SOURCE_REPORTING in self._extensions:
            flags |= Flags.REPORT_SOURCE
        if wanted.options or Extension.REASONS in self._extensions:
            flags |= Flags.EXTENDED
        return ControlRequest(
            UdpCommand.BIND, self._channel.tid(), aid, flags, wanted.ttl, local, remote, wanted.options
        )
