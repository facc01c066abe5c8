"""What comes from groups, by the batch: to all who receive them."""

from __future__ import annotations

import socket
from functools import partial

import numpy as np

from mcastsocks.address import SockAddr
from mcastsocks.planes.batch.layouts import same_words
from mcastsocks.planes.batch.receiver import Batch
from mcastsocks.planes.batch.singles import Single
from mcastsocks.planes.batch.sockaddrs import sockaddr_of
from mcastsocks.planes.batch.to_receivers import Burst, ToReceivers
from mcastsocks.planes.groups import Group, InsideGroup
from mcastsocks.planes.scalar import DATA, nobody_gets


class FromGroups(ToReceivers):
    """From outside to the receivers that admit the sender; in MM-mode from inside hosts, one datagram at a time."""

    def _drain_group(self, group: Group, sock: socket.socket) -> None:
        few, many = partial(self._from_few_of_group, group), partial(self._from_group_batch, group)
        self._drain(self._inlet(sock), few, many)

    def _from_few_of_group(self, group: Group, singles: list[Single]) -> None:
        for single in singles:
            self._from_group(group, *self._place_single(single, DATA))

    def _from_group_batch(self, group: Group, batch: Batch) -> None:
        """A group has one sender as a rule, and few at most."""
        left = np.ones(len(batch), np.bool_)
        while np.count_nonzero(left):
            source = batch.sources[left.argmax()]
            mine = same_words(batch.sources, source) & left
            left &= ~mine
            self._from_sender(group, batch.part(mine), sockaddr_of(source))

    def _from_sender(self, group: Group, batch: Batch, source: SockAddr) -> None:
        counters, count = self._counters, len(batch)
        counters.received_outside += count
        if (reason := self._flaw_of_source(group, source)) is not None:
            counters.drops[reason] += count
            return
        fan, goes_inside = self._fan_of(group, source[0]), group.goes_inside(source)
        if not fan.receivers and not goes_inside:
            counters.drops[nobody_gets(group)] += count
            return
        counters.copied += (fan.receivers + goes_inside - 1) * count
        self._fan_out(group, fan, Burst(batch.addresses, batch.octets, batch.traffic_classes, source, goes_inside))

    def _drain_inside_group(self, group: InsideGroup, sock: socket.socket) -> None:
        self._drain(self._inlet(sock), partial(self._from_few_inside, group), partial(self._from_inside_batch, group))

    def _from_few_inside(self, group: InsideGroup, singles: list[Single]) -> None:
        for single in singles:
            self._from_inside_group(group, *self._place_single(single, DATA))

    def _from_inside_batch(self, group: InsideGroup, batch: Batch) -> None:
        for index in range(len(batch)):
            self._from_inside_group(group, *self._place(batch, index, DATA))
