"""What becomes of one datagram, whichever way it came: all of the portable plane, and what others do not batch."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr, to_sockaddr
from mcastsocks.planes import slow_path, sockets
from mcastsocks.planes.counters import DropReason, reason_of
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.groups import Group, InsideGroup
from mcastsocks.planes.interface import Outside, PlaneOptions, Through
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.planes.slow_path import Course
from mcastsocks.planes.switchboard import Switchboard
from mcastsocks.wire.datagram import (
    HEADER,
    HEADER_OCTETS,
    MAX_FRAME_OCTETS,
    SOURCE_BLOCK_OCTETS,
    UDP_PAYLOAD_OCTETS,
    fragments,
    source_block,
)
from mcastsocks.wire.rtp import is_rtp

DATA = HEADER_OCTETS + SOURCE_BLOCK_OCTETS
"""Where data stands in the buffer: what goes before it on the way to a client is written in front of it."""

_BUFFER_OCTETS = 1 << 16


class ScalarPaths(Switchboard):
    """One datagram at a time: it stands in `self._view`, its data at DATA, and before that there is room for what goes
    in front of it. What is returned is how many more datagrams were sent because of it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, outsides: Mapping[str, Outside], options: PlaneOptions) -> None:
        super().__init__(loop, outsides, options)
        self._view = memoryview(bytearray(DATA + _BUFFER_OCTETS))
        self._expiry: asyncio.TimerHandle | None = None

    def take(self, channel: int, aid: int, data: bytes) -> None:
        self._counters.received_inside += 1
        forwarding = self._forwardings.get(aid)
        if forwarding is None or forwarding.entry.channel != channel:
            self._counters.drops[DropReason.UNKNOWN_AID] += 1
        elif forwarding.entry.client is not None:
            self._drop(forwarding, DropReason.NOT_ENCAPSULATED)
        elif not forwarding.sends:
            self._drop(forwarding, DropReason.NO_SEND_DIRECTION)
        else:
            self._put_to_remote(forwarding, data)

    def divert(self, aid: int, through: Through) -> None:
        self._forwardings[aid].through = through

    def give(self, aid: int, data: bytes, source: Endpoint | None) -> None:
        self._counters.received_outside += 1
        forwarding = self._forwardings.get(aid)
        if forwarding is None or not forwarding.terms.upstream:
            self._counters.drops[DropReason.UNKNOWN_AID] += 1
        elif not forwarding.terms.receives:
            self._drop(forwarding, DropReason.UNEXPECTED_REMOTE)
        elif len(data) > UDP_PAYLOAD_OCTETS[6]:
            self._drop(forwarding, DropReason.TOO_LARGE)
        else:
            self._view[DATA : DATA + len(data)] = data
            self._to_client(forwarding, len(data), to_sockaddr(source) if source else forwarding.remote, tos=0)

    def close(self) -> None:
        super().close()
        if self._expiry is not None:
            self._expiry.cancel()

    def _from_client(self, octets: int, source: SockAddr, tos: int) -> int:
        """A datagram with its header: check, strip it, pass on."""
        counters = self._counters
        counters.received_inside += 1
        if octets < HEADER_OCTETS:
            counters.drops[DropReason.RUNT] += 1
            return 0
        rsv, frag, dgid, aid = HEADER.unpack_from(self._view, DATA - HEADER_OCTETS)
        forwarding = self._forwardings.get(aid)
        if forwarding is None:
            counters.drops[DropReason.UNKNOWN_AID] += 1
            return 0
        course: DropReason | Course = Course.RELAY
        if rsv or frag or not forwarding.takes_datagrams or source != forwarding.client:
            known = forwarding.client
            course = slow_path.judge(forwarding, rsv, frag, source, octets)
            if forwarding.client is not known:
                self._learnt(forwarding)
        octets -= HEADER_OCTETS
        if course is Course.RELAY:
            return self._to_remote(forwarding, octets, tos)
        if course is Course.REASSEMBLE:
            return self._reassemble(forwarding, dgid, frag, bytes(self._view[DATA : DATA + octets]), tos)
        if course is Course.HELLO:
            counters.hellos += 1
        else:
            self._drop(forwarding, course)
        return 0

    def _learnt(self, forwarding: Forwarding) -> None:
        """Its client may be known now."""

    def _from_remote(self, outside: OutsideSocket, octets: int, source: SockAddr, tos: int) -> None:
        """To the one association that expects it."""
        self._counters.received_outside += 1
        aid = outside.remotes.match(source[0], source[1])
        if aid is None:
            self._counters.drops[DropReason.UNEXPECTED_REMOTE] += 1
        else:
            self._to_client(self._forwardings[aid], octets, source, tos)

    def _from_group(self, group: Group, octets: int, source: SockAddr, tos: int) -> int:
        """To everyone who receives it, from that sender."""
        counters = self._counters
        counters.received_outside += 1
        if (reason := self._flaw_of_source(group, source)) is not None:
            counters.drops[reason] += 1
            return 0
        receivers = [receiver for receiver in group.receivers if receiver.admits(source[0])]
        goes_inside = group.goes_inside(source)
        if not receivers and not goes_inside:
            counters.drops[nobody_gets(group)] += 1
            return 0
        counters.copied += len(receivers) + goes_inside - 1
        for receiver in receivers:
            self._to_client(receiver, octets, source, tos)
        if goes_inside:
            self._multicast_inside(group, octets, tos)
        return len(receivers)

    def _flaw_of_source(self, group: Group, source: SockAddr) -> DropReason | None:
        if source in self._own:
            return DropReason.OWN_DATAGRAM
        return DropReason.IGNORED_SOURCE if source[0] in group.outside.ignore_sources else None

    def _from_inside_group(self, group: InsideGroup, octets: int, source: SockAddr, tos: int) -> int:
        """Out to the same group, if its sender may (MM-mode: mcast §5.1)."""
        counters = self._counters
        counters.received_inside += 1
        if source in self._own:
            counters.drops[DropReason.OWN_DATAGRAM] += 1
            return 0
        sender = group.sender(source[0], source[1])
        if sender is None:
            counters.drops[DropReason.UNPERMITTED_SENDER] += 1
            return 0
        if not group.is_ours(sender):
            counters.drops[DropReason.OTHER_WORKER] += 1
            return 0
        return self._to_remote(sender, octets, tos)

    def _reassemble(self, forwarding: Forwarding, dgid: int, frag: int, body: bytes, tos: int) -> int:
        """Relay what has become whole; how many copies that was."""
        most, now = UDP_PAYLOAD_OCTETS[forwarding.entry.remote.address.version], self._loop.time()
        self._counters.pieces += 1
        whole = self._reassembly.add(forwarding.entry.aid, dgid, frag, body, most, now)
        if whole is not None:
            self._counters.reassembled += 1
            return self._put_to_remote(forwarding, whole, tos)
        if self._expiry is None:
            self._expiry = self._loop.call_later(self._options.reassembly.timeout_s, self._expire)
        return 0

    def _expire(self) -> None:
        """Queues whose datagram never became whole end in time, whether or not more fragments come."""
        self._reassembly.expire(self._loop.time())
        again = len(self._reassembly) > 0
        self._expiry = self._loop.call_later(self._options.reassembly.timeout_s, self._expire) if again else None

    def _put_to_remote(self, forwarding: Forwarding, data: bytes, tos: int = 0) -> int:
        """The same for data that did not come by a socket's buffer."""
        self._view[DATA : DATA + len(data)] = data
        return self._to_remote(forwarding, len(data), tos)

    def _to_remote(self, forwarding: Forwarding, octets: int, tos: int) -> int:
        """Send the data in the buffer, and the copies of it that a group's other receivers get; how many those are."""
        terms, outside, data = forwarding.terms, forwarding.outside, self._view[DATA : DATA + octets]
        if terms.sends_rtp and not is_rtp(data):
            self._drop(forwarding, DropReason.NOT_RTP)
            return 0
        if terms.upstream:
            self._to_upstream(forwarding, bytes(data))
            return 0
        assert outside is not None, "an entry that sends has an outside socket"
        try:
            sockets.send(outside.sock, data, forwarding.remote, terms.ttl, sockets.marked(tos, terms.send_dscp))
        except OSError as error:
            self._drop(forwarding, reason_of(error))
        else:
            self._count_to_remote(forwarding, octets)
        return self._copy_to_other_receivers(forwarding, octets, tos) if forwarding.is_group else 0

    def _to_upstream(self, forwarding: Forwarding, data: bytes) -> None:
        """It copies to a group's other receivers what has to be."""
        if (reason := forwarding.through(data)) is not None:
            self._drop(forwarding, reason)
        else:
            self._count_to_remote(forwarding, len(data))

    def _copy_to_other_receivers(self, sender: Forwarding, octets: int, tos: int) -> int:
        """What a client sends to a group goes to the group's other receivers too (mcast §5.1).

        They are told, and judge by, what the group outside sees as its source.
        """
        group = self._groups.get((sender.terms.via, sender.entry.remote))
        if group is None:
            return 0
        tos = sockets.marked(tos, sender.terms.send_dscp)
        before, source = self._counters.copied, sender.seen_as
        for receiver in group.receivers:
            if not receiver.is_same_client(sender) and receiver.admits(source[0]):
                self._counters.copied += 1
                self._to_client(receiver, octets, source, tos)
        if not sender.entry.mm and group.goes_inside(source):  # an MM sender was heard inside already
            self._counters.copied += 1
            self._multicast_inside(group, octets, tos)
        return self._counters.copied - before

    def _multicast_inside(self, group: Group, octets: int, tos: int) -> None:
        """The data in the buffer on the same group, without a header; one datagram for all who listen."""
        listener = group.listeners[0]
        if listener.terms.receives_rtp and not is_rtp(self._view[DATA : DATA + octets]):
            self._counters.drops[DropReason.NOT_RTP] += 1
            return
        voice = self._inside_voices[listener.entry.remote.address.version]
        try:
            data, to = self._view[DATA : DATA + octets], to_sockaddr(listener.entry.remote)
            sockets.send(voice, data, to, tos=sockets.marked(tos, listener.terms.receive_dscp))
        except OSError as error:
            self._counters.drops[reason_of(error)] += 1
            return
        self._counters.sent_inside += 1
        for listener in group.listeners:
            listener.traffic.to_client_datagrams += 1
            listener.traffic.to_client_octets += octets

    def _to_client(self, forwarding: Forwarding, octets: int, source: SockAddr, tos: int) -> None:
        """Send the data in the buffer behind the header, and behind its source where that is reported."""
        if forwarding.terms.receives_rtp and not is_rtp(self._view[DATA : DATA + octets]):
            self._drop(forwarding, DropReason.NOT_RTP)
            return
        start = DATA
        if forwarding.terms.reports_source:
            block = source_block(from_sockaddr(source))
            start -= len(block)
            self._view[start:DATA] = block
        if forwarding.entry.client is None:
            self._to_channel(forwarding, self._view[start : DATA + octets], octets)
            return
        if forwarding.client is None:
            self._drop(forwarding, DropReason.ENDPOINT_UNKNOWN)
            return
        start -= HEADER_OCTETS
        self._view[start : start + HEADER_OCTETS] = forwarding.header
        datagram, tos = self._view[start : DATA + octets], sockets.marked(tos, forwarding.terms.receive_dscp)
        try:
            if len(datagram) <= self._room(forwarding):
                sockets.send(forwarding.inside, datagram, forwarding.client, tos=tos)
            else:
                self._send_in_pieces(forwarding, datagram[HEADER_OCTETS:], forwarding.client, tos)
        except OSError as error:
            self._drop(forwarding, reason_of(error))
            return
        self._count_to_client(forwarding, octets)

    def _send_in_pieces(self, forwarding: Forwarding, body: memoryview, client: SockAddr, tos: int) -> None:
        """Raises OSError when a piece cannot be sent; those behind it are not tried."""
        room, entry = self._room(forwarding), forwarding.entry
        pieces = fragments(forwarding.header[0], forwarding.next_dgid(), entry.aid, body, room)
        if pieces is None:
            raise OSError(errno.EMSGSIZE, "more pieces than positions")
        for piece in pieces:
            sockets.send(forwarding.inside, piece, client, tos=tos)

    def _room(self, forwarding: Forwarding) -> int:
        """The largest UDP payload that goes to this client."""
        carries = UDP_PAYLOAD_OCTETS[forwarding.entry.inside.address.version]
        return min(carries, self._options.fragment_above or carries)

    def _to_channel(self, forwarding: Forwarding, body: memoryview, octets: int) -> None:
        """Over the control channel. What the channel drops for it was counted as sent before, and is not any more."""
        if len(body) > MAX_FRAME_OCTETS:
            self._drop(forwarding, DropReason.TOO_LARGE)
            return
        self._count_to_client(forwarding, octets)
        for aid in self._options.sink(forwarding.entry.channel, forwarding.entry.aid, bytes(body)):
            self._counters.sent_inside -= 1
            self._counters.drops[DropReason.SLOW_CLIENT] += 1
            if slow := self._forwardings.get(aid):
                slow.traffic.dropped_datagrams += 1

    def _count_to_remote(self, forwarding: Forwarding, octets: int) -> None:
        self._counters.sent_outside += 1
        forwarding.traffic.to_remote_datagrams += 1
        forwarding.traffic.to_remote_octets += octets

    def _count_to_client(self, forwarding: Forwarding, octets: int) -> None:
        self._counters.sent_inside += 1
        forwarding.traffic.to_client_datagrams += 1
        forwarding.traffic.to_client_octets += octets

    def _drop(self, forwarding: Forwarding, reason: DropReason) -> None:
        self._counters.drops[reason] += 1
        forwarding.traffic.dropped_datagrams += 1


def nobody_gets(group: Group) -> DropReason:
    """Why a datagram that came from a group goes to nobody."""
    return DropReason.OTHER_WORKER if group.listeners else DropReason.UNWANTED_SOURCE
