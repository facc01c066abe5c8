"""One burst of datagrams to many receivers."""

from __future__ import annotations

import numpy as np

from mcastsocks.planes.batch.delivery import Delivery, Outcomes
from mcastsocks.planes.batch.layouts import IOVEC, MMSGHDR, Ints, Words, address_of, addresses_of, allocate
from mcastsocks.planes.batch.runs import find_runs
from mcastsocks.planes.batch.sender import Outgoing, Sender
from mcastsocks.planes.batch.sent_control import SentControl
from mcastsocks.wire.datagram import HEADER_OCTETS

_MOST_RECEIVERS = 256
_MOST_IOVECS = 16_384
"""256 KiB: what fits a core's own cache next to the payload."""


class FanOut:
    """Each receiver gets the burst behind a header of its own, by one call for each run in it.

    Where there is none, and where the kernel refused one, `sender` sends the datagrams singly.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender, self._destinations = sender, sender.destinations
        self._delivery = Delivery()
        self._iovecs = allocate(_MOST_IOVECS, IOVEC)
        self._headers: Words = allocate(_MOST_RECEIVERS, np.uint64)
        self._headers_at = addresses_of(self._headers)
        self._control = SentControl(sender.destinations.version, _MOST_RECEIVERS)
        self._messages = allocate(_MOST_RECEIVERS, MMSGHDR)
        self._messages["name_octets"] = sender.destinations.name_octets

    def send(self, fd: int, to: Ints, headers: Words, addresses: Ints, octets: Ints) -> Outcomes:
        """Datagrams by `addresses` and `octets` to receivers by `to` and `headers`: outcomes[receiver, datagram]."""
        limits, sizes = self._sender.limits, octets + HEADER_OCTETS
        runs = find_runs((), sizes, np.full(len(sizes), limits.octets), limits)
        if len(runs.first) == len(octets):
            return self._send_singly(fd, to, headers, addresses, octets)
        outcomes = np.zeros((len(to), len(octets)), np.int32)
        for first, count in zip(runs.first.tolist(), runs.length.tolist(), strict=True):
            part = slice(first, first + count)
            self._send_run(fd, to, headers, addresses[part], octets[part], outcomes[:, part])
        return outcomes

    def _send_run(self, fd: int, to: Ints, headers: Words, addresses: Ints, octets: Ints, outcomes: Outcomes) -> None:
        size = int(octets[0]) + HEADER_OCTETS
        takes_runs = (self._destinations.largest_segment[to] >= size) & (len(octets) > 1)
        (singly,) = (~takes_runs).nonzero()
        if len(singly):
            outcomes[singly] = self._send_singly(fd, to[singly], headers[singly], addresses, octets)
        (at_once,) = takes_runs.nonzero()
        if not len(at_once):
            return
        turn = min(len(at_once), _MOST_RECEIVERS, _MOST_IOVECS // (2 * len(octets)))
        self._write_iovecs(turn, addresses, octets)
        for start in range(0, len(at_once), turn):
            chosen = at_once[start : start + turn]
            outcomes[chosen] = self._send_turn(fd, to[chosen], headers[chosen], addresses, octets)

    def _write_iovecs(self, receivers: int, addresses: Ints, octets: Ints) -> None:
        """Header and payload alternately, for each receiver of a turn; the next turn has other headers and names."""
        datagrams = len(octets)
        table = self._iovecs[: receivers * datagrams * 2].reshape(receivers, datagrams, 2)
        table["base"][:, :, 0], table["octets"][:, :, 0] = self._headers_at[:receivers, None], HEADER_OCTETS
        table["base"][:, :, 1], table["octets"][:, :, 1] = addresses, octets
        messages = self._messages[:receivers]
        sizes = np.full(receivers, octets[0] + HEADER_OCTETS)
        messages["iov"], messages["iovs"] = addresses_of(table), datagrams * 2
        messages["control"], messages["control_octets"] = self._control.write(sizes, None, None)

    def _send_turn(self, fd: int, to: Ints, headers: Words, addresses: Ints, octets: Ints) -> Outcomes:
        count = len(to)
        self._headers[:count] = headers
        self._messages["name"][:count] = self._destinations.addresses[to]
        each, datagrams = np.zeros(count, np.int32), np.full(count, len(octets))
        outcomes, done = np.zeros((count, len(octets)), np.int32), 0
        while done < count:
            messages = address_of(self._messages) + done * MMSGHDR.itemsize
            done += self._delivery.push(fd, messages, each[done:], datagrams[done:])
            if done < count:
                self._destinations.note_refusal(int(to[done]), int(octets[0]) + HEADER_OCTETS, int(each[done]))
                one = slice(done, done + 1)
                outcomes[done] = self._send_singly(fd, to[one], headers[one], addresses, octets)
                each[done] = 0
                done += 1
        outcomes |= each[:, None]
        return outcomes

    def _send_singly(self, fd: int, to: Ints, headers: Words, addresses: Ints, octets: Ints) -> Outcomes:
        receivers, datagrams = len(to), len(octets)
        outgoing = Outgoing(
            to.repeat(datagrams),
            np.tile(addresses, receivers),
            np.tile(octets, receivers),
            headers.repeat(datagrams),
        )
        return self._sender.send(fd, outgoing).reshape(receivers, datagrams)
