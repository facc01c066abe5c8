"""Who gets copies of a group's datagrams, sorted by how they are sent."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mcastsocks.planes.batch.layouts import Ints, Words
from mcastsocks.planes.batch.rows import Rows
from mcastsocks.planes.batch.sockaddrs import version_of
from mcastsocks.planes.forwarding import Forwarding


@dataclass(slots=True, eq=False)
class Share:
    """Receivers that are sent to from one inside socket by the vector paths: their rows, and the headers of these."""

    sock: socket.socket
    version: int
    rows: Ints
    headers: Words


@dataclass(slots=True, eq=False)
class Fan:
    """`slow` are served one datagram at a time: their client is not known yet, or wants more than a header."""

    shares: list[Share]
    slow: list[Forwarding]

    @property
    def receivers(self) -> int:
        return len(self.slow) + sum(len(share.rows) for share in self.shares)

    def everybody(self, forwardings: Mapping[int, Forwarding], table: Rows) -> list[Forwarding]:
        """All of them, for what has to be done one at a time."""
        aids = [aid for share in self.shares for aid in table.aids[share.rows].tolist()]
        return self.slow + [forwardings[aid] for aid in aids]


def fan_of(receivers: Iterable[Forwarding], table: Rows) -> Fan:
    """Sort them: a share for each inside socket."""
    by_socket: dict[socket.socket, list[int]] = {}
    slow = []
    for forwarding in receivers:
        row = table.row_of(forwarding.entry.aid)
        if row is not None and table.to_client[row]:
            by_socket.setdefault(forwarding.inside, []).append(row)
        else:
            slow.append(forwarding)
    shares = []
    for sock, listed in by_socket.items():
        rows = np.array(listed, np.int64)
        shares.append(Share(sock, version_of(sock), rows, table.headers[rows]))
    return Fan(shares, slow)
