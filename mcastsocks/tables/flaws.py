"""What is wrong with a BIND by itself: flags, options, target and sources that cannot be meant together."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_network

from mcastsocks.address import IPAddress
from mcastsocks.tables.filters import ANY_SOURCE, SourceFilter
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlRequest, Flags
from mcastsocks.wire.options import OptionType, sources_of
from mcastsocks.wire.replies import ReplyCode

TRANSPORTS = Flags.UDP_UNICAST | Flags.TCP_ENCAPSULATED | Flags.UDP_MULTICAST
MODES = Flags.MU_MODE | Flags.MM_MODE
_SUPPORTED = BOTH_DIRECTIONS | TRANSPORTS | MODES | Flags.REPORT_SOURCE | Flags.EXTENDED
_FILTERS = {OptionType.SOURCE_INCLUDE: True, OptionType.SOURCE_EXCLUDE: False}
_SOURCE_SPECIFIC_V4 = ip_network("232.0.0.0/8")
_SOURCE_SPECIFIC_V6 = IPv6Network("ff30::/12")  # RFC 4607: ff3x::/32, whatever the scope x


def filter_of(request: ControlRequest) -> SourceFilter:
    for option in request.options:
        if (include := _FILTERS.get(OptionType(option.kind))) is not None:
            return SourceFilter(include, sources_of(option))
    return ANY_SOURCE


def flaw_of_flags(request: ControlRequest) -> str | None:
    flags = request.flags
    unicast, encapsulated, multicast = (
        bool(flags & flag) for flag in (Flags.UDP_UNICAST, Flags.TCP_ENCAPSULATED, Flags.UDP_MULTICAST)
    )
    if not flags & BOTH_DIRECTIONS:
        return "neither RECEIVE-FROM nor SEND-TO"
    if unicast and encapsulated:
        return "UDP-UNICAST with TCP-ENCAPSULATED"
    if flags & Flags.MM_MODE and encapsulated:
        return "MM-MODE with TCP-ENCAPSULATED"
    if flags & MODES and not multicast:
        return "a mode without UDP-MULTICAST"
    if not (unicast or encapsulated or multicast):
        return "no transport: none of UDP-UNICAST, TCP-ENCAPSULATED, UDP-MULTICAST"
    if flags & Flags.REPORT_SOURCE and not flags & Flags.RECEIVE_FROM:
        return "REPORT-SOURCE without RECEIVE-FROM"
    if unknown := flags & ~_SUPPORTED:
        return f"FLAGS X'{unknown:04x}' are not supported here"
    return None


def flaw_of_options(request: ControlRequest) -> str | None:
    if request.fault is not None and request.fault.reply == ReplyCode.GENERAL_FAILURE:
        return str(request.fault)
    kinds = [OptionType(option.kind) for option in request.options]
    for kind in kinds:
        if kind not in _FILTERS:
            return f"option {kind.name} is not supported in a request here"
    if len(kinds) > 1:
        return "SOURCE-INCLUDE with SOURCE-EXCLUDE"
    if kinds and (not request.flags & Flags.UDP_MULTICAST or not request.flags & Flags.RECEIVE_FROM):
        return "a source filter without receiving a group"
    return None


def workable(flags: int) -> int:
    """FLAGS of a refusal for its flags: those bits asked that would have worked together."""
    if not flags & Flags.RECEIVE_FROM:
        flags &= ~Flags.REPORT_SOURCE
    if flags & Flags.UDP_UNICAST:
        flags &= ~Flags.TCP_ENCAPSULATED
    if not flags & Flags.UDP_MULTICAST:
        flags &= ~MODES
    elif flags & Flags.TCP_ENCAPSULATED:
        flags &= ~Flags.MM_MODE
    return flags & _SUPPORTED & ~Flags.EXTENDED


def flaw_of_target(address: IPAddress, multicast: bool, sources: SourceFilter | None) -> str | None:
    """Why a destination or group cannot be meant; `sources` is None where nothing is to be received."""
    if address.is_multicast != multicast:
        return f"{address} is {'a group' if address.is_multicast else 'not a group'}"
    if sources is None or not multicast or sources.include:
        return None
    specific = (
        address in _SOURCE_SPECIFIC_V4
        if address.version == 4
        else address in _SOURCE_SPECIFIC_V6 and not int(address) >> 96 & 0xFFFF
    )
    return f"receiving {address} needs a list of sources (RFC 4607)" if specific else None


def flaw_of_sources(sources: SourceFilter, group: IPAddress) -> str | None:
    if any(source.version != group.version for source in sources.sources):
        return f"the sources are not of the family of {group}"
    if any(source.is_multicast or source.is_unspecified for source in sources.sources):
        return "a source is no unicast address"
    return None
