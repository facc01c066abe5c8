"""Bursts to the receivers of a group, whoever sent them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import numpy as np

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes.batch.fan import Fan, fan_of
from mcastsocks.planes.batch.layouts import Ints, octets_at
from mcastsocks.planes.batch.vector import VectorPaths
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.groups import Group
from mcastsocks.planes.interface import Outside, PlaneOptions
from mcastsocks.planes.scalar import DATA

_SENDERS = 64
"""Of one group, whose receivers are remembered."""


class ToReceivers(VectorPaths):
    """Every receiver that admits the sender gets a copy; a burst is what one sender sent to one group."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outsides: Mapping[str, Outside], options: PlaneOptions) -> None:
        super().__init__(loop, outsides, options)
        self._fans: dict[tuple[str, Endpoint], dict[str, Fan]] = {}

    def _forget_fans(self, via: str, group: Endpoint) -> None:
        """Its receivers have changed, or what one of them gets."""
        self._fans.pop((via, group), None)

    def _copy_burst(self, sender: Forwarding, addresses: Ints, octets: Ints, classes: Ints | None) -> None:
        """What a client sends to a group goes to the group's other receivers too (mcast §5.1)."""
        group = self._groups.get((sender.terms.via, sender.entry.remote))
        if group is None:
            return
        source = sender.seen_as
        others = [each for each in group.receivers if not each.is_same_client(sender) and each.admits(source[0])]
        goes_inside = group.goes_inside(source)
        self._counters.copied += (len(others) + goes_inside) * len(octets)
        self._fan_out(group, fan_of(others, self._table), addresses, octets, classes, source, goes_inside)

    def _fan_of(self, group: Group, host: str) -> Fan:
        """Who receives the group from a sender; made anew when that changes."""
        fans = self._fans.setdefault(group.name, {})
        if host not in fans:
            if len(fans) >= _SENDERS:
                fans.clear()
            fans[host] = fan_of((each for each in group.receivers if each.admits(host)), self._table)
        return fans[host]

    def _fan_out(
        self,
        group: Group,
        fan: Fan,
        addresses: Ints,
        octets: Ints,
        classes: Ints | None,
        source: SockAddr,
        goes_inside: bool,
    ) -> None:
        """A burst to all of a fan, and inside for those who listen there."""
        slow = fan.slow
        if np.count_nonzero(octets > self._largest):
            slow, shares = fan.everybody(self._forwardings, self._table), []
        else:
            shares = fan.shares
        classes = classes if classes is not None and np.count_nonzero(classes) else None
        for share in shares:
            self._to_clients[share.version].copy(share, addresses, octets, classes)
        if slow or goes_inside:
            self._copy_one_by_one(group, slow, addresses, octets, classes, source, goes_inside)

    def _copy_one_by_one(
        self,
        group: Group,
        slow: list[Forwarding],
        addresses: Ints,
        octets: Ints,
        classes: Ints | None,
        source: SockAddr,
        goes_inside: bool,
    ) -> None:
        """By the scalar path: to each of `slow`, and inside."""
        marks = classes.tolist() if classes is not None else [0] * len(octets)
        for address, size, tos in zip(addresses.tolist(), octets.tolist(), marks, strict=True):
            self._view[DATA : DATA + size] = octets_at(address, size)
            for receiver in slow:
                self._to_client(receiver, size, source, tos)
            if goes_inside:
                self._multicast_inside(group, size, tos)
