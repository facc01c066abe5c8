"""Both ends of the streams, in processes of their own and copying nothing, so that the relay is what is measured."""

from __future__ import annotations

import multiprocessing
import os
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

_FILE_OCTETS = 1 << 24
_TAKE_OCTETS = 1 << 22
_ASK = struct.Struct("!Q")  # how many octets the client wants of the source


@contextmanager
def source(cpu: int) -> Iterator[int]:
    """A server that sends every client as many octets as it asks for, by sendfile, and closes; its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(listener, cpu), daemon=True)
    process.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        process.kill()
        process.join()


def _serve(listener: socket.socket, cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    file = os.memfd_create("octets")
    os.write(file, os.urandom(_FILE_OCTETS))
    while True:
        client, _ = listener.accept()
        with client:
            if asked := client.recv(_ASK.size):
                _send(client, file, _ASK.unpack(asked)[0])


def _send(client: socket.socket, file: int, octets: int) -> None:
    offset = 0
    while octets:
        sent = os.sendfile(client.fileno(), file, offset, min(octets, _FILE_OCTETS - offset))
        octets, offset = octets - sent, (offset + sent) % _FILE_OCTETS


def connect(relay: int | None, target: int) -> socket.socket:
    """Through a relay's port (RFC 1928 §3, §4), or directly."""
    sock = socket.create_connection(("127.0.0.1", relay or target))
    if relay is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"\x05\x01\x00")
        sock.recv(2)
        sock.sendall(b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + struct.pack("!H", target))
        if (reply := sock.recv(10))[1:2] != b"\x00":
            raise RuntimeError(f"the relay says {reply.hex()}")
    return sock


def fetch(relay: int | None, target: int, octets: int) -> float:
    """Take so many octets from the source and drop them in the kernel; the seconds that took."""
    with connect(relay, target) as sock:
        nothing = bytearray(_TAKE_OCTETS)
        begun, left = time.perf_counter(), octets
        sock.sendall(_ASK.pack(octets))
        while got := sock.recv_into(nothing, _TAKE_OCTETS, socket.MSG_TRUNC):
            left -= got
        if left:
            raise RuntimeError(f"{left} of {octets} octets did not arrive")
        return time.perf_counter() - begun


def knock(relay: int | None, target: int, connections: int, clients: int) -> float:
    """Open and close so many connections from several client processes, an octet each way; the seconds that took."""
    each = connections // clients
    with ProcessPoolExecutor(clients, multiprocessing.get_context("fork")) as pool:
        list(pool.map(int, range(clients)))  # they are there
        begun = time.perf_counter()
        list(pool.map(_knock, [(relay, target, each)] * clients))
        return time.perf_counter() - begun


def _knock(how: tuple[int | None, int, int]) -> None:
    relay, target, connections = how
    for _ in range(connections):
        with connect(relay, target) as sock:
            sock.sendall(_ASK.pack(1))
            while sock.recv(2):
                pass
