"""UDP BIND (mcast §4.3.1, §5.2): pure decisions, in the order of spec/enhanced.md.

It takes three steps, because others have to be asked in between:

    examine_bind   what the octets alone decide                  -> Refusal or Inquiry
                   (the session resolves a name and asks the rules)
    plan_bind      what names, rules, TTL and limits decide      -> Refusal or Plan
                   (an upstream is asked, where the rules name one; the plane applies plan.changes)
    conclude_bind  what became of the changes                    -> Refusal or Outcome
    abandon_bind   what the upstream refused                     -> Refusal
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Protocol

from mcastsocks.address import Endpoint, IPAddress, unmapped_endpoint
from mcastsocks.tables.associations import NOTHING, Association, AssociationTable, Channel, Grant, shared
from mcastsocks.tables.changes import AddEntry, ChangeEntry, Failed, Result
from mcastsocks.tables.filters import ANY_SOURCE, SourceFilter
from mcastsocks.tables.flaws import (
    MODES,
    TRANSPORTS,
    filter_of,
    flaw_of_flags,
    flaw_of_options,
    flaw_of_sources,
    flaw_of_target,
    workable,
)
from mcastsocks.tables.requests import Outcome, Refusal, entry_of, flaw_of_ttl, refuse
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, ControlRequest, Flags
from mcastsocks.wire.options import Option, resolved
from mcastsocks.wire.replies import ReplyCode, of_errno

_WORD = {"mu": Flags.MU_MODE, "mm": Flags.MM_MODE}


class Verdict(Protocol):
    """What the rules answered; `max_ttl` and `modes` are limits of the rule that allowed it, `via` the way out.

    `upstream` is the name of another relay to go through; empty: directly. `require` is "rtp" where nothing else may
    pass.
    """

    @property
    def allowed(self) -> bool: ...
    @property
    def rule(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def max_ttl(self) -> int: ...
    @property
    def modes(self) -> tuple[str, ...]: ...
    @property
    def via(self) -> str: ...
    @property
    def dscp(self) -> int | None: ...
    @property
    def upstream(self) -> str: ...
    @property
    def require(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A BIND that is well formed; names and rules have not been asked yet."""

    request: ControlRequest
    channel: Channel
    association: Association | None  # when a direction is added
    local: Endpoint | None
    remote: Endpoint
    sources: SourceFilter

    @property
    def directions(self) -> int:
        return self.request.flags & BOTH_DIRECTIONS

    @property
    def multicast(self) -> bool:
        return bool(self.request.flags & Flags.UDP_MULTICAST)

    @property
    def target(self) -> Endpoint | None:
        """Where the datagrams would go; None when a name has to be resolved first."""
        if self.association is not None:
            return self.association.target
        return None if isinstance(self.remote.host, str) else self.remote


@dataclass(frozen=True, slots=True)
class Plan:
    """A BIND that may go ahead once the plane has applied the change; then the association is as wanted."""

    inquiry: Inquiry
    association: Association
    wanted: Grant
    change: AddEntry | ChangeEntry


def examine_bind(table: AssociationTable, channel: Channel, request: ControlRequest) -> Refusal | Inquiry:
    """The checks that need nothing but the request and the table."""
    association = table.get(request.aid, channel) if request.aid else None
    if flaw := flaw_of_flags(request) or flaw_of_options(request):
        return refuse(request, ReplyCode.GENERAL_FAILURE, flaw, workable(request.flags))
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
    inquiry = Inquiry(request, channel, association, local, remote, filter_of(request))
    if not isinstance(remote.host, str) and remote.host.is_unspecified:
        return refuse(request, ReplyCode.INVALID_ADDRESS, "REMOTE is the zero address")
    if remote.port == 0 and (inquiry.multicast or inquiry.directions != Flags.RECEIVE_FROM):
        return refuse(request, ReplyCode.INVALID_ADDRESS, "REMOTE port is zero")
    if not isinstance(remote.host, str) and (flaw := _flaw_of_target(inquiry, remote.host)):
        return refuse(request, ReplyCode.BAD_GROUP, flaw)
    if association is not None and (association.local, association.remote) != (local, remote):
        return refuse(request, ReplyCode.BAD_CONTEXT, "the association has other addresses")
    if association is not None and association.transport & ~MODES != _transport(request.flags):
        return refuse(request, ReplyCode.BAD_CONTEXT, "the association is of another kind")
    if local is not None and not channel.may_be_at(local.address):
        return refuse(request, ReplyCode.NOT_ALLOWED, f"LOCAL {local.host} is not the client's own address")
    if local is not None and channel.is_own(local):
        return refuse(request, ReplyCode.NOT_ALLOWED, f"LOCAL {local} is the relay's own")
    return inquiry


