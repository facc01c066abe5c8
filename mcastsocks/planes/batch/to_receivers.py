"""Bursts to the receivers of a group, whoever sent them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

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


class Burst(NamedTuple):
    """What one sender sent to one group: addresses, octets and traffic classes of datagrams, and where they came from.

    With `goes_inside` this worker multicasts it inside as well.
    """

    addresses: Ints
    octets: Ints
    classes: Ints | None
    source: SockAddr
    goes_inside: bool


class ToReceivers(VectorPaths):
    """Every receiver that admits the sender gets a copy."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outsides: Mapping[str, Outside], options: PlaneOptions) -> None:
        super().__init__(loop, outsides, options)
        self._fans: dict[tuple[str, Endpoint], dict[str, Fan]] = {}

    def _forget_fans(self, via: str, group: Endpoint) -> None:
        """Its receivers have changed, or what one of them gets."""
        self._fans.pop((via, group), None)

    def _copy_to_others(self, sender: Forwarding, addresses: Ints, octets: Ints, classes: Ints | None) -> None:
        """What a client sends to a group goes to the group's other receivers too (mcast §5.1)."""
        group = self._groups.get((sender.terms.via, sender.entry.remote))
        if group is None:
            return
        source = sender.seen_as
        burst = Burst(addresses, octets, classes, source, group.goes_inside(source))
        others = [each for each in group.receivers if not each.is_same_client(sender) and each.admits(source[0])]
        self._counters.copied += (len(others) + burst.goes_inside) * len(octets)
        self._fan_out(group, fan_of(others, self._table), burst)

    def _fan_of(self, group: Group, host: str) -> Fan:
        """Who receives the group from a sender; made anew when that changes."""
        fans = self._fans.setdefault(group.name, {})
        if host not in fans:
            if len(fans) >= _SENDERS:
                fans.clear()
            fans[host] = fan_of((each for each in group.receivers if each.admits(host)), self._table)
        return fans[host]

    def _fan_out(self, group: Group, fan: Fan, burst: Burst) -> None:
        """To all of a fan, and inside for those who listen there."""
        slow, classes = fan.slow, burst.classes
        if np.count_nonzero(burst.octets > self._largest):
            slow, shares = fan.everybody(self._forwardings, self._table), []
        else:
            shares = fan.shares
        classes = classes if classes is not None and np.count_nonzero(classes) else None
        for share in shares:
            self._to_clients[share.version].copy(share, burst.addresses, burst.octets, classes)
        if slow or burst.goes_inside:
            self._copy_one_by_one(group, slow, burst)

    def _copy_one_by_one(self, group: Group, slow: list[Forwarding], burst: Burst) -> None:
        """By the scalar path: to each of `slow`, and inside."""
        marks = burst.classes.tolist() if burst.classes is not None else [0] * len(burst.octets)
        for address, size, tos in zip(burst.addresses.tolist(), burst.octets.tolist(), marks, strict=True):
            self._view[DATA : DATA + size] = octets_at(address, size)
            for receiver in slow:
                self._to_client(receiver, size, burst.source, tos)
            if burst.goes_inside:
                self._multicast_inside(group, size, tos)
