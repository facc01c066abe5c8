"""The plane that Linux gets: datagrams by the batch, each system call for many of them."""

from __future__ import annotations

import socket
from functools import lru_cache

from mcastsocks.address import SockAddr
from mcastsocks.planes.batch.from_clients import FromClients
from mcastsocks.planes.batch.from_contacts import FromContacts
from mcastsocks.planes.batch.from_doors import FromDoors
from mcastsocks.planes.batch.from_groups import FromGroups
from mcastsocks.planes.batch.from_remotes import FromRemotes
from mcastsocks.planes.batch.sockaddrs import words_of
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.tables.changes import Traffic


class BatchPlane(FromClients, FromRemotes, FromGroups, FromDoors, FromContacts):
    """See planes.interface.Plane. Raises OSError or ImportError where the system has not what it needs.

    How datagrams move is in its bases; here, what the switchboard changes is written where they look it up.
    """

    name = "batch"

    def traffic(self, aid: int) -> Traffic | None:
        if (traffic := super().traffic(aid)) is not None:
            self._table.add_traffic(aid, traffic)
        return traffic

    def close(self) -> None:
        super().close()
        self._outlets.close()

    def _settle(self, forwarding: Forwarding, receives: bool, sends: bool) -> None:
        super()._settle(forwarding, receives, sends)
        self._refresh(forwarding, is_over=not (receives or sends))

    def _learnt(self, forwarding: Forwarding) -> None:
        self._refresh(forwarding, is_over=False)

    def _refresh(self, forwarding: Forwarding, is_over: bool) -> None:
        """Write the arrays as the entry is now."""
        entry, table = forwarding.entry, self._table
        outside = self._outlets.number(forwarding.outside.sock) if forwarding.outside is not None else 0
        if is_over:
            table.add_traffic(entry.aid, forwarding.traffic)
            table.clear(entry.aid)
        else:
            table.set(forwarding, outside, self._inside_number(forwarding.inside))
        forwarding.name = b"" if is_over else _name_of(forwarding)
        if forwarding.is_group:
            self._forget_fans(forwarding.terms.via, entry.remote)
        elif forwarding.outside is not None:
            first = forwarding.outside.remotes.exactly(forwarding.place)
            self._outlets.expect(outside, forwarding.remote, table.row_of(first))

    def _inside_number(self, sock: socket.socket) -> int:
        if sock not in self._insides:
            self._insides.append(sock)
        return self._insides.index(sock)

    def _outside_opened(self, outside: OutsideSocket) -> None:
        self._own.add(outside.sockaddr)
        self._overruns.opened(outside.sock)
        self._inlet(outside.sock)
        self._outlets.add(outside)

    def _outside_closing(self, outside: OutsideSocket) -> None:
        self._own.discard(outside.sockaddr)
        self._overruns.closing(outside.sock)
        self._inlets.pop(outside.sock.fileno(), None)
        for to_doors in self._to_doors.values():
            to_doors.close(self._outlets.number(outside.sock))
        self._outlets.remove(outside)

    def _unwatch(self, sock: socket.socket) -> None:
        self._inlets.pop(sock.fileno(), None)
        super()._unwatch(sock)


def _name_of(forwarding: Forwarding) -> bytes:
    """Where its client sends from, as the kernel writes it; empty where it takes more than to strip the header."""
    terms = forwarding.terms
    if forwarding.client is None or forwarding.outside is None or forwarding.is_group or not terms.sends:
        return b""
    return b"" if terms.send_dscp is not None or terms.sends_rtp else _as_written(forwarding.client)


@lru_cache(maxsize=16_384)
def _as_written(sockaddr: SockAddr) -> bytes:
    return words_of(sockaddr).tobytes()
