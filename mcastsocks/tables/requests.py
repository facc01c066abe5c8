"""UDP RELEASE and SET TTL, and what every control request has in common: pure decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from mcastsocks.address import SockAddr, to_sockaddr
from mcastsocks.errors import LocalError
from mcastsocks.tables.associations import Association, AssociationTable, Channel
from mcastsocks.tables.changes import (
    Change,
    ChangeEntry,
    Entry,
    Failed,
    RemoveEntry,
    Result,
    Traffic,
)
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, ControlRequest, Flags, UdpCommand
from mcastsocks.wire.options import reason
from mcastsocks.wire.replies import ReplyCode, meaning

_TTL_MAX = 255


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that failed: the reply to write, and the words for the record."""

    reply: ControlReply
    why: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A BIND that succeeded."""

    reply: ControlReply
    association: Association
    opened: bool = False


def refuse(request: ControlRequest, code: ReplyCode, why: str, flags: int = 0) -> Refusal:
    """A failure reply, with a REASON when the client knows of options.

    RELEASE echoes its FLAGS, and both it and SET TTL their AID; of a BIND everything behind TID is zero, and FLAGS say
    what could have been met.
    """
    aid = request.aid if request.command in (UdpCommand.RELEASE, UdpCommand.SET_TTL) else 0
    if request.command == UdpCommand.RELEASE:
        flags = request.flags
    if not request.flags & Flags.EXTENDED:
        return Refusal(ControlReply(code, request.tid, aid, flags), why)
    options = (reason(f"{meaning(code)}: {why}"),)
    return Refusal(ControlReply(code, request.tid, aid, flags | Flags.EXTENDED, options=options), why)


def mention_error(refusal: Refusal, error: str | None) -> Refusal:
    """The same refusal with the last ICMP error about the association that it concerns, where there was one."""
    if error is None:
        return refusal
    why, reply = f"{refusal.why}; the last ICMP error was {error}", refusal.reply
    if reply.flags & Flags.EXTENDED:
        reply = replace(reply, options=(reason(f"{meaning(reply.code)}: {why}"),))
    return Refusal(reply, why)


def flaw_of_ttl(ttl: int, max_ttl: int) -> str | None:
    if ttl == 0:
        return f"TTL 0, expected 1 to {min(max_ttl, _TTL_MAX)}"
    return f"TTL {ttl} is above {max_ttl}, the limit of the rule" if ttl > max_ttl else None


def release(table: AssociationTable, channel: Channel, request: ControlRequest) -> Refusal | tuple[Association, int]:
    """The association of a UDP RELEASE and the directions it keeps (mcast §4.3.2, §5.2.3)."""
    given_up = request.flags & BOTH_DIRECTIONS
    if not given_up:
        return refuse(request, ReplyCode.GENERAL_FAILURE, "no direction to release")
    association = table.get(request.aid, channel)
    if association is None:
        return refuse(request, ReplyCode.BAD_ASSOCIATION, f"no association {request.aid:08x} on this channel")
    if not given_up & association.directions:
        return refuse(request, ReplyCode.BAD_CONTEXT, "the association does not hold that direction")
    return association, association.directions & ~given_up


def change_to_keep(association: Association, kept: int) -> ChangeEntry | RemoveEntry:
    """How a plane gets from the association's directions to fewer, none included."""
    return ChangeEntry(association.aid, association.grant.keeping(kept).terms) if kept else RemoveEntry(association.aid)


def conclude_release(
    table: AssociationTable, association: Association, kept: int, results: Sequence[Result]
) -> Traffic | None:
    """Note what the association still holds; what it moved when that is nothing and it has ended."""
    if kept:
        association.grant = association.grant.keeping(kept)
        return None
    table.close(association)
    [result] = results
    if isinstance(result, Failed) or result.traffic is None:
        raise LocalError(f"the plane did not know association {association.aid:08x}: {result}")
    return result.traffic


def released_reply(request: ControlRequest) -> ControlReply:
    return ControlReply(ReplyCode.SUCCEEDED, request.tid, request.aid, request.flags)


def set_ttl(table: AssociationTable, channel: Channel, request: ControlRequest) -> Refusal | tuple[Association, Change]:
    """The association of a SET TTL, its new TTL noted, and the change for the plane (mcast §5.2.4)."""
    association = table.get(request.aid, channel)
    if association is None:
        return refuse(request, ReplyCode.BAD_ASSOCIATION, f"no association {request.aid:08x} on this channel")
    if not (association.is_group and association.terms.sends):
        return refuse(request, ReplyCode.BAD_CONTEXT, "the association does not send to a group")
    if flaw := flaw_of_ttl(request.ttl, association.grant.max_ttl):
        return refuse(request, ReplyCode.TTL_NOT_ALLOWED, flaw)
    association.grant = association.grant.with_ttl(request.ttl)
    return association, ChangeEntry(association.aid, association.terms)


def ttl_reply(request: ControlRequest) -> ControlReply:
    return ControlReply(ReplyCode.SUCCEEDED, request.tid, request.aid)


def unknown_command(request: ControlRequest) -> Refusal:
    return refuse(request, ReplyCode.COMMAND_NOT_SUPPORTED, f"unknown command X'{request.command:02x}'")


def entry_of(association: Association) -> Entry:
    return Entry(
        association.aid,
        association.channel.number,
        association.channel.inside,
        None if association.is_encapsulated else _client_of(association),
        association.target,
        association.is_mm,
    )


def _client_of(association: Association) -> SockAddr:
    """Where the client's datagrams come from; port 0 has to be learnt."""
    channel, local = association.channel, association.local
    host, _, *zone = channel.peer_sockaddr
    if local is None:
        return _shared_sockaddr(host, 0, *zone)
    if local.host in channel.hosts and local.host != channel.peer:
        return to_sockaddr(local)
    return _shared_sockaddr(host, local.port, *zone)


@lru_cache(maxsize=16_384)
def _shared_sockaddr(host: str, port: int, *zone: int) -> SockAddr:
    """One for the thousands of associations of a client."""
    return (host, port, *zone)
