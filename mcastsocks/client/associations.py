"""The associations of one control channel, and the way that each one's datagrams take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcastsocks.address import Endpoint
from mcastsocks.client.association import Association
from mcastsocks.client.channel import ControlChannel
from mcastsocks.client.endpoint import ClientEndpoint, split_source
from mcastsocks.client.hellos import Hellos
from mcastsocks.client.paths import ChannelPath, GroupPath, Path, PlainPath, UdpPath
from mcastsocks.client.terms import Mode, Terms
from mcastsocks.errors import RelayError
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, Encapsulated, Flags

if TYPE_CHECKING:
    from mcastsocks.client.relay import Relay


class Associations:
    """By AID. What comes in for one that is not here any more is dropped."""

    def __init__(
        self, relay: Relay, channel: ControlChannel, endpoint: ClientEndpoint, fragment_above: int | None
    ) -> None:
        self._relay, self._channel, self._endpoint = relay, channel, endpoint
        self._fragment_above = fragment_above
        self._by_aid: dict[int, Association] = {}
        self._hellos = Hellos()

    def open(self, reply: ControlReply, local: Endpoint | None, remote: Endpoint, wanted: Terms) -> Association:
        """What a BIND was granted. Raises RelayError when that is not what was asked for, or our own kernel refuses."""
        if not reply.aid or reply.aid in self._by_aid:
            raise RelayError(f"{self._channel.url} granted {remote} without an association id of its own")
        terms = wanted.in_mode(reply.flags)
        try:
            path = self._path(reply, remote, terms)
            association = Association(self._relay, reply, local, remote, terms, path)
            association.prepare(terms)
        except RelayError:
            self._channel.give_up(reply.aid, wanted.flags & BOTH_DIRECTIONS)
            raise
        self._add(association, path)
        return association

    def forget(self, association: Association) -> None:
        self._by_aid.pop(association.aid, None)
        self._endpoint.remove(association)
        self._hellos.stop(association.aid)

    def deliver(self, frame: Encapsulated) -> None:
        """What came inside the control channel. Raises WireError."""
        association = self._by_aid.get(frame.aid)
        if association is not None and association.reports_source:
            association.deliver(*split_source(frame.data))
        elif association is not None:
            association.deliver(frame.data)

    def end(self, error: RelayError) -> None:
        for association in list(self._by_aid.values()):
            association.end(error)

    def _add(self, association: Association, path: Path) -> None:
        self._by_aid[association.aid] = association
        if isinstance(path, UdpPath | PlainPath):
            self._endpoint.add(association, path.peer, plain=isinstance(path, PlainPath))
        is_unknown = association.local == self._endpoint.learnt
        if isinstance(path, UdpPath) and is_unknown and not association.directions & Flags.SEND_TO:
            self._hellos.start(association, path)

    def _path(self, reply: ControlReply, remote: Endpoint, terms: Terms) -> Path:
        if terms.mode is Mode.MM:
            return GroupPath(self._endpoint, self._group(reply, remote, terms))
        if terms.is_encapsulated:
            return ChannelPath(self._channel, reply.aid)
        if reply.local is None or reply.local.address.version != self._endpoint.local.address.version:
            raise RelayError(f"{self._channel.url} granted {remote} without saying where to send")
        relay = self._endpoint.sockaddr(reply.local)
        if reply.local == remote:  # mcast §4.3.1.2: the relay is no proxy
            return PlainPath(self._endpoint, relay)
        return UdpPath(self._endpoint, relay, reply.aid, self._fragment_above)

    def _group(self, reply: ControlReply, remote: Endpoint, terms: Terms) -> Endpoint:
        """The one to send to and to receive in MM-mode: that of the reply, which a name has been resolved to."""
        if terms.needs_mu:
            raise RelayError(f"{self._channel.url} granted {remote} in MM-mode, which cannot do what was asked for")
        group = reply.remote
        if group is None or not group.is_group or not _is_answer(group, remote):
            raise RelayError(f"{self._channel.url} granted {remote} in MM-mode without naming that group")
        if group.address.version != self._endpoint.local.address.version:
            raise RelayError(f"{self._channel.url} granted {remote} in MM-mode, which is of another family than we are")
        return group


def _is_answer(group: Endpoint, asked: Endpoint) -> bool:
    """The group asked for, or what its name may stand for."""
    return group == asked or (isinstance(asked.host, str) and group.port == asked.port)
