"""What a program wants of an association, as flags, TTL and options of a UDP BIND."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_address

from mcastsocks.wire.control import BOTH_DIRECTIONS, Flags
from mcastsocks.wire.options import Option, OptionType, sources


class Mode(StrEnum):
    """How a group travels between relay and client (mcast §5.1)."""

    MU = "mu"
    MM = "mm"


_FLAG = {None: Flags.NONE, Mode.MU: Flags.MU_MODE, Mode.MM: Flags.MM_MODE}
_MODES = Flags.MU_MODE | Flags.MM_MODE


@dataclass(frozen=True, slots=True)
class Terms:
    """FLAGS, RSVD and options of a BIND."""

    flags: int
    ttl: int = 0
    options: tuple[Option, ...] = ()

    @property
    def is_encapsulated(self) -> bool:
        return bool(self.flags & Flags.TCP_ENCAPSULATED)

    @property
    def is_group(self) -> bool:
        return bool(self.flags & Flags.UDP_MULTICAST)

    @property
    def mode(self) -> Mode | None:
        """The one preferred; of an association the one it has, None for unicast."""
        if self.flags & Flags.MM_MODE:
            return Mode.MM
        is_mu = bool(self.flags & Flags.MU_MODE) or (self.is_group and self.is_encapsulated)
        return Mode.MU if is_mu else None

    @property
    def may_report_sources(self) -> bool:
        """Whether REPORT-SOURCE asks for nothing that these terms exclude: there is no room for it in MM-mode."""
        return bool(self.flags & Flags.RECEIVE_FROM) and not self.flags & Flags.MM_MODE

    @property
    def needs_mu(self) -> bool:
        """What MM-mode cannot do was asked for."""
        return self.is_encapsulated or bool(self.options)

    def in_mode(self, granted: int) -> Terms:
        """With the mode that a relay granted; MU where it does not say."""
        if not self.is_group or (self.is_encapsulated and not granted & Flags.MM_MODE):
            return self
        mode = Flags.MM_MODE if granted & Flags.MM_MODE else Flags.MU_MODE
        return replace(self, flags=self.flags & ~_MODES | mode)

    def with_directions(self, added: int, ttl: int) -> Terms:
        """What adds directions: the rest of what is held stays as it is. Raises ValueError for a TTL that is none."""
        ttl = hops(ttl) if self.is_group and added & Flags.SEND_TO else 0
        flags = self.flags & ~BOTH_DIRECTIONS | added
        if not added & Flags.RECEIVE_FROM:
            return Terms(flags & ~Flags.REPORT_SOURCE, ttl)
        return Terms(flags, ttl, self.options)

    def with_sources(self, including: Sequence[str], excluding: Sequence[str]) -> Terms:
        """Another source filter for a group that is received. Raises ValueError."""
        flags = self.flags & ~BOTH_DIRECTIONS | Flags.RECEIVE_FROM
        return Terms(flags, 0, source_options(including, excluding))

    def merged(self, granted: Terms) -> Terms:
        """After a further BIND was granted."""
        ttl = granted.ttl if granted.flags & Flags.SEND_TO else self.ttl
        options = granted.options if granted.flags & Flags.RECEIVE_FROM else self.options
        return Terms(self.flags | granted.flags, ttl, options)

    def without_directions(self, given_up: int) -> Terms:
        return replace(self, flags=self.flags & ~given_up)


def directions(receive: bool, send: bool) -> int:
    return (Flags.RECEIVE_FROM if receive else Flags.NONE) | (Flags.SEND_TO if send else Flags.NONE)


def unicast(receive: bool, send: bool, *, over_tcp: bool) -> Terms:
    return Terms(directions(receive, send) | (Flags.TCP_ENCAPSULATED if over_tcp else Flags.UDP_UNICAST))


def receiving(including: Sequence[str], excluding: Sequence[str], *, over_tcp: bool, mode: str | None) -> Terms:
    """A group. Raises ValueError for sources that are none, and for MM-mode with what needs MU."""
    options = source_options(including, excluding)
    return Terms(Flags.RECEIVE_FROM | _group(over_tcp, mode, bool(options)), 0, options)


def sending(ttl: int, *, over_tcp: bool, mode: str | None) -> Terms:
    """To a group. Raises ValueError for a TTL that is none, and for MM-mode with what needs MU."""
    return Terms(Flags.SEND_TO | _group(over_tcp, mode), hops(ttl))


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


def _group(over_tcp: bool, mode: str | None, filters: bool = False) -> int:
    """Source filters are a wish for MU-mode by themselves, and so are datagrams inside the channel."""
    if mode is not None and mode not in tuple(Mode):
        raise ValueError(f"expected mode {' or '.join(Mode)}, not {mode!r}")
    preferred = Mode(mode) if mode is not None else None
    if preferred is Mode.MM and (over_tcp or filters):
        raise ValueError(f"in MM-mode there are no {'datagrams inside the control channel' if over_tcp else 'sources'}")
    if over_tcp:
        return Flags.UDP_MULTICAST | Flags.TCP_ENCAPSULATED
    return Flags.UDP_MULTICAST | _FLAG[Mode.MU if filters else preferred]
