"""Sockets on loopback, and datagrams in memory that a sender can point at."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from mcastsocks.planes.batch import offload
from mcastsocks.planes.batch.layouts import Ints, Words
from mcastsocks.planes.batch.receiver import Batch, Receiver
from mcastsocks.planes.batch.sender import Outgoing, Sender
from mcastsocks.planes.batch.sockaddrs import Destinations

HOST = {4: "127.0.0.1", 6: "::1"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_PATIENCE_S = 5.0


@contextmanager
def udp_socket(version: int = 4, coalesced: bool = False) -> Iterator[socket.socket]:
    with socket.socket(FAMILY[version], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((HOST[version], 0))
        if coalesced:
            assert offload.receive_coalesced(sock)
        yield sock


def table(version: int, *sockets: socket.socket) -> Destinations:
    destinations = Destinations(version, len(sockets))
    for index, sock in enumerate(sockets):
        destinations.set(index, sock.getsockname())
    return destinations


def header_words(headers: Sequence[bytes]) -> Words:
    return np.frombuffer(b"".join(headers), np.uint64)


class Payloads:
    """Datagrams one behind the other in memory; it must live as long as they are sent."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self._memory = np.frombuffer(b"".join(payloads) + b"\0", np.uint8)
        self.octets: Ints = np.array([len(each) for each in payloads], np.int64)
        self.addresses: Ints = self._memory.ctypes.data + np.cumsum(self.octets) - self.octets

    def to(self, destinations: Sequence[int], headers: Sequence[bytes] | None = None) -> Outgoing:
        words = None if headers is None else header_words(headers)
        return Outgoing(np.array(destinations, np.int64), self.addresses, self.octets, words)


def numbered(sizes: Sequence[int]) -> list[bytes]:
    """Datagrams of given sizes that differ from each other as far as their sizes let them."""
    return [(index.to_bytes(4, "big") * (size // 4 + 1))[:size] for index, size in enumerate(sizes, 1)]


def received(sock: socket.socket, count: int) -> list[bytes]:
    """So many datagrams, as any program gets them; an assertion fails when they do not come."""
    return [_one(sock) for _ in range(count)]


def _one(sock: socket.socket) -> bytes:
    assert wait_for(sock), "nothing came"
    return sock.recv(1 << 16)


def wait_for(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(_PATIENCE_S * 1000))


def receive_all(receiver: Receiver, sock: socket.socket) -> Batch:
    """What one call gets once something is there."""
    assert wait_for(sock), "nothing came"
    assert receiver.receive(sock.fileno())
    return receiver.take()


def datagrams(batch: Batch) -> list[bytes]:
    return [bytes(batch.datagram(index)) for index in range(len(batch))]


def send_all(sender: Sender, sock: socket.socket, payloads: Sequence[bytes], to: int = 0) -> list[int]:
    """All of them to one destination; each one's outcome."""
    data = Payloads(payloads)
    return list(sender.send(sock.fileno(), data.to([to] * len(payloads))).tolist())
