"""Control messages of datagrams that are sent: segment size, TTL, traffic class."""

from __future__ import annotations

import socket

import numpy as np

from mcastsocks.planes.batch.layouts import CMSG, CMSG_HEADER_OCTETS, Ints, addresses_of, allocate
from mcastsocks.planes.batch.offload import UDP_SEGMENT

_TTL = {4: (socket.IPPROTO_IP, socket.IP_TTL), 6: (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)}
_CLASS = {4: (socket.IPPROTO_IP, socket.IP_TOS), 6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}
_SIZE_OCTETS, _INT_OCTETS = 2, 4


class SentControl:
    """Three slots for each of `messages`: TTL, segment size, traffic class.

    In this order, because what a message does not have is left out at either end. A traffic class needs the segment
    size before it, where zero stands for no segments.
    """

    def __init__(self, version: int, messages: int) -> None:
        memory = allocate(messages * 3, CMSG).reshape(messages, 3)
        for slot, kind in enumerate((_TTL[version], (socket.IPPROTO_UDP, UDP_SEGMENT), _CLASS[version])):
            memory[:, slot]["level"], memory[:, slot]["kind"] = kind
            memory[:, slot]["octets"] = CMSG_HEADER_OCTETS + _INT_OCTETS
        memory[:, 1]["octets"] = CMSG_HEADER_OCTETS + _SIZE_OCTETS
        self._addresses = addresses_of(memory)
        self._ttls, self._sizes, self._classes = (memory["value"][:, slot] for slot in range(3))

    def write(self, sizes: Ints, ttls: Ints | None, classes: Ints | None) -> tuple[Ints, Ints]:
        """Address and octets of every message's control memory.

        A size of zero is no segments, a TTL of zero the socket's own; without `classes` the socket's own, too.
        """
        count = len(sizes)
        self._sizes[:count] = sizes
        has_size = (sizes > 0).astype(np.int64)
        if classes is not None:
            self._classes[:count] = classes
            has_size[:] = 1
        slots = has_size if classes is None else has_size + 1
        if ttls is None:
            return self._addresses[:count] + CMSG.itemsize, slots * CMSG.itemsize
        self._ttls[:count] = ttls
        has_ttl = (ttls > 0).astype(np.int64)
        return self._addresses[:count] + (1 - has_ttl) * CMSG.itemsize, (slots + has_ttl) * CMSG.itemsize
