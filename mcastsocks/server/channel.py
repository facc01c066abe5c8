"""One control channel: its requests are answered, its associations opened, recorded and closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from mcastsocks.address import Endpoint, IPAddress
from mcastsocks.rules.decide import Query, Verdict
from mcastsocks.rules.model import Action
from mcastsocks.server.records import command_name
from mcastsocks.server.resolver import ResolveError
from mcastsocks.server.services import Services
from mcastsocks.server.upstream_requests import UpstreamRequests
from mcastsocks.tables import bind, requests
from mcastsocks.tables.associations import Association, Channel
from mcastsocks.tables.bind import Inquiry, Plan
from mcastsocks.tables.changes import Result, Traffic
from mcastsocks.tables.requests import Refusal
from mcastsocks.wire.control import ControlReply, ControlRequest, Flags, UdpCommand
from mcastsocks.wire.replies import ReplyCode, meaning

_AT_ONCE = 256
"""Associations that are closed before the others, and datagrams, get their turn."""

_GROUP_ACTION = {Flags.RECEIVE_FROM: Action.RECEIVE_GROUP, Flags.SEND_TO: Action.SEND_GROUP}


class ControlChannel:
    """Answers by `answer(reply)`: at once for most requests, later for names and what goes through an upstream.

    Replies may overtake each other.
    """

    def __init__(
        self, services: Services, channel: Channel, user: str | None, answer: Callable[[ControlReply], None]
    ) -> None:
        self._services, self._channel, self._user, self._answer = services, channel, user, answer
        self._peer = str(channel.peer)
        self._later: set[asyncio.Task[None]] = set()
        self._through = UpstreamRequests(self, services, channel)
        self._closed = False
        self.opened = 0
        self.refused = 0

    def handle(self, request: ControlRequest) -> None:
        if self._through.holds(request.aid):
            self._through.handle(request)
        else:
            self.handle_here(request)

    def handle_here(self, request: ControlRequest) -> None:
        """Answer what no upstream has to be asked about."""
        match request.command:
            case UdpCommand.BIND:
                self._bind(request)
            case UdpCommand.RELEASE:
                self._release(request)
            case UdpCommand.SET_TTL:
                self._set_ttl(request)
            case _:
                self.refuse(requests.unknown_command(request), request)

    async def close(self, reason: str) -> None:
        """Release everything: the channel is gone."""
        self._closed = True
        for task in self._later:
            task.cancel()
        table = self._services.table
        self._services.plane.catch_up(self._channel.inside)
        for count, association in enumerate(table.of_channel(self._channel), 1):
            if table.get(association.aid, self._channel) is not association:
                continue  # it was lost with its upstream, while others had their turn
            if association.directions:
                self.end(association, Flags.NONE, reason)
            else:  # an upstream has not granted it yet
                table.close(association)
            if count % _AT_ONCE == 0:
                with suppress(asyncio.CancelledError):  # the relay stops: all the more has it to be told
                    await asyncio.sleep(0)
        with suppress(asyncio.CancelledError):
            await self._through.close()

    def _bind(self, request: ControlRequest) -> None:
        inquiry = bind.examine_bind(self._services.table, self._channel, request)
        if isinstance(inquiry, Refusal):
            self.refuse(inquiry, request)
        elif inquiry.target is not None:
            self._open(inquiry, [inquiry.target.address])
        else:
            self.do_later(self._bind_by_name(inquiry, str(inquiry.remote.host)))

    def do_later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """For as long as the channel lives."""
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)
        return task

    async def _bind_by_name(self, inquiry: Inquiry, name: str) -> None:
        try:
            addresses = await self._services.resolver.resolve(name, self._channel.account)
        except ResolveError as error:
            if not self._closed:
                refusal = requests.refuse(inquiry.request, ReplyCode.HOST_UNREACHABLE, str(error))
                self.refuse(refusal, inquiry.request)
        else:
            if not self._closed:
                self._open(inquiry, addresses)

    def _open(self, inquiry: Inquiry, addresses: Sequence[IPAddress]) -> None:
        plan = self.plan(inquiry, addresses)
        if isinstance(plan, Refusal):
            self.refuse(plan, inquiry.request)
        elif plan.wanted.upstream:
            self._through.open(plan)
        else:
            self.conclude(plan, self._services.plane.apply([plan.change]))

    def plan(self, inquiry: Inquiry, addresses: Sequence[IPAddress]) -> Refusal | Plan:
        """Ask the rules about each address; of those that they allow in every direction, one that can be spoken to."""
        judged = [(address, self._decide(inquiry, address)) for address in addresses]
        allowed = [each for each in judged if all(verdict.allowed for verdict in each[1].values())]
        speaks = self._services.speaks
        spoken = (each for each in allowed if all(speaks(each[0], verdict) for verdict in each[1].values()))
        address, verdicts = next(spoken, (allowed or judged)[0])
        remote = inquiry.remote
        target = remote if remote.host is address else Endpoint(address, remote.port)
        return bind.plan_bind(self._services.table, inquiry, target, verdicts, time.monotonic())

    def conclude(self, plan: Plan, results: Sequence[Result]) -> bool:
        """Answer a BIND; whether it succeeded."""
        outcome = bind.conclude_bind(self._services.table, plan, results)
        if isinstance(outcome, Refusal):
            self.refuse(outcome, plan.inquiry.request)
            return False
        self._answer(outcome.reply)
        if outcome.opened:
            self.opened += 1
        self._record("association-start" if outcome.opened else "association-change", outcome.association)
        return True

    def _decide(self, inquiry: Inquiry, address: IPAddress) -> dict[int, Verdict]:
        """A verdict for each direction asked; unicast is one action whatever the direction."""
        name = inquiry.remote.host if isinstance(inquiry.remote.host, str) else None

        def ask(action: Action) -> Verdict:
            query = Query(self._user, self._channel.peer, action, address, inquiry.remote.port, name)
            return self._services.rules.decide(query)

        asked = [direction for direction in _GROUP_ACTION if direction & inquiry.directions]
        if inquiry.multicast:
            return {direction: ask(_GROUP_ACTION[direction]) for direction in asked}
        return dict.fromkeys(asked, ask(Action.UDP))

    def _release(self, request: ControlRequest) -> None:
        outcome = requests.release(self._services.table, self._channel, request)
        if isinstance(outcome, Refusal):
            self.refuse(outcome, request)
            return
        association, kept = outcome
        if association.terms.sends and not kept & Flags.SEND_TO:
            self._services.plane.catch_up(self._channel.inside)
        self.end(association, kept, "released")
        self._answer(requests.released_reply(request))

    def _set_ttl(self, request: ControlRequest) -> None:
        outcome = requests.set_ttl(self._services.table, self._channel, request)
        if isinstance(outcome, Refusal):
            self.refuse(outcome, request)
            return
        association, change = outcome
        self._services.plane.apply([change])
        self._record("association-change", association)
        self._answer(requests.ttl_reply(request))

    def end(self, association: Association, kept: int, reason: str) -> None:
        if not kept:
            self._through.forget(association.aid)
        results = self._services.plane.apply([requests.change_to_keep(association, kept)])
        traffic = requests.conclude_release(self._services.table, association, kept, results)
        if traffic is None:
            self._record("association-change", association)
        else:
            self._record("association-end", association, traffic, reason)

    def refuse(self, refusal: Refusal, request: ControlRequest) -> None:
        self.refused += 1
        refusal = requests.mention_error(refusal, self._last_error(request.aid))
        self._answer(refusal.reply)
        self._services.records.write(
            "refused",
            session=self._channel.number,
            user=self._user,
            client=self._peer,
            command=command_name(UdpCommand, request.command),
            remote=str(request.remote) if request.remote else None,
            aid=f"{request.aid:08x}" if request.aid else None,
            reply=meaning(refusal.reply.code),
            why=refusal.why,
        )

    def _last_error(self, aid: int) -> str | None:
        if self._services.table.get(aid, self._channel) is None:
            return None
        traffic = self._services.plane.traffic(aid)
        return traffic.last_error if traffic is not None else None

    def _record(
        self, event: str, association: Association, traffic: Traffic | None = None, reason: str | None = None
    ) -> None:
        moved = {}
        if traffic is not None:
            moved = {"duration_s": round(time.monotonic() - association.opened_at, 3), **traffic.as_dict()}
        self._services.records.write(
            event,
            session=self._channel.number,
            user=self._user,
            client=self._peer,
            aid=f"{association.aid:08x}",
            what=_what(association),
            remote=str(association.remote),
            address=str(association.target) if isinstance(association.remote.host, str) else None,
            outside=str(association.outside) if association.outside else None,
            ttl=association.terms.ttl or None,
            rule=" and ".join(association.grant.rules),
            upstream=association.grant.upstream or None,
            **moved,
            reason=reason,
        )


def _what(association: Association) -> str:
    terms = association.terms
    directions = [word for word, holds in (("receive", terms.receives), ("send", terms.sends)) if holds]
    return "+".join(directions) + ("-group" if association.is_group else "-unicast")
