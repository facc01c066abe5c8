"""A name server of one answer (RFC 1035)."""

from __future__ import annotations

import socketserver
import struct
from ipaddress import ip_address

QUESTION, ADDRESS = "www.example.org", "192.0.2.77"

_HEADER = struct.Struct("!HHHHHH")
_RESPONSE = 0x8580  # a response, authoritative, recursion desired and available
_A_RECORD = struct.Struct("!HHHIH4s")
_POINTER_TO_QUESTION, _TYPE_A, _CLASS_IN, _TTL_S = 0xC00C, 1, 1, 60


def answer(query: bytes) -> bytes:
    """One A record, whatever the question."""
    number, *_ = _HEADER.unpack_from(query)
    question_end = query.index(b"\0", _HEADER.size) + 5
    record = _A_RECORD.pack(_POINTER_TO_QUESTION, _TYPE_A, _CLASS_IN, _TTL_S, 4, ip_address(ADDRESS).packed)
    return _HEADER.pack(number, _RESPONSE, 1, 1, 0, 0) + query[_HEADER.size : question_end] + record


class Names(socketserver.DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(answer(self.rfile.read()))
