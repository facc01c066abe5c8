"""One control channel: its requests are answered, its associations opened, recorded and closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict

from mcastsocks.address import Endpoint, IPAddress
from mcastsocks.rules.decide import Query, Verdict
from mcastsocks.rules.model import Action
from mcastsocks.server.resolver import ResolveError
from mcastsocks.server.services import Services
from mcastsocks.tables import bind, requests
from mcastsocks.tables.associations import Association, Channel
from mcastsocks.tables.bind import Inquiry
from mcastsocks.tables.changes import Traffic
from mcastsocks.tables.requests import Refusal
from mcastsocks.wire.control import ControlReply, ControlRequest, Flags, UdpCommand
from mcastsocks.wire.replies import ReplyCode, meaning

_AT_ONCE = 256
"""Associations that are closed before the others, and datagrams, get their turn."""

_GROUP_ACTION = {Flags.RECEIVE_FROM: Action.RECEIVE_GROUP, Flags.SEND_TO: Action.SEND_GROUP}


class ControlChannel:
    """Answers by `answer(reply)`: at once for most requests, later for names. Replies may overtake each other."""

    def __init__(
        self, services: Services, channel: Channel, user: str | None, answer: Callable[[ControlReply], None]
    ) -> None:
        self._services, self._channel, self._user, self._answer = services, channel, user, answer
        self._lookups: set[asyncio.Task[None]] = set()
        self._closed = False
        self.opened = 0
        self.refused = 0

    def handle(self, request: ControlRequest) -> None:
        match request.command:
            case UdpCommand.BIND:
                self._bind(request)
            case UdpCommand.RELEASE:
                self._release(request)
            case UdpCommand.SET_TTL:
                self._set_ttl(request)
            case _:
                self._refuse(requests.unknown_command(request), request)

    async def close(self, reason: str) -> None:
        """Release everything: the channel is gone."""
        self._closed = True
        for lookup in self._lookups:
            lookup.cancel()
        for count, association in enumerate(self._services.table.of_channel(self._channel), 1):
            self._end(association, Flags.NONE, reason)
            if count % _AT_ONCE == 0:
                with suppress(asyncio.CancelledError):  # the relay stops: all the more has it to be told
                    await asyncio.sleep(0)

    def _bind(self, request: ControlRequest) -> None:
        inquiry = bind.examine_bind(self._services.table, self._channel, request)
        if isinstance(inquiry, Refusal):
            self._refuse(inquiry, request)
        elif inquiry.target is not None:
            self._open(inquiry, [inquiry.target.address])
        else:
            lookup = asyncio.create_task(self._bind_by_name(inquiry, str(inquiry.remote.host)))
            self._lookups.add(lookup)
            lookup.add_done_callback(self._lookups.discard)

    async def _bind_by_name(self, inquiry: Inquiry, name: str) -> None:
        try:
            addresses = await self._services.resolver.resolve(name, self._channel.account)
        except ResolveError as error:
            if not self._closed:
                refusal = requests.refuse(inquiry.request, ReplyCode.HOST_UNREACHABLE, str(error))
                self._refuse(refusal, inquiry.request)
        else:
            if not self._closed:
                self._open(inquiry, addresses)

    def _open(self, inquiry: Inquiry, addresses: Sequence[IPAddress]) -> None:
        """Ask the rules about each address; of those that they allow in every direction, one that can be spoken to."""
        services, request = self._services, inquiry.request
        judged = [(address, self._decide(inquiry, address)) for address in addresses]
        allowed = [each for each in judged if all(verdict.allowed for verdict in each[1].values())]
        spoken = (each for each in allowed if self._is_spoken(*each))
        address, verdicts = next(spoken, (allowed or judged)[0])
        target = Endpoint(address, inquiry.remote.port)
        plan = bind.plan_bind(services.table, inquiry, target, verdicts, time.monotonic())
        if isinstance(plan, Refusal):
            self._refuse(plan, request)
            return
        results = services.plane.apply([plan.change])
        outcome = bind.conclude_bind(services.table, plan, results)
        if isinstance(outcome, Refusal):
            self._refuse(outcome, request)
            return
        self._answer(outcome.reply)
        if outcome.opened:
            self.opened += 1
        self._record("association-start" if outcome.opened else "association-change", outcome.association)

    def _is_spoken(self, address: IPAddress, verdicts: Mapping[Flags, Verdict]) -> bool:
        outsides = self._services.outsides
        return all(outsides[verdict.via].address(address.version) is not None for verdict in verdicts.values())

    def _decide(self, inquiry: Inquiry, address: IPAddress) -> dict[Flags, Verdict]:
        """A verdict for each direction asked; unicast is one action whatever the direction."""
        name = inquiry.remote.host if isinstance(inquiry.remote.host, str) else None
        verdicts: dict[Flags, Verdict] = {}
        for direction, group_action in _GROUP_ACTION.items():
            if direction in inquiry.directions:
                action = group_action if inquiry.multicast else Action.UDP
                query = Query(self._user, self._channel.peer, action, address, inquiry.remote.port, name)
                verdicts[direction] = self._services.rules.decide(query)
        return verdicts

    def _release(self, request: ControlRequest) -> None:
        outcome = requests.release(self._services.table, self._channel, request)
        if isinstance(outcome, Refusal):
            self._refuse(outcome, request)
            return
        association, kept = outcome
        self._end(association, kept, "released")
        self._answer(requests.released_reply(request))

    def _set_ttl(self, request: ControlRequest) -> None:
        outcome = requests.set_ttl(self._services.table, self._channel, request)
        if isinstance(outcome, Refusal):
            self._refuse(outcome, request)
            return
        association, change = outcome
        self._services.plane.apply([change])
        self._record("association-change", association)
        self._answer(requests.ttl_reply(request))

    def _end(self, association: Association, kept: Flags, reason: str) -> None:
        results = self._services.plane.apply([requests.change_to_keep(association, kept)])
        traffic = requests.conclude_release(self._services.table, association, kept, results)
        if traffic is None:
            self._record("association-change", association)
        else:
            self._record("association-end", association, traffic, reason)

    def _refuse(self, refusal: Refusal, request: ControlRequest) -> None:
        self.refused += 1
        self._answer(refusal.reply)
        self._services.records.write(
            "refused",
            session=self._channel.number,
            user=self._user,
            client=str(self._channel.peer),
            command=_command_name(request.command),
            remote=str(request.remote) if request.remote else None,
            aid=f"{request.aid:08x}" if request.aid else None,
            reply=meaning(refusal.reply.code),
            why=refusal.why,
        )

    def _record(
        self, event: str, association: Association, traffic: Traffic | None = None, reason: str | None = None
    ) -> None:
        moved = {}
        if traffic is not None:
            moved = {"duration_s": round(time.monotonic() - association.opened_at, 3), **asdict(traffic)}
        self._services.records.write(
            event,
            session=self._channel.number,
            user=self._user,
            client=str(self._channel.peer),
            aid=f"{association.aid:08x}",
            what=_what(association),
            remote=str(association.remote),
            address=str(association.target) if isinstance(association.remote.host, str) else None,
            outside=str(association.outside) if association.outside else None,
            ttl=association.ttl or None,
            rule=" and ".join(association.rules),
            **moved,
            reason=reason,
        )


def _what(association: Association) -> str:
    directions = [word for word, holds in (("receive", association.receives), ("send", association.sends)) if holds]
    return "+".join(directions) + ("-group" if association.is_group else "-unicast")


def _command_name(command: int) -> str:
    try:
        return UdpCommand(command).name.lower().replace("_", "-")
    except ValueError:
        return f"X'{command:02x}'"
