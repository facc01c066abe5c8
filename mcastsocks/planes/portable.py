"""The plane that the others are compared with: one datagram at a time, nothing but Python's socket module."""

from __future__ import annotations

import socket

from mcastsocks.planes import sockets
from mcastsocks.planes.doors import Door
from mcastsocks.planes.groups import Group, InsideGroup
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.planes.scalar import DATA, ScalarPaths
from mcastsocks.wire.datagram import HEADER_OCTETS

_BUDGET = 64
"""Datagrams taken from and given for one socket before the others, and the control channels, get their turn."""


class PortablePlane(ScalarPaths):
    """See planes.interface.Plane."""

    name = "portable"

    def _drain_inside(self, sock: socket.socket) -> None:
        view, budget = self._view[DATA - HEADER_OCTETS :], _BUDGET
        while budget > 0:
            try:
                octets, source, tos = sockets.receive_into(sock, view)
            except OSError:  # nothing more, or an error left over from a datagram that was sent
                return
            budget -= 1 + self._from_client(octets, source, tos)

    def _drain_outside(self, outside: OutsideSocket) -> None:
        view = self._view[DATA:]
        for _ in range(_BUDGET):
            try:
                octets, source, tos = sockets.receive_into(outside.sock, view)
            except OSError:
                return
            self._from_remote(outside, octets, source, tos)

    def _drain_door(self, door: Door) -> None:
        self._socks.drain_door(door)

    def _drain_group(self, group: Group, sock: socket.socket) -> None:
        view, budget = self._view[DATA:], _BUDGET
        while budget > 0:
            try:
                octets, source, tos = sockets.receive_into(sock, view)
            except OSError:
                return
            budget -= 1 + self._from_group(group, octets, source, tos)

    def _drain_inside_group(self, group: InsideGroup, sock: socket.socket) -> None:
        view, budget = self._view[DATA:], _BUDGET
        while budget > 0:
            try:
                octets, source, tos = sockets.receive_into(sock, view)
            except OSError:
                return
            budget -= 1 + self._from_inside_group(group, octets, source, tos)
