"""ENHANCED_UDP_MODE: the connection is a control channel from here on (mcast §4.1.1)."""

from __future__ import annotations

import asyncio
import time

from mcastsocks.address import Endpoint, from_sockaddr
from mcastsocks.protocol.server import ControlRequested, DatagramEncapsulated
from mcastsocks.rules.model import Action
from mcastsocks.server.channel import ControlChannel
from mcastsocks.server.client import Client
from mcastsocks.server.frames import FrameQueue
from mcastsocks.tables.associations import Channel
from mcastsocks.wire.control import ControlReply
from mcastsocks.wire.replies import ReplyCode
from mcastsocks.wire.socks5 import Request

_DATAGRAM_ACTIONS = frozenset((Action.UDP, Action.RECEIVE_GROUP, Action.SEND_GROUP))
_LAST_FRAME_S = 5
"""For a client that is just taking a frame when its channel ends."""


class Enhanced:
    """See server.session.Service."""

    def __init__(self, client: Client, request: Request) -> None:
        self._client, self._services, self._request = client, client.services, request
        self._channel: ControlChannel | None = None
        self._frames: asyncio.Task[None] | None = None

    async def run(self) -> None:
        client = self._client
        if not self._services.rules.may_ever(client.user, client.endpoint.address, _DATAGRAM_ACTIONS):
            why = "no rule allows this client any datagrams or groups"
            client.fail(self._request, ReplyCode.NOT_ALLOWED, why)
        channel = self._channel = self._open_channel()
        self._frames = asyncio.create_task(self._write_frames(self._services.channels.open(client.number)))
        client.machine.enter_enhanced()
        while True:
            async with self._services.turn:
                self._take_messages(channel)
                await asyncio.sleep(0)
            await client.read()

    async def close(self, reason: str) -> None:
        client, channel, frames = self._client, self._channel, self._frames
        if channel is None:
            return
        if frames is not None:
            frames.cancel()
            self._services.channels.close(client.number)
        await channel.close(reason)
        client.record(
            "session-end",
            duration_s=round(time.monotonic() - client.started, 3),
            associations=channel.opened,
            refusals=channel.refused,
            reason=reason,
        )
        if frames is not None:  # not above: a relay that stops meanwhile would skip what follows
            await asyncio.wait((frames,), timeout=_LAST_FRAME_S)

    def _open_channel(self) -> ControlChannel:
        client, services = self._client, self._services
        sockname = client.writer.get_extra_info("sockname")
        listening = from_sockaddr(sockname)
        inside = Endpoint(listening.host, listening.port + services.worker.index)
        zone = sockname[3] if len(sockname) == 4 else 0
        try:
            services.plane.open_inside(inside, zone)
        except OSError as error:
            client.fail(self._request, ReplyCode.GENERAL_FAILURE, f"no UDP socket on {inside}: {error.strerror}")
        relay = Endpoint(services.config.inside.advertised(inside.address), inside.port)
        hosts = services.users.hosts_of(client.user)
        siblings = services.config.worker_ports(listening.port)
        channel = Channel(
            client.number, client.account, client.endpoint.address, client.peer, inside, relay, hosts, siblings
        )
        client.record("session-start", relay=str(inside))
        return ControlChannel(services, channel, client.user, self._answer)

    def _take_messages(self, channel: ControlChannel) -> None:
        while (event := self._client.machine.next_event()) is not None:
            if isinstance(event, ControlRequested):
                channel.handle(event.request)
            elif isinstance(event, DatagramEncapsulated):
                self._services.plane.take(self._client.number, event.datagram.aid, event.datagram.data)

    async def _write_frames(self, frames: FrameQueue) -> None:
        """Datagrams for a client that has them TCP-encapsulated: one at a time, as fast as it reads."""
        while True:
            frame = await frames.pop()
            self._client.writer.write(frame)
            await self._client.writer.drain()

    def _answer(self, reply: ControlReply) -> None:
        """Many requests of one segment are answered by one write; a look-up's answer must not wait for more."""
        self._client.machine.reply(reply)
        asyncio.get_running_loop().call_soon(self._client.write)
