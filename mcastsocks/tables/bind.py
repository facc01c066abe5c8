"""UDP BIND (mcast §4.3.1, §5.2): pure decisions, in the order of spec/enhanced.md.

It takes three steps, because others have to be asked in between:

    examine_bind   what the octets alone decide                  -> Refusal or Inquiry
                   (the session resolves a name and asks the rules)
    plan_bind      what names, rules, TTL and limits decide      -> Refusal or Plan
                   (the plane applies plan.changes)
    conclude_bind  what became of the changes                    -> Refusal or Outcome
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Network, ip_network
from typing import Protocol

from mcastsocks.address import Endpoint, IPAddress, unmapped_endpoint
from mcastsocks.tables.associations import Association, AssociationTable, Channel
from mcastsocks.tables.changes import AddEntry, AddReceiver, Change, Failed, RemoveEntry, Result
from mcastsocks.tables.requests import Outcome, Refusal, change_of, entry_of, flaw_of_ttl, refuse
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, ControlRequest, Flags
from mcastsocks.wire.replies import ReplyCode, of_errno

_TRANSPORTS = Flags.UDP_UNICAST | Flags.UDP_MULTICAST
_MODES = Flags.MU_MODE | Flags.MM_MODE
_PREFERENCES = _MODES | Flags.UDP_UNICAST  # next to UDP-MULTICAST the latter is a wish for MU
_SUPPORTED = BOTH_DIRECTIONS | _TRANSPORTS | _MODES
_SOURCE_SPECIFIC_V4 = ip_network("232.0.0.0/8")
_SOURCE_SPECIFIC_V6 = IPv6Network("ff30::/12")  # RFC 4607: ff3x::/32, whatever the scope x


class Verdict(Protocol):
    """What the rules answered; `max_ttl` is the limit of the rule that allowed it."""

    @property
    def allowed(self) -> bool: ...
    @property
    def rule(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def max_ttl(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A BIND that is well formed; names and rules have not been asked yet."""

    request: ControlRequest
    channel: Channel
    association: Association | None  # when a direction is added
    directions: Flags
    multicast: bool
    local: Endpoint | None
    remote: Endpoint

    @property
    def target(self) -> Endpoint | None:
        """Where the datagrams would go; None when a name has to be resolved first."""
        if self.association is not None:
            return self.association.target
        return None if isinstance(self.remote.host, str) else self.remote


@dataclass(frozen=True, slots=True)
class Plan:
    """A BIND that may go ahead, once the plane has applied the changes."""

    inquiry: Inquiry
    association: Association
    ttl: int
    max_ttl: int
    rules: tuple[str, ...]
    changes: tuple[Change, ...]


def examine_bind(table: AssociationTable, channel: Channel, request: ControlRequest) -> Refusal | Inquiry:
    """The checks that need nothing but the request and the table."""
    association = table.get(request.aid, channel) if request.aid else None
    if flaw := _flaw_of_flags(request):
        return refuse(request, ReplyCode.GENERAL_FAILURE, flaw, _workable(request.flags))
    if request.aid and association is None:
        return refuse(request, ReplyCode.BAD_ASSOCIATION, f"no association {request.aid:08x} on this channel")
    if request.fault is not None:
        return refuse(request, ReplyCode(request.fault.reply or 1), str(request.fault))
    local, remote = _plain(request.local), _plain(request.remote)
    if local is not None and isinstance(local.host, str):
        return refuse(request, ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED, "LOCAL is a name")
    if association is not None and local is None and remote is None:
        local, remote = association.local, association.remote
    if remote is None:
        return refuse(request, ReplyCode.INVALID_ADDRESS, "REMOTE is unused")
    multicast = bool(request.flags & Flags.UDP_MULTICAST)
    receive_only = request.flags & BOTH_DIRECTIONS == Flags.RECEIVE_FROM
    if not isinstance(remote.host, str) and remote.host.is_unspecified:
        return refuse(request, ReplyCode.INVALID_ADDRESS, "REMOTE is the zero address")
    if remote.port == 0 and (multicast or not receive_only):
        return refuse(request, ReplyCode.INVALID_ADDRESS, "REMOTE port is zero")
    if not isinstance(remote.host, str) and (flaw := _flaw_of_group(remote.host, request.flags)):
        return refuse(request, ReplyCode.BAD_GROUP, flaw)
    if association is not None and (association.local, association.remote) != (local, remote):
        return refuse(request, ReplyCode.BAD_CONTEXT, "the association has other addresses")
    if association is not None and association.is_group != multicast:
        return refuse(request, ReplyCode.BAD_CONTEXT, "the association is of another kind")
    if local is not None and not local.address.is_unspecified and local.host != channel.peer:
        return refuse(request, ReplyCode.NOT_ALLOWED, f"LOCAL {local.host} is not the address this channel comes from")
    directions = Flags(request.flags) & BOTH_DIRECTIONS
    return Inquiry(request, channel, association, directions, multicast, local, remote)


