"""What is unusual about a client's datagram, judged one at a time; the same for every plane."""

from __future__ import annotations

from enum import Enum, auto

from mcastsocks.address import SockAddr
from mcastsocks.planes.counters import DropReason
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.wire.datagram import HEADER_OCTETS, LAST_FRAGMENT


class Course(Enum):
    """What becomes of a datagram that is not dropped."""

    RELAY = auto()
    HELLO = auto()
    """A bare header on a receive-only association: it shows the client's port and is relayed nowhere."""
    REASSEMBLE = auto()


def judge(forwarding: Forwarding, rsv: int, frag: int, source: SockAddr, octets: int) -> DropReason | Course:
    """What to do with a datagram of `octets` octets, header included.

    An endpoint with port zero is learnt from the first datagram that comes from the client's address, and pinned.
    """
    expected = forwarding.client or forwarding.entry.client
    if forwarding.entry.mm:
        return DropReason.MULTICAST_MODE
    if expected is None:
        return DropReason.ENCAPSULATED
    if rsv:
        return DropReason.RESERVED_BITS
    if frag == LAST_FRAGMENT:
        return DropReason.BAD_FRAGMENT
    if source[0] != expected[0] or source[2:] != expected[2:]:
        return DropReason.WRONG_ADDRESS
    if source[1] == 0:
        return DropReason.WRONG_PORT  # nobody can be answered there
    if forwarding.client is None:
        forwarding.client = source
    elif source[1] != expected[1]:
        return DropReason.WRONG_PORT
    if forwarding.sends:
        return Course.REASSEMBLE if frag else Course.RELAY
    return Course.HELLO if octets == HEADER_OCTETS else DropReason.NO_SEND_DIRECTION
