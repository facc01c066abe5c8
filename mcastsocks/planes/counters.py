"""What a plane counted, and why it dropped what it dropped."""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from mcastsocks.tables.reassembly import QueueEnd


class DropReason(StrEnum):
    """Why a datagram went no further."""

    RUNT = "runt"  # shorter than its header
    RESERVED_BITS = "reserved-bits"  # RSV
    BAD_FRAGMENT = "bad-fragment"  # FRAG X'80'; of a UDP ASSOCIATE any, where fragments are not taken
    BAD_ADDRESS = "bad-address"  # of a UDP ASSOCIATE's destination
    ENCAPSULATED = "encapsulated"  # its datagrams come over the control channel
    NOT_ENCAPSULATED = "not-encapsulated"  # and the reverse
    MULTICAST_MODE = "multicast-mode"  # in MM-mode there is no header
    UNKNOWN_AID = "unknown-aid"
    WRONG_ADDRESS = "wrong-address"  # not the client's
    WRONG_PORT = "wrong-port"
    NO_SEND_DIRECTION = "no-send-direction"
    NOT_ALLOWED = "not-allowed"  # by a rule, for the destination of one datagram (RFC 1928 §7)
    UNRESOLVED = "unresolved"  # the name of a destination
    NOT_WAITING = "not-waiting"  # too many wait for a name already
    UNEXPECTED_REMOTE = "unexpected-remote"  # no association waits for it
    IGNORED_SOURCE = "ignored-source"  # another relay on this border
    UNPERMITTED_SENDER = "unpermitted-sender"  # an inside host without a send direction, in MM-mode
    UNWANTED_SOURCE = "unwanted-source"  # no receiver of the group wants it
    ENDPOINT_UNKNOWN = "endpoint-unknown"  # the client has not shown its port yet
    OTHER_WORKER = "other-worker"  # another one does what has to happen once, in MM-mode
    OWN_DATAGRAM = "own-datagram"  # heard again by loopback of multicast
    NOT_RTP = "not-rtp"  # where the rule demands it
    TOO_LARGE = "too-large"
    BUFFER_FULL = "buffer-full"
    SLOW_CLIENT = "slow-client"  # does not read its control channel fast enough
    UNREACHABLE = "unreachable"
    SEND_FAILED = "send-failed"


_DROP_OF_ERRNO = {
    errno.EAGAIN: DropReason.BUFFER_FULL,
    errno.ENOBUFS: DropReason.BUFFER_FULL,
    errno.EMSGSIZE: DropReason.TOO_LARGE,
    errno.ENETUNREACH: DropReason.UNREACHABLE,
    errno.EHOSTUNREACH: DropReason.UNREACHABLE,
    errno.ENETDOWN: DropReason.UNREACHABLE,
    errno.EADDRNOTAVAIL: DropReason.UNREACHABLE,
}


def reason_of(error: OSError) -> DropReason:
    """Why the kernel did not take a datagram."""
    return _DROP_OF_ERRNO.get(error.errno or 0, DropReason.SEND_FAILED)


@dataclass(slots=True)
class Counters:
    """Datagrams of a plane since it started.

    Every one is accounted for: received_inside + received_outside + copied + reassembled == sent_inside +
    sent_outside + hellos + pieces + waiting + the sum of drops. `waiting` wait for a name to be resolved. `copied`
    counts the further copies that the receivers of a group got made; `pieces` are fragments that were taken in,
    `reassembled` what became of them. A datagram sent in fragments is one in sent_inside. `queues` says how the
    fragments' queues ended.

    Outside of this, as they are no datagrams or were never received: `errors` are ICMP errors about what was sent, and
    `overruns` what found a receive buffer full, by the kernel's own account.
    """

    received_inside: int = 0
    received_outside: int = 0
    copied: int = 0
    reassembled: int = 0
    sent_inside: int = 0
    sent_outside: int = 0
    hellos: int = 0
    pieces: int = 0
    waiting: int = 0
    drops: Counter[DropReason] = field(default_factory=Counter)
    queues: Counter[QueueEnd] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    overruns: int = 0

    @property
    def balance(self) -> int:
        """Datagrams that came in and are not accounted for: zero, or there is a defect."""
        came = self.received_inside + self.received_outside + self.copied + self.reassembled
        went = self.sent_inside + self.sent_outside + self.hellos + self.pieces + self.waiting
        return came - went - self.drops.total()

    def as_dict(self) -> dict[str, int]:
        """Flat, for a record: drops by reason as `drop.runt` and so on."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        drops = {f"drop.{reason}": count for reason, count in sorted(self.drops.items())}
        queues = {f"fragments.{end}": count for end, count in sorted(self.queues.items())}
        return plain | drops | queues | {f"icmp.{error}": count for error, count in sorted(self.errors.items())}


_PLAIN = (
    *("received_inside", "received_outside", "copied", "reassembled"),
    *("sent_inside", "sent_outside", "hellos", "pieces", "waiting", "overruns"),
)
