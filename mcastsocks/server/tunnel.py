"""CONNECT and BIND: a TCP stream to a remote, or from one (RFC 1928 §4, §6)."""

from __future__ import annotations

import errno
import socket
import time
from typing import NoReturn

from mcastsocks.address import Endpoint, from_sockaddr
from mcastsocks.liveness import detect_dead_peer
from mcastsocks.rules.model import Action
from mcastsocks.server.client import Client, SessionEnded
from mcastsocks.server.judge import Allowed, Denied
from mcastsocks.server.records import command_name
from mcastsocks.server.streams.accept import Awaiter
from mcastsocks.server.streams.dial import DialFailed, dial
from mcastsocks.server.streams.handover import hand_over
from mcastsocks.server.streams.pump import Octets
from mcastsocks.server.upstream import UpstreamFailed
from mcastsocks.wire.replies import ReplyCode, of_errno
from mcastsocks.wire.socks5 import Command, Request


class _Tunnel:
    """What both have in common: asking the rules, moving octets, and the records of it."""

    action: Action

    def __init__(self, client: Client, request: Request) -> None:
        self._client, self._services, self._request = client, client.services, request
        self._octets = Octets()
        self._began: float | None = None

    async def close(self, reason: str) -> None:
        if self._began is not None:
            self._client.record(
                f"{command_name(Command, self._request.command)}-end",
                remote=str(self._request.destination),
                duration_s=round(time.monotonic() - self._began, 3),
                to_remote_octets=self._octets.to_remote,
                to_client_octets=self._octets.to_client,
                reason=reason,
            )

    async def _ask_rules(self) -> Allowed:
        """Raises SessionEnded, and the client has its answer."""
        try:
            return await self._client.judge().judge(self.action, self._request.destination)
        except Denied as denied:
            self._client.fail(self._request, denied.code, denied.why)

    def _begin(self, **fields: str) -> None:
        self._began = time.monotonic()
        command = command_name(Command, self._request.command)
        self._client.record(f"{command}-start", remote=str(self._request.destination), **fields)

    async def _move(self, remote: socket.socket, from_remote: bytes = b"") -> NoReturn:
        """Until both directions have ended; `from_remote` came already. Raises SessionEnded."""
        client, limits = self._client, self._services.config.limits
        try:
            detect_dead_peer(remote, limits.dead_client_s)
            early = client.machine.leftover()
            client.write()
            client.writer.write(from_remote)
            sock, more = await hand_over(client.reader, client.writer)
        except BaseException:
            remote.close()
            raise
        ending = await self._services.pumps.pump(
            sock, remote, early=early + more, idle_s=limits.idle_tcp_s, octets=self._octets
        )
        raise SessionEnded(ending)


class Connect(_Tunnel):
    """See server.session.Service."""

    action = Action.CONNECT

    async def run(self) -> None:
        allowed = await self._ask_rules()
        if allowed.verdict.upstream:
            await self._connect_upstream(allowed)
        outside = self._services.outsides[allowed.verdict.via]
        try:
            remote = await dial(
                allowed.addresses,
                self._request.destination.port,
                timeout_s=self._services.config.limits.connect_timeout_s,
                local={4: outside.ipv4, 6: outside.ipv6},
                interface=self._services.interface_of(outside),
            )
        except DialFailed as failed:
            self._client.fail(self._request, of_errno(failed.errno), str(failed.strerror))
        try:
            bound, peer = from_sockaddr(remote.getsockname()), from_sockaddr(remote.getpeername())
        except OSError:  # without a peer already
            remote.close()
            self._client.fail(self._request, of_errno(errno.ECONNRESET), "reset by remote at once")
        self._client.machine.connected(bound)
        self._begin(address=str(peer), outside=str(bound), rule=allowed.verdict.rule)
        await self._move(remote)

    async def _connect_upstream(self, allowed: Allowed) -> NoReturn:
        verdict = allowed.verdict
        target = Endpoint(allowed.addresses[0], self._request.destination.port)
        try:
            stream = await self._services.upstreams[verdict.upstream].connect(
                target, self._services.outsides[verdict.via]
            )
        except UpstreamFailed as failed:
            self._client.fail(self._request, failed.code, str(failed))
        self._client.machine.connected(stream.bound)
        self._begin(address=str(target), outside=str(stream.bound), rule=verdict.rule, upstream=verdict.upstream)
        await self._move(stream.sock, stream.early)


class Bind(_Tunnel):
    """See server.session.Service."""

    action = Action.BIND

    async def run(self) -> None:
        allowed = await self._ask_rules()
        if allowed.verdict.upstream:
            why = f"rule {allowed.verdict.rule!r} names an upstream, and BIND goes through none"
            self._client.fail(self._request, ReplyCode.NOT_ALLOWED, why)
        outside = self._services.outsides[allowed.verdict.via]
        version = allowed.addresses[0].version
        local = outside.address(version)
        assert local is not None, "the judge has seen to that"
        expected = [address for address in allowed.addresses if address.version == version]
        try:
            awaiter = Awaiter(local, expected, self._services.interface_of(outside))
        except OSError as error:
            self._client.fail(self._request, of_errno(error.errno or 0), str(error.strerror))
        try:
            self._client.machine.listening(awaiter.endpoint)
            self._client.write()
            self._begin(outside=str(awaiter.endpoint), rule=allowed.verdict.rule)
            remote, peer = await self._client.unless_gone(self._accept(awaiter))
        finally:
            awaiter.close()
        self._client.machine.accepted(peer)
        await self._move(remote)

    async def _accept(self, awaiter: Awaiter) -> tuple[socket.socket, Endpoint]:
        """Its errors are told apart here from the client's own. Raises SessionEnded, and the client has its answer."""
        timeout_s = self._services.config.limits.bind_timeout_s
        try:
            return await awaiter.accept(timeout_s)
        except TimeoutError:
            self._client.fail(self._request, ReplyCode.TTL_EXPIRED, f"nobody connected within {timeout_s:g} s")
        except OSError as error:
            self._client.fail(self._request, ReplyCode.GENERAL_FAILURE, str(error.strerror))
