"""Requests of a control channel that an upstream has a say in: asked there first, and then done here."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from mcastsocks.server.services import Services
from mcastsocks.server.upstream import UpstreamFailed
from mcastsocks.server.upstream_channel import UpstreamChannel
from mcastsocks.server.upstream_link import UpstreamLink, open_link
from mcastsocks.tables import bind, requests
from mcastsocks.tables.associations import Channel
from mcastsocks.tables.bind import Plan
from mcastsocks.tables.changes import Done, Result
from mcastsocks.tables.requests import Refusal
from mcastsocks.wire.control import ControlRequest, Flags, UdpCommand
from mcastsocks.wire.replies import ReplyCode

if TYPE_CHECKING:
    from mcastsocks.server.channel import ControlChannel


class UpstreamRequests:
    """Those of one control channel, `here`. What an upstream refuses is told on with its code and reason."""

    def __init__(self, here: ControlChannel, services: Services, channel: Channel) -> None:
        self._here, self._services, self._channel = here, services, channel
        self._upstreams: dict[str, UpstreamChannel] = {}
        self._links: dict[int, UpstreamLink] = {}

    def holds(self, aid: int) -> bool:
        """Whether an association goes through an upstream."""
        return aid in self._links

    def open(self, plan: Plan) -> None:
        """A BIND for a new association."""
        if not self._start(plan.wanted.upstream, self._open(plan)):
            why = self._crowded(plan.wanted.upstream)
            self._refuse_plan(plan, UpstreamFailed(ReplyCode.GENERAL_FAILURE, why))

    def handle(self, request: ControlRequest) -> None:
        """A request that names an association which goes through one."""
        link = self._links[request.aid]
        name = link.association.grant.upstream
        if not self._start(name, self._handle_in_turn(link, request)):
            self._here.refuse(requests.refuse(request, ReplyCode.GENERAL_FAILURE, self._crowded(name)), request)

    def forget(self, aid: int) -> None:
        """An association has ended here."""
        if (link := self._links.pop(aid, None)) is not None:
            link.stop()

    async def close(self) -> None:
        """The upstreams release everything."""
        await asyncio.gather(*(upstream.close() for upstream in self._upstreams.values()))

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> bool:
        """Unless too much waits for that upstream already."""
        upstream, account = self._services.upstreams[name], self._channel.account
        if not upstream.has_room_for(account):
            work.close()
            return False
        upstream.waiting.add(account)
        self._here.do_later(work).add_done_callback(lambda _: upstream.waiting.remove(account))
        return True

    def _crowded(self, name: str) -> str:
        return f"too many requests of {self._channel.account} wait for upstream {name}"

    async def _open(self, plan: Plan) -> None:
        name, plane, aid = plan.wanted.upstream, self._services.plane, plan.association.aid
        if name not in self._upstreams:
            self._upstreams[name] = UpstreamChannel(self._services.upstreams[name])
        try:
            link = await open_link(self._upstreams[name], plan)
        except UpstreamFailed as failed:
            self._refuse_plan(plan, failed)
            return
        if self._conclude(plan, link):
            self._links[aid] = link
            plane.divert(aid, link.send)
            link.start(plane.give, self._lose)
        else:
            await link.close()

    async def _handle_in_turn(self, link: UpstreamLink, request: ControlRequest) -> None:
        """Here alone when the association has ended meanwhile."""
        async with link.turn:
            if not self._is_held(link):
                self._here.handle_here(request)
            elif request.command == UdpCommand.BIND:
                await self._bind(link, request)
            elif request.command == UdpCommand.SET_TTL:
                await self._set_ttl(link, request)
            else:
                self._here.handle_here(request)
                await link.keep(link.association.directions if self._is_held(link) else Flags.NONE)

    async def _bind(self, link: UpstreamLink, request: ControlRequest) -> None:
        """A BIND for a further direction, or on other terms."""
        inquiry = bind.examine_bind(self._services.table, self._channel, request)
        plan = inquiry if isinstance(inquiry, Refusal) else self._here.plan(inquiry, [link.association.target.address])
        if isinstance(plan, Refusal):
            self._here.refuse(plan, request)
            return
        try:
            await link.add(plan, plan.inquiry.directions)
        except UpstreamFailed as failed:
            self._refuse_plan(plan, failed)
            self._end_if_gone(link, failed)
        else:
            if self._is_held(link):
                self._conclude(plan, link)
            else:
                self._here.handle_here(request)

    async def _set_ttl(self, link: UpstreamLink, request: ControlRequest) -> None:
        before = link.association.grant
        outcome = requests.set_ttl(self._services.table, self._channel, request)
        if isinstance(outcome, Refusal):
            self._here.refuse(outcome, request)
            return
        try:
            await link.set_ttl(request.ttl)
        except UpstreamFailed as failed:
            link.association.grant = before
            self._here.refuse(requests.refuse(request, failed.code, str(failed)), request)
            self._end_if_gone(link, failed)
        else:
            self._here.handle_here(request)

    def _conclude(self, plan: Plan, link: UpstreamLink) -> bool:
        """What the remote sees is the upstream's."""
        results = self._services.plane.apply([plan.change])
        seen: list[Result] = [Done(link.outside) if isinstance(result, Done) else result for result in results]
        return self._here.conclude(plan, seen)

    def _refuse_plan(self, plan: Plan, failed: UpstreamFailed) -> None:
        refusal = bind.abandon_bind(self._services.table, plan, failed.code, str(failed), failed.granted)
        self._here.refuse(refusal, plan.inquiry.request)

    def _end_if_gone(self, link: UpstreamLink, failed: UpstreamFailed) -> None:
        if failed.code == ReplyCode.BAD_ASSOCIATION:
            self._lose(link, str(failed))

    def _lose(self, link: UpstreamLink, why: str) -> None:
        """An association without the one behind it ends; the client hears of it when it names it again."""
        if self._is_held(link):
            self._here.end(link.association, Flags.NONE, f"upstream lost: {why}")

    def _is_held(self, link: UpstreamLink) -> bool:
        return self._links.get(link.association.aid) is link
