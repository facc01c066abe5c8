"""What is unusual about a client's datagram, judged one at a time; the same for every plane."""

from __future__ import annotations

from mcastsocks.address import SockAddr
from mcastsocks.planes.counters import DropReason
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.wire.datagram import HEADER_OCTETS, LAST_FRAGMENT


class Hello:
    """A bare header on a receive-only association: it shows the client's port and is relayed nowhere."""


HELLO = Hello()


def judge(forwarding: Forwarding, rsv: int, frag: int, source: SockAddr, octets: int) -> DropReason | Hello | None:
    """What to do with a datagram of `octets` octets, header included; None: relay it.

    An endpoint with port zero is learnt from the first datagram that comes from the client's address, and pinned.
    """
    if rsv:
        return DropReason.RESERVED_BITS
    if frag:
        return DropReason.BAD_FRAGMENT if frag == LAST_FRAGMENT else DropReason.FRAGMENT
    expected = forwarding.client or forwarding.entry.client
    if source[0] != expected[0] or source[2:] != expected[2:]:
        return DropReason.WRONG_ADDRESS
    if forwarding.client is None:
        forwarding.client = source
    elif source[1] != expected[1]:
        return DropReason.WRONG_PORT
    if forwarding.sends:
        return None
    return HELLO if octets == HEADER_OCTETS else DropReason.NO_SEND_DIRECTION
