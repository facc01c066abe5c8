"""Datagrams to many destinations, sent by the batch; what they carry is never copied."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mcastsocks.planes.batch.delivery import Delivery, Outcomes
from mcastsocks.planes.batch.iovecs import Headed, Heads, Iovecs, Pointed
from mcastsocks.planes.batch.layouts import MMSGHDR, Ints, Words, address_of, allocate
from mcastsocks.planes.batch.runs import RunLimits, Runs, find_runs
from mcastsocks.planes.batch.sent_control import SentControl
from mcastsocks.planes.batch.sockaddrs import Destinations
from mcastsocks.wire.datagram import HEADER_OCTETS, UDP_PAYLOAD_OCTETS


@dataclass(slots=True, eq=False)
class Outgoing:
    """Datagrams to send: an element for each.

    `to` is an index into the sender's destinations, `addresses` and `octets` are the payload, `headers` what goes
    before it: eight octets as they stand in memory, or any that stand somewhere. A TTL of zero is the socket's own.
    """

    to: Ints
    addresses: Ints
    octets: Ints
    headers: Words | Heads | None = None
    ttls: Ints | None = None
    traffic_classes: Ints | None = None

    def __len__(self) -> int:
        return len(self.to)

    def part(self, part: slice | Ints) -> Outgoing:
        headers = self.headers
        if headers is not None:
            headers = headers.part(part) if isinstance(headers, Heads) else headers[part]
        return Outgoing(
            self.to[part],
            self.addresses[part],
            self.octets[part],
            headers,
            None if self.ttls is None else self.ttls[part],
            None if self.traffic_classes is None else self.traffic_classes[part],
        )

    def sizes(self) -> Ints:
        """Octets of each, header included."""
        if self.headers is None:
            return self.octets
        return self.octets + (self.headers.octets if isinstance(self.headers, Heads) else HEADER_OCTETS)

    def alike(self) -> tuple[Ints, ...]:
        """What the datagrams of a run have in common, besides their size."""
        return tuple(each for each in (self.to, self.ttls, self.traffic_classes) if each is not None)


class Sender:
    """Memory for `most` datagrams at a time, some 300 octets each with a header; more are sent in turns.

    `segments` is how many of them the kernel takes in one piece, by planes.batch.offload; 1 for none.
    """

    def __init__(self, destinations: Destinations, segments: int = 1, most: int = 1024) -> None:
        self.destinations = destinations
        self.limits = RunLimits(segments, UDP_PAYLOAD_OCTETS[destinations.version])
        self._most = most
        self._delivery = Delivery()
        self._control = SentControl(destinations.version, most)
        self._messages = allocate(most, MMSGHDR)
        self._messages["name_octets"] = destinations.name_octets
        self._messages_at = address_of(self._messages)

    @cached_property
    def _plain(self) -> Iovecs:
        return Iovecs(self._most, self.destinations.name_octets, headed=False)

    @cached_property
    def _headed(self) -> Headed:
        return Headed(self._most, self.destinations.name_octets)

    @cached_property
    def _pointed(self) -> Pointed:
        return Pointed(self._most, self.destinations.name_octets)

    def send(self, fd: int, outgoing: Outgoing) -> Outcomes:
        """From one descriptor, in order; what became of each datagram."""
        outcomes = np.zeros(len(outgoing), np.int32)
        if len(outgoing) <= self._most:
            self._send(fd, outgoing, outcomes)
            return outcomes
        for start in range(0, len(outgoing), self._most):
            stop = start + self._most
            self._send(fd, outgoing.part(slice(start, stop)), outcomes[start:stop])
        return outcomes

    def _send(self, fd: int, outgoing: Outgoing, outcomes: Outcomes) -> None:
        iovecs, done = self._iovecs_with(outgoing.headers), 0
        iovecs.write(outgoing.addresses, outgoing.octets)
        while done < len(outgoing):  # again after the kernel refused a run and that was noted
            done = self._send_from(done, fd, outgoing, outcomes, iovecs)

    def _iovecs_with(self, headers: Words | Heads | None) -> Iovecs:
        if headers is None:
            return self._plain
        if isinstance(headers, Heads):
            self._pointed.write_heads(headers)
            return self._pointed
        self._headed.write_headers(headers)
        return self._headed

    def _send_from(self, done: int, fd: int, outgoing: Outgoing, outcomes: Outcomes, iovecs: Iovecs) -> int:
        """Send what is behind the first `done`; how many are done then."""
        if done:
            outgoing, outcomes = outgoing.part(slice(done, None)), outcomes[done:]
        controlled = outgoing.ttls is not None or outgoing.traffic_classes is not None
        if not controlled and (self.limits.segments == 1 or not _has_neighbours(outgoing.to)):
            return done + self._push_singles(done, fd, outgoing, outcomes, iovecs)
        sizes = outgoing.sizes()
        runs = find_runs(outgoing.alike(), sizes, self.destinations.largest_segment[outgoing.to], self.limits)
        if not controlled and len(runs.first) == len(outgoing):
            return done + self._push_singles(done, fd, outgoing, outcomes, iovecs)
        self._write(runs, outgoing, sizes, iovecs.addresses[done:], iovecs.each)
        return done + self._push_runs(fd, runs, outgoing, sizes, outcomes)

    def _push_singles(self, done: int, fd: int, outgoing: Outgoing, outcomes: Outcomes, iovecs: Iovecs) -> int:
        count = len(outgoing)
        iovecs.names[done : done + count] = self.destinations.addresses[outgoing.to]
        return self._delivery.push(fd, iovecs.singles + done * MMSGHDR.itemsize, outcomes)

    def _write(self, runs: Runs, outgoing: Outgoing, sizes: Ints, iovecs_at: Ints, iovecs_each: int) -> None:
        first, count = runs
        ttls, classes = outgoing.ttls, outgoing.traffic_classes
        control, control_octets = self._control.write(
            np.where(count > 1, sizes[first], 0),
            None if ttls is None else ttls[first],
            None if classes is None else classes[first],
        )
        messages = self._messages[: len(first)]
        messages["name"] = self.destinations.addresses[outgoing.to[first]]
        messages["iov"], messages["iovs"] = iovecs_at[first], count * iovecs_each
        messages["control"], messages["control_octets"] = control, control_octets

    def _push_runs(self, fd: int, runs: Runs, outgoing: Outgoing, sizes: Ints, outcomes: Outcomes) -> int:
        """How many datagrams are done with; what remains begins with a run that the kernel refused."""
        first, count = runs
        each = np.zeros(len(first), np.int32)
        pushed = self._delivery.push(fd, self._messages_at, each, count)
        if np.count_nonzero(each):
            ended = each[:pushed].repeat(count[:pushed])
            outcomes[: len(ended)] = ended
        if pushed == len(first):
            return len(outgoing)
        refused = int(first[pushed])
        self.destinations.note_refusal(int(outgoing.to[refused]), int(sizes[refused]), int(each[pushed]))
        return refused


def _has_neighbours(to: Ints) -> bool:
    """Whether there can be runs; looking for them costs three times as much."""
    return bool(np.count_nonzero(to[1:] == to[:-1]))