def plan_bind(
    table: AssociationTable, inquiry: Inquiry, target: Endpoint, verdicts: Mapping[int, Verdict], now: float
) -> Refusal | Plan:
    """What the rules' verdicts, one for each direction asked, the TTL and the limits make of it."""
    request, channel = inquiry.request, inquiry.channel
    if isinstance(inquiry.remote.host, str) and (flaw := _flaw_of_target(inquiry, target.address)):
        return refuse(request, ReplyCode.BAD_GROUP, flaw)
    if flaw := flaw_of_sources(inquiry.sources, target.address):
        return refuse(request, ReplyCode.GENERAL_FAILURE, flaw)
    allowed = sum(direction for direction, verdict in verdicts.items() if verdict.allowed)
    for direction, verdict in verdicts.items():
        if not verdict.allowed:
            code = _refusal_code(inquiry.multicast, direction)
            return refuse(request, code, verdict.reason, _possible(request, allowed))
    sending = verdicts.get(Flags.SEND_TO) if inquiry.multicast else None
    if sending is not None and (flaw := flaw_of_ttl(request.ttl, sending.max_ttl)):
        return refuse(request, ReplyCode.TTL_NOT_ALLOWED, flaw, _possible(request, allowed & ~Flags.SEND_TO))
    mode = _mode(inquiry, target.address, verdicts)
    if isinstance(mode, str):
        return refuse(request, ReplyCode.GENERAL_FAILURE, mode, allowed | Flags.UDP_MULTICAST)
    association = inquiry.association
    wanted = _wanted(association.grant if association is not None else NOTHING, inquiry, verdicts)
    ways = {(verdict.via, verdict.upstream) for verdict in verdicts.values()}
    if association is not None:
        ways.add((association.terms.via, association.grant.upstream))
    if len(ways) > 1:
        named = " and ".join(sorted(starmap(_way, ways)))
        why = f"the rules take the directions by different ways, {named}: an association has one"
        return refuse(request, ReplyCode.GENERAL_FAILURE, why, _possible(request, next(iter(verdicts))))
    if association is None:
        transport = _transport(request.flags) | mode
        with table.ledger.turn():
            if full := table.full_for(channel, inquiry.local, target):
                return refuse(request, ReplyCode.GENERAL_FAILURE, full)
            association = table.open(channel, inquiry.local, inquiry.remote, target, now, transport)
        return Plan(inquiry, association, wanted, AddEntry(entry_of(association), wanted.terms))
    return Plan(inquiry, association, wanted, ChangeEntry(association.aid, wanted.terms))


def conclude_bind(table: AssociationTable, plan: Plan, results: Sequence[Result]) -> Refusal | Outcome:
    """The answer to what became of the change."""
    association, request = plan.association, plan.inquiry.request
    opened, [result] = not association.directions, results
    if isinstance(result, Failed):
        if opened:
            table.close(association)
        code = ReplyCode.GENERAL_FAILURE if association.is_group else of_errno(result.errno)
        return refuse(request, code, result.why)
    association.grant = plan.wanted
    association.outside = result.outside or association.outside
    granted = plan.inquiry.directions | association.transport | (request.flags & Flags.REPORT_SOURCE)
    options: tuple[Option, ...] = ()
    if isinstance(association.remote.host, str) and request.flags & Flags.EXTENDED:
        options, granted = (resolved(association.target.address),), granted | Flags.EXTENDED
    remote = association.target if association.is_group else association.outside
    local = None if association.is_mm else association.channel.relay
    reply = ControlReply(ReplyCode.SUCCEEDED, request.tid, association.aid, granted, local, remote, options)
    return Outcome(reply, association, opened=opened)


def abandon_bind(table: AssociationTable, plan: Plan, code: ReplyCode, why: str, granted: int = Flags.NONE) -> Refusal:
    """The answer when an upstream has refused it, all but these directions."""
    if not plan.association.directions:
        table.close(plan.association)
    return refuse(plan.inquiry.request, code, why, _possible(plan.inquiry.request, granted))


def _way(via: str, upstream: str) -> str:
    return f"{via} through {upstream}" if upstream else via


