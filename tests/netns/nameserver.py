"""A name server in the outside namespace, whose answers a test decides and delays."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from scapy.layers.dns import DNS, DNSRR

from tests.netns.lab import Host

_NXDOMAIN = 3
_QUERY_TYPES = {4: 1, 6: 28}  # A, AAAA


class Nameserver:
    """Answers on UDP 53. What it is asked of a held name waits until that is released; unknown names do not exist."""

    def __init__(self, host: Host, address: str, names: Mapping[str, Sequence[str]]) -> None:
        self._names = dict(names)
        self._held: dict[str, list[tuple[DNS, tuple[str, int]]]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.asked: list[str] = []
        self._sock = host.udp(address, 53)
        self._sock.settimeout(0.1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._sock.close()

    def __enter__(self) -> Nameserver:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def hold(self, name: str) -> None:
        with self._lock:
            self._held[name] = []

    def release(self, name: str) -> None:
        with self._lock:
            for query, client in self._held.pop(name):
                self._answer(query, client)

    def _serve(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                octets, client = self._sock.recvfrom(2048)
                self._take(DNS(octets), client)

    def _take(self, query: DNS, client: tuple[str, int]) -> None:
        with self._lock:
            name = _name_in(query)
            self.asked.append(name)
            if name in self._held:
                self._held[name].append((query, client))
            else:
                self._answer(query, client)

    def _answer(self, query: DNS, client: tuple[str, int]) -> None:
        name, kind = _name_in(query), query.qd[0].qtype
        known = name in self._names
        records = [
            DNSRR(rrname=query.qd[0].qname, type=kind, ttl=0, rdata=address)
            for address in self._names.get(name, ())
            if _QUERY_TYPES[6 if ":" in address else 4] == kind
        ]
        answer = DNS(id=query.id, qr=1, aa=1, rd=1, ra=1, rcode=0 if known else _NXDOMAIN, qd=query.qd, an=records)
        with suppress(OSError):
            self._sock.sendto(bytes(answer), client)


def _name_in(query: DNS) -> str:
    return bytes(query.qd[0].qname).decode().rstrip(".").lower()
