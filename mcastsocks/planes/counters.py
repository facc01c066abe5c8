"""What a plane counted, and why it dropped what it dropped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class DropReason(StrEnum):
    """Why a datagram went no further."""

    RUNT = "runt"  # shorter than its header
    RESERVED_BITS = "reserved-bits"  # RSV
    BAD_FRAGMENT = "bad-fragment"  # FRAG X'80'
    FRAGMENT = "fragment"  # reassembly is off
    UNKNOWN_AID = "unknown-aid"
    WRONG_ADDRESS = "wrong-address"  # not the client's
    WRONG_PORT = "wrong-port"
    NO_SEND_DIRECTION = "no-send-direction"
    UNEXPECTED_REMOTE = "unexpected-remote"  # no association waits for it
    NO_RECEIVER = "no-receiver"
    ENDPOINT_UNKNOWN = "endpoint-unknown"  # the client has not shown its port yet
    OWN_DATAGRAM = "own-datagram"  # heard again by loopback of multicast
    TOO_LARGE = "too-large"
    BUFFER_FULL = "buffer-full"
    UNREACHABLE = "unreachable"
    SEND_FAILED = "send-failed"


@dataclass(slots=True)
class Counters:
    """Datagrams of a plane since it started.

    Every one is accounted for: received_inside + received_outside + copied == sent_inside + sent_outside + hellos
    + the sum of drops. `copied` counts the further copies that the receivers of a group got made.
    """

    received_inside: int = 0
    received_outside: int = 0
    copied: int = 0
    sent_inside: int = 0
    sent_outside: int = 0
    hellos: int = 0
    drops: Counter[DropReason] = field(default_factory=Counter)

    @property
    def balance(self) -> int:
        """Datagrams that came in and are not accounted for: zero, or there is a defect."""
        came = self.received_inside + self.received_outside + self.copied
        return came - self.sent_inside - self.sent_outside - self.hellos - self.drops.total()

    def as_dict(self) -> dict[str, int]:
        """Flat, for a record: drops by reason as `drop.runt` and so on."""
        plain = {
            name: getattr(self, name)
            for name in ("received_inside", "received_outside", "copied", "sent_inside", "sent_outside", "hellos")
        }
        return plain | {f"drop.{reason}": count for reason, count in sorted(self.drops.items())}