def _wanted(held: Grant, inquiry: Inquiry, verdicts: Mapping[int, Verdict]) -> Grant:
    """What is held, and the directions asked: each comes with its own TTL, sources and reports."""
    request, max_ttl, verdict = inquiry.request, held.max_ttl, next(iter(verdicts.values()))
    terms = held.terms._replace(via=verdict.via, upstream=bool(verdict.upstream))
    if (receiving := verdicts.get(Flags.RECEIVE_FROM)) is not None:
        terms = terms._replace(
            receives=True,
            sources=inquiry.sources,
            reports_source=bool(request.flags & Flags.REPORT_SOURCE),
            receive_dscp=receiving.dscp,
            receives_rtp=receiving.require == "rtp",
        )
    if (sending := verdicts.get(Flags.SEND_TO)) is not None:
        ttl, max_ttl = (request.ttl, sending.max_ttl) if inquiry.multicast else (0, 0)
        rtp = sending.require == "rtp"
        terms = terms._replace(sends=True, ttl=ttl, send_dscp=sending.dscp, sends_rtp=rtp)
    rules = tuple(dict.fromkeys((*held.rules, *(each.rule for each in verdicts.values()))))
    return shared(Grant(terms, rules, max_ttl, verdict.upstream))


def _client(inquiry: Inquiry) -> IPAddress:
    local = inquiry.local
    return inquiry.channel.peer if local is None or local.address.is_unspecified else local.address


def _plain(endpoint: Endpoint | None) -> Endpoint | None:
    """A block for comparing: unmapped; None when it is unused, written with ATYP 00 or as 0.0.0.0:0."""
    if endpoint is None or isinstance(endpoint.host, str):
        return endpoint
    endpoint = unmapped_endpoint(endpoint)
    return endpoint if endpoint.port or not endpoint.address.is_unspecified else None


def _flaw_of_target(inquiry: Inquiry, address: IPAddress) -> str | None:
    sources = inquiry.sources if inquiry.directions & Flags.RECEIVE_FROM else None
    return flaw_of_target(address, inquiry.multicast, sources)


def _refusal_code(multicast: bool, direction: int) -> ReplyCode:
    if not multicast:
        return ReplyCode.NOT_ALLOWED
    if direction == Flags.RECEIVE_FROM:
        return ReplyCode.GROUP_RECEIVE_NOT_ALLOWED
    return ReplyCode.GROUP_SEND_NOT_ALLOWED


def _possible(request: ControlRequest, directions: int) -> int:
    """FLAGS of a failure: the part that could have been met, nothing when no direction could."""
    return directions | (request.flags & TRANSPORTS) if directions else 0


def _transport(flags: int) -> int:
    """The transport asked, without the mode; UDP-UNICAST beside UDP-MULTICAST is a wish for MU and no transport."""
    if flags & Flags.UDP_MULTICAST:
        return Flags.UDP_MULTICAST | flags & Flags.TCP_ENCAPSULATED
    return flags & Flags.TCP_ENCAPSULATED or Flags.UDP_UNICAST


def _mode(inquiry: Inquiry, group: IPAddress, verdicts: Mapping[int, Verdict]) -> int | str:
    """The mode of a group's association, or why none is left.

    An association keeps the mode it has. A preference is honoured where the rules allow it; without one, or where
    they do not, their first mode is taken. What MM-mode cannot do (mcast §5.1: no header, no encapsulation, no other
    family) leaves MU, and so does an upstream.
    """
    flags = inquiry.request.flags
    if not inquiry.multicast:
        return Flags.NONE
    first, *others = verdicts.values()
    modes = [mode for mode in first.modes if all(mode in verdict.modes for verdict in others)]
    needs_mu = bool(flags & (Flags.TCP_ENCAPSULATED | Flags.REPORT_SOURCE)) or inquiry.sources != ANY_SOURCE
    needs_mu |= any(verdict.upstream for verdict in verdicts.values())
    if needs_mu or group.version != _client(inquiry).version:
        modes = [mode for mode in modes if mode != "mm"]
    if not modes:
        return "the rules leave no mode that can do what is asked"
    if inquiry.association is not None:
        kept = inquiry.association.transport & MODES
        if all(_WORD[mode] != kept for mode in modes):
            return (
                f"the association is in {'MM' if kept == Flags.MM_MODE else 'MU'}-mode, which cannot do what is asked"
            )
        return kept
    prefers_mu, prefers_mm = bool(flags & (Flags.MU_MODE | Flags.UDP_UNICAST)), bool(flags & Flags.MM_MODE)
    if prefers_mu != prefers_mm:
        preferred = "mu" if prefers_mu else "mm"
        return _WORD[preferred if preferred in modes else modes[0]]
    return _WORD[modes[0]]
