"""What a program wants of an association, as flags, TTL and options of a UDP BIND."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from mcastsocks.wire.control import BOTH_DIRECTIONS, Flags
from mcastsocks.wire.options import Option, OptionType, sources


@dataclass(frozen=True, slots=True)
class Terms:
    """FLAGS, RSVD and options of a BIND."""

    flags: Flags
    ttl: int = 0
    options: tuple[Option, ...] = ()

    @property
    def is_encapsulated(self) -> bool:
        return Flags.TCP_ENCAPSULATED in self.flags

    @property
    def is_group(self) -> bool:
        return Flags.UDP_MULTICAST in self.flags

    def with_directions(self, added: Flags, ttl: int) -> Terms:
        """What adds directions: the rest of what is held stays as it is. Raises ValueError for a TTL that is none."""
        ttl = hops(ttl) if self.is_group and Flags.SEND_TO in added else 0
        flags = self.flags & ~BOTH_DIRECTIONS | added
        if Flags.RECEIVE_FROM not in added:
            return Terms(flags & ~Flags.REPORT_SOURCE, ttl)
        return Terms(flags, ttl, self.options)

    def with_sources(self, including: Sequence[str], excluding: Sequence[str]) -> Terms:
        """Another source filter for a group that is received. Raises ValueError."""
        flags = self.flags & ~BOTH_DIRECTIONS | Flags.RECEIVE_FROM
        return Terms(flags, 0, source_options(including, excluding))

    def merged(self, granted: Terms) -> Terms:
        """After a further BIND was granted."""
        ttl = granted.ttl if Flags.SEND_TO in granted.flags else self.ttl
        options = granted.options if Flags.RECEIVE_FROM in granted.flags else self.options
        return Terms(self.flags | granted.flags, ttl, options)

    def without_directions(self, given_up: Flags) -> Terms:
        return replace(self, flags=self.flags & ~given_up)


def directions(receive: bool, send: bool) -> Flags:
    return (Flags.RECEIVE_FROM if receive else Flags.NONE) | (Flags.SEND_TO if send else Flags.NONE)


def unicast(receive: bool, send: bool, *, over_tcp: bool) -> Terms:
    return Terms(directions(receive, send) | (Flags.TCP_ENCAPSULATED if over_tcp else Flags.UDP_UNICAST))


def receiving(including: Sequence[str], excluding: Sequence[str], *, over_tcp: bool) -> Terms:
    """A group in MU-mode. Raises ValueError for sources that are none."""
    return Terms(Flags.RECEIVE_FROM | _group(over_tcp), 0, source_options(including, excluding))


def sending(ttl: int, *, over_tcp: bool) -> Terms:
    """To a group in MU-mode. Raises ValueError for a TTL that is none."""
    return Terms(Flags.SEND_TO | _group(over_tcp), hops(ttl))


def hops(ttl: int) -> int:
    """A TTL, if it is one. Raises ValueError."""
    if not 1 <= ttl <= 255:
        raise ValueError(f"expected a TTL from 1 to 255, not {ttl}")
    return ttl


def source_options(including: Sequence[str], excluding: Sequence[str]) -> tuple[Option, ...]:
    """SOURCE-INCLUDE or SOURCE-EXCLUDE; nothing for any source."""
    if including and excluding:
        raise ValueError("sources are either included or excluded")
    if not including and not excluding:
        return ()
    kind = OptionType.SOURCE_INCLUDE if including else OptionType.SOURCE_EXCLUDE
    return (sources(kind, [ip_address(source) for source in including or excluding]),)


def _group(over_tcp: bool) -> Flags:
    return Flags.UDP_MULTICAST | (Flags.TCP_ENCAPSULATED if over_tcp else Flags.MU_MODE)
