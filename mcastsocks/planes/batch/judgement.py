"""Why clients' datagrams that are not ordinary are dropped, many at once; at the rest the scalar path looks again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch.layouts import Ints
from mcastsocks.planes.batch.receiver import Batch, aids_of, frag_bits
from mcastsocks.planes.batch.rows import Rows
from mcastsocks.planes.batch.sockaddrs import PORT_MASK
from mcastsocks.planes.counters import Counters, DropReason
from mcastsocks.wire.datagram import HEADER_OCTETS

LOOK_AGAIN, _RUNT, _UNKNOWN_AID, _WRONG_PORT, _WRONG_ADDRESS = range(5)
_REASONS = {
    _RUNT: DropReason.RUNT,
    _UNKNOWN_AID: DropReason.UNKNOWN_AID,
    _WRONG_PORT: DropReason.WRONG_PORT,
    _WRONG_ADDRESS: DropReason.WRONG_ADDRESS,
}

Reasons = NDArray[np.int8]


def judge(table: Rows, version: int, batch: Batch, rows: Ints) -> Reasons:
    """A number for each datagram, without meaning for the ordinary ones.

    Another source than the association's is told only where nothing else is unusual.
    """
    reasons: Reasons = np.zeros(len(batch), np.int8)
    plain = table.to_remote[rows] & (frag_bits(batch.headers) == 0)
    expected = table.clients[version].words[rows]
    there, source = expected[:, 0], batch.sources[:, 0]
    same_host = (there & ~PORT_MASK) == (source & ~PORT_MASK)
    for word in range(1, expected.shape[1]):
        same_host &= expected[:, word] == batch.sources[:, word]
    reasons[plain & ~same_host] = _WRONG_ADDRESS
    reasons[plain & same_host & (there != source)] = _WRONG_PORT
    # In a crowded table the row may be another's, and the datagram somebody's all the same.
    reasons[table.aids[rows] != aids_of(batch.headers)] = LOOK_AGAIN if table.is_crowded else _UNKNOWN_AID
    reasons[batch.octets < HEADER_OCTETS] = _RUNT
    return reasons


def count_drops(table: Rows, counters: Counters, rows: Ints, reasons: Reasons, which: NDArray[np.bool_]) -> None:
    """Those of `which`, in all and for the associations that they name."""
    for number, count in enumerate(np.bincount(reasons[which]).tolist()):
        if count:
            counters.drops[_REASONS[number]] += count
    table.count_dropped(rows[which & (reasons >= _WRONG_PORT)])