def plan_bind(
    table: AssociationTable, inquiry: Inquiry, target: Endpoint, verdicts: Mapping[Flags, Verdict], now: float
) -> Refusal | Plan:
    """What the rules' verdicts, one for each direction asked, the TTL and the limits make of it."""
    request, channel = inquiry.request, inquiry.channel
    if flaw := _flaw_of_group(target.address, request.flags):
        return refuse(request, ReplyCode.BAD_GROUP, flaw)
    allowed = Flags(sum(direction for direction, verdict in verdicts.items() if verdict.allowed))
    for direction, verdict in verdicts.items():
        if not verdict.allowed:
            code = _refusal_code(inquiry.multicast, direction)
            return refuse(request, code, verdict.reason, _possible(request, allowed))
    sending = verdicts.get(Flags.SEND_TO)
    max_ttl = sending.max_ttl if sending is not None else 0
    if inquiry.multicast and sending is not None and (flaw := flaw_of_ttl(request.ttl, max_ttl)):
        return refuse(request, ReplyCode.TTL_NOT_ALLOWED, flaw, _possible(request, allowed & ~Flags.SEND_TO))
    association = inquiry.association
    if association is None:
        if full := table.full_for(channel, target):
            return refuse(request, ReplyCode.GENERAL_FAILURE, full)
        association = table.open(channel, inquiry.local, inquiry.remote, target, now)
    ttl = request.ttl if inquiry.multicast and sending is not None else association.ttl
    rules = tuple(dict.fromkeys(verdict.rule for verdict in verdicts.values()))
    changes = _bind_changes(association, association.directions | inquiry.directions, ttl)
    return Plan(inquiry, association, ttl, max_ttl or association.max_ttl, rules, changes)


def conclude_bind(
    table: AssociationTable, plan: Plan, results: Sequence[Result]
) -> tuple[Refusal | Outcome, tuple[Change, ...]]:
    """The answer, and what the plane must undo when a change failed."""
    association, request = plan.association, plan.inquiry.request
    opened = not association.directions
    for result in results:
        if isinstance(result, Failed):
            if opened:
                table.close(association)
            undo = _undo(plan, results) if opened else (change_of(association),)
            code = ReplyCode.GENERAL_FAILURE if association.is_group else of_errno(result.errno)
            return refuse(request, code, result.why), undo
        association.outside = result.outside or association.outside
    association.directions |= plan.inquiry.directions
    association.ttl, association.max_ttl = plan.ttl, plan.max_ttl
    association.rules = list(dict.fromkeys((*association.rules, *plan.rules)))
    granted = plan.inquiry.directions | _granted_transport(request.flags)
    remote = association.target if association.is_group else association.outside
    reply = ControlReply(ReplyCode.SUCCEEDED, request.tid, association.aid, granted, association.channel.relay, remote)
    return Outcome(reply, association, opened=opened), ()


def _plain(endpoint: Endpoint | None) -> Endpoint | None:
    """A block for comparing: unmapped; None when it is unused, written with ATYP 00 or as 0.0.0.0:0."""
    if endpoint is None or isinstance(endpoint.host, str):
        return endpoint
    endpoint = unmapped_endpoint(endpoint)
    return endpoint if endpoint.port or not endpoint.address.is_unspecified else None


def _flaw_of_flags(request: ControlRequest) -> str | None:
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
    if flags & _MODES and not multicast:
        return "a mode without UDP-MULTICAST"
    if flags & _PREFERENCES == Flags.MM_MODE:
        return "MM-MODE is not supported here"
    if not (unicast or encapsulated or multicast):
        return "no transport: none of UDP-UNICAST, TCP-ENCAPSULATED, UDP-MULTICAST"
    if unknown := flags & ~_SUPPORTED:
        return f"FLAGS X'{unknown:04x}' are not supported here"
    return None


def _workable(flags: int) -> int:
    """FLAGS of a refusal for its flags: those bits asked that would have worked."""
    if not flags & Flags.UDP_MULTICAST:
        flags &= ~_MODES
    elif flags & _PREFERENCES == Flags.MM_MODE:
        flags &= ~Flags.MM_MODE
    return flags & _SUPPORTED


def _flaw_of_group(address: IPAddress, flags: int) -> str | None:
    if address.is_multicast != bool(flags & Flags.UDP_MULTICAST):
        return f"{address} is {'a group' if address.is_multicast else 'not a group'}"
    if not flags & Flags.RECEIVE_FROM or not address.is_multicast:
        return None
    specific = (
        address in _SOURCE_SPECIFIC_V4
        if address.version == 4
        else address in _SOURCE_SPECIFIC_V6 and not int(address) >> 96 & 0xFFFF
    )
    return f"receiving {address} needs a list of sources (RFC 4607)" if specific else None


def _refusal_code(multicast: bool, direction: Flags) -> ReplyCode:
    if not multicast:
        return ReplyCode.NOT_ALLOWED
    return ReplyCode.GROUP_RECEIVE_NOT_ALLOWED if direction is Flags.RECEIVE_FROM else ReplyCode.GROUP_SEND_NOT_ALLOWED


def _possible(request: ControlRequest, directions: Flags) -> int:
    """FLAGS of a failure: the part that could have been met, nothing when no direction could."""
    return directions | (request.flags & _TRANSPORTS) if directions else 0


def _granted_transport(flags: int) -> Flags:
    """The transport as asked; for groups the mode that was chosen, which is always MU."""
    return Flags.UDP_MULTICAST | Flags.MU_MODE if flags & Flags.UDP_MULTICAST else Flags.UDP_UNICAST


def _bind_changes(association: Association, directions: Flags, ttl: int) -> tuple[Change, ...]:
    wanted = replace(association, directions=directions, ttl=ttl)
    first: Change = change_of(wanted) if association.directions else AddEntry(entry_of(wanted))
    if association.is_group and wanted.receives and not association.receives:
        return first, AddReceiver(association.aid)
    return (first,)


def _undo(plan: Plan, results: Sequence[Result]) -> tuple[Change, ...]:
    added = results and not isinstance(results[0], Failed)
    return (RemoveEntry(plan.association.aid),) if added else ()
