"""UDP ASSOCIATE: datagrams that each name their destination, as long as the connection lives (RFC 1928 §7)."""

from __future__ import annotations

import asyncio
import time
from typing import NoReturn

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr, unmapped
from mcastsocks.protocol.server import InterfaceAsked
from mcastsocks.rules.model import Action
from mcastsocks.server.client import Client, SessionEnded
from mcastsocks.server.judge import Allowed, Denied
from mcastsocks.server.upstream import UpstreamFailed
from mcastsocks.server.upstream_udp import UpstreamAssociations
from mcastsocks.tables.changes import (
    AddAssociate,
    Answers,
    Associate,
    Done,
    Failed,
    ForgetRoutes,
    RemoveAssociate,
    Result,
    Route,
)
from mcastsocks.wire.replies import ReplyCode, of_errno
from mcastsocks.wire.socks5 import Request, RequestFlag

_FIRST_UNPRIVILEGED = 1024
_REFUSALS_RECORDED = 100
"""Destinations refused to one association; more are counted only, or a client could fill the disk."""

_MOST_NAMED = 1024
"""Destinations of one association that INTERFACE DATA may name, where only those are sent to."""


class UdpAssociate:
    """See server.session.Service."""

    def __init__(self, client: Client, request: Request) -> None:
        self._client, self._services, self._request = client, client.services, request
        self._judge = client.judge()
        self._inside = from_sockaddr(client.writer.get_extra_info("sockname")).address
        self._sockaddr = self._client_sockaddr()
        self._port: int | None = None
        self._named: set[Endpoint] | None = None
        self._lookups: set[asyncio.Task[None]] = set()
        self._upstreams = UpstreamAssociations(client.services, self._forget_routes)
        self._refused = 0

    async def run(self) -> None:
        client = self._client
        if not self._services.rules.may_ever(client.user, client.endpoint.address, frozenset((Action.UDP,))):
            client.fail(self._request, ReplyCode.NOT_ALLOWED, "no rule allows this client any datagrams")
        done = self._open()
        flag = self._request.udp_flags
        if done.outside is None:
            flag &= ~RequestFlag.USECLIENTSPORT
        if flag & RequestFlag.INTERFACE_REQUEST and self._services.config.socks.only_named_destinations:
            self._named = set()
        assert self._port is not None
        bound = Endpoint(self._services.config.inside.advertised(self._inside), self._port)
        client.machine.associated(bound, flag)
        client.record("udp-associate-start", relay=str(bound), outside=str(done.outside) if done.outside else None)
        await self._answer_client()

    async def close(self, reason: str) -> None:
        if self._port is not None:
            self._end(self._port, reason)
        for lookup in self._lookups:
            lookup.cancel()
        self._upstreams.close()

    def _end(self, port: int, reason: str) -> None:
        """The plane may still ask about what the client sent at last."""
        [result] = self._services.plane.apply([RemoveAssociate(self._client.number)])
        self._services.associates.pop(self._client.number, None)
        self._services.ports.give_back(self._inside, port, self._sockaddr)
        assert isinstance(result, Done)
        assert result.traffic is not None
        self._client.record(
            "udp-associate-end",
            duration_s=round(time.monotonic() - self._client.started, 3),
            **result.traffic.as_dict(),
            refusals=self._refused,
            reason=reason,
        )

    def ask(self, destination: Endpoint) -> None:
        """A datagram goes to where none went before, or not lately."""
        if self._named is not None and destination not in self._named:
            self._drop(destination, Denied(ReplyCode.NOT_ALLOWED, "not-allowed", "not named by INTERFACE DATA"))
            return
        if not isinstance(destination.host, str):
            try:
                allowed = self._judge.judge_addresses(Action.UDP, destination, [unmapped(destination.host)])
            except Denied as denied:
                self._drop(destination, denied)
                return
            if not allowed.verdict.upstream:
                self._route(destination, allowed)
                return
        lookup = asyncio.create_task(self._look_up(destination))
        self._lookups.add(lookup)
        lookup.add_done_callback(self._lookups.discard)

    def _client_sockaddr(self) -> SockAddr:
        """The address is always the peer's; the port as announced, unless it is for another address (protocol §3)."""
        host, _, *zone = self._client.peer
        announced = self._request.destination
        is_own = not isinstance(announced.host, str) and (
            announced.host.is_unspecified or unmapped(announced.host) == self._client.endpoint.host
        )
        return (host, announced.port if is_own else 0, *zone)

    def _port_wished(self) -> int:
        """Outside. Never one that peers take for a service of this host's own."""
        wished = RequestFlag.USECLIENTSPORT in self._request.udp_flags
        port = self._request.destination.port
        is_ours = self._services.config.is_own_port(port)
        return port if wished and port >= _FIRST_UNPRIVILEGED and not is_ours else 0

    def _open(self) -> Done:
        """On the first port where this client can be told from others. Raises SessionEnded."""
        why = "every port of [socks] udp_ports is taken"
        for port in self._services.ports.free(self._inside, self._sockaddr):
            associate = Associate(
                self._client.number,
                Endpoint(self._inside, port),
                self._sockaddr,
                Answers(self._services.config.socks.udp_answers),
                next(iter(self._services.outsides)),
                self._port_wished(),
            )
            [result] = self._services.plane.apply([AddAssociate(associate)])
            if isinstance(result, Done):
                self._port = port
                self._services.ports.take(self._inside, port, self._sockaddr)
                self._services.associates[self._client.number] = self
                break
            why = result.why if isinstance(result, Failed) else why
        else:
            self._client.fail(self._request, ReplyCode.GENERAL_FAILURE, why)
        return result

    async def _answer_client(self) -> NoReturn:
        """Until it goes; what it writes but INTERFACE DATA, the machine drops."""
        client, before = self._client, 0
        while True:
            try:
                async with asyncio.timeout(self._services.config.limits.idle_udp_s) as patience:
                    event = await client.next_event()
            except TimeoutError:
                if not patience.expired():  # it is the kernel's ETIMEDOUT: the client is dead
                    raise
                if (moved := self._moved()) == before:
                    raise SessionEnded("idle") from None
                before = moved
                continue
            assert isinstance(event, InterfaceAsked)
            try:
                self._name(event.destination)
                allowed = await self._judge.judge(Action.UDP, event.destination)
            except Denied as denied:
                self._note(event.destination, denied)
                client.machine.refuse_interface(denied.code)
                continue
            if allowed.verdict.upstream:  # what the destination sees is the upstream's
                client.machine.refuse_interface(ReplyCode.COMMAND_NOT_SUPPORTED)
                continue
            result = self._route(event.destination, allowed)
            if isinstance(result, Done) and result.outside is not None:
                client.machine.report_interface(result.outside)
            else:
                client.machine.refuse_interface(of_errno(result.errno if isinstance(result, Failed) else 0))

    def _name(self, destination: Endpoint) -> None:
        """Raises Denied when there are too many."""
        if self._named is None or destination in self._named:
            return
        if len(self._named) >= _MOST_NAMED:
            why = f"{_MOST_NAMED} destinations are named already"
            raise Denied(ReplyCode.GENERAL_FAILURE, "not-allowed", why)
        self._named.add(destination)

    def _moved(self) -> int:
        traffic = self._services.plane.associate_traffic(self._client.number)
        assert traffic is not None
        return traffic.to_remote_datagrams + traffic.to_client_datagrams

    async def _look_up(self, destination: Endpoint) -> None:
        try:
            allowed = await self._judge.judge(Action.UDP, destination)
            verdict = allowed.verdict
            through = await self._upstreams.relay(verdict.upstream, verdict.via) if verdict.upstream else None
        except Denied as denied:
            self._drop(destination, denied)
        except UpstreamFailed as failed:
            self._drop(destination, Denied(failed.code, "unreachable", str(failed)))
        except Exception:  # a defect; what waits for the answer must not wait for ever
            self._drop(destination, Denied(ReplyCode.GENERAL_FAILURE, "unreachable", "internal error"))
            raise
        else:
            self._route(destination, allowed, through)

    def _route(self, destination: Endpoint, allowed: Allowed, through: Endpoint | None = None) -> Result:
        target, verdict = Endpoint(allowed.addresses[0], destination.port), allowed.verdict
        route = Route(self._client.number, destination, target, verdict.via, verdict.dscp, through=through)
        [result] = self._services.plane.apply([route])
        return result

    def _forget_routes(self) -> None:
        self._services.plane.apply([ForgetRoutes(self._client.number)])

    def _drop(self, destination: Endpoint, denied: Denied) -> None:
        self._note(destination, denied)
        route = Route(self._client.number, destination, None, refused=denied.drop_reason)
        self._services.plane.apply([route])

    def _note(self, destination: Endpoint, denied: Denied) -> None:
        self._refused += 1
        if self._refused <= _REFUSALS_RECORDED:
            self._client.record("refused", command="udp", remote=str(destination), why=denied.why)
