"""The plane that the others are compared with: one datagram at a time, nothing but Python's socket module."""

from __future__ import annotations

import socket
from functools import partial

from mcastsocks.planes import sockets
from mcastsocks.planes.doors import Door
from mcastsocks.planes.groups import Group, InsideGroup
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.planes.scalar import DATA, ScalarPaths
from mcastsocks.wire.datagram import HEADER_OCTETS


class PortablePlane(ScalarPaths):
    """See planes.interface.Plane."""

    name = "portable"

    def _drain_inside(self, sock: socket.socket) -> None:
        sockets.drain(sock, self._view[DATA - HEADER_OCTETS :], self._from_client)

    def _drain_outside(self, outside: OutsideSocket) -> None:
        sockets.drain(outside.sock, self._view[DATA:], partial(self._from_remote, outside))

    def _drain_door(self, door: Door) -> None:
        self._socks.drain_door(door)

    def _drain_group(self, group: Group, sock: socket.socket) -> None:
        sockets.drain(sock, self._view[DATA:], partial(self._from_group, group))

    def _drain_inside_group(self, group: InsideGroup, sock: socket.socket) -> None:
        sockets.drain(sock, self._view[DATA:], partial(self._from_inside_group, group))
