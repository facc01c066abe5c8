"""Requests answered the way a session does it, without its socket, resolver and rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random

from mcastsocks.address import Endpoint, IPAddress
from mcastsocks.planes.interface import Plane
from mcastsocks.tables import bind, requests
from mcastsocks.tables.aids import AidPool
from mcastsocks.tables.associations import Association, AssociationTable, Channel, TableLimits
from mcastsocks.tables.bind import Inquiry
from mcastsocks.tables.changes import Change
from mcastsocks.tables.requests import Refusal
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, ControlRequest, Flags, UdpCommand
from mcastsocks.wire.options import Option, OptionType, sources
from mcastsocks.wire.replies import ReplyCode
from tests.fakes import RecordingPlane

NONE, R, S, U, M, MU, MM = (
    Flags.NONE,
    Flags.RECEIVE_FROM,
    Flags.SEND_TO,
    Flags.UDP_UNICAST,
    Flags.UDP_MULTICAST,
    Flags.MU_MODE,
    Flags.MM_MODE,
)
ENC, REPORT, EXT = Flags.TCP_ENCAPSULATED, Flags.REPORT_SOURCE, Flags.EXTENDED
RELAY = Endpoint(ip_address("192.0.2.1"), 1080)
ROOMY = TableLimits(associations=100, associations_per_user=100, groups=100, groups_per_user=100)
MAX_TTL = 32


def at(text: str, port: int) -> Endpoint:
    try:
        return Endpoint(ip_address(text), port)
    except ValueError:
        return Endpoint(text, port)


PEER = "192.0.2.10"
LOCAL = at(PEER, 5004)
HOST = at("198.51.100.7", 53)
GROUP = at("239.1.2.3", 5004)
GROUP_V6 = at("ff15::1234", 5004)
NAME = at("group.example", 5004)


def binding(
    flags: int = R | M,
    remote: Endpoint | None = GROUP,
    *options: Option,
    aid: int = 0,
    ttl: int = 0,
    local: Endpoint | None = LOCAL,
) -> ControlRequest:
    """A UDP BIND; EXTENDED where there are options."""
    flags |= EXT if options else 0
    return ControlRequest(UdpCommand.BIND, 0x0102, aid, flags, ttl, local, remote, options)


def including(*addresses: str) -> Option:
    return sources(OptionType.SOURCE_INCLUDE, [ip_address(address) for address in addresses])


def excluding(*addresses: str) -> Option:
    return sources(OptionType.SOURCE_EXCLUDE, [ip_address(address) for address in addresses])


def releasing(aid: int, flags: int = BOTH_DIRECTIONS) -> ControlRequest:
    return ControlRequest(UdpCommand.RELEASE, 0x0304, aid, flags)


def setting_ttl(aid: int, ttl: int) -> ControlRequest:
    return ControlRequest(UdpCommand.SET_TTL, 0x0506, aid, ttl=ttl)


def channel(number: int = 1, peer: str = PEER, account: str = "alice") -> Channel:
    """A control channel from `peer`, through our address of its family."""
    address = ip_address(peer)
    if address.version == 4:
        return Channel(number, account, address, (peer, 40_000), RELAY, RELAY)
    relay = at("2001:db8::1", 1080)
    return Channel(number, account, address, (peer, 40_000, 0, 7), relay, relay)


@dataclass
class Verdict:
    """What rules say; the table's own Verdict is only a shape."""

    allowed: bool
    rule: str
    max_ttl: int
    reason: str = "no rule allows it"
    modes: tuple[str, ...] = ("mu",)
    via: str = ""
    dscp: int | None = None
    require: str = ""
    upstream: str = ""


class Desk:
    """One table and one plane, with rules and names that a test may turn as it likes."""

    def __init__(self, limits: TableLimits = ROOMY, seed: int = 1) -> None:
        self.table = AssociationTable(limits, AidPool(limits.associations, Random(seed)))
        self.plane = RecordingPlane()
        self.denied: int = NONE
        self.max_ttl = MAX_TTL
        self.modes: tuple[str, ...] = ("mu",)
        self.upstreams: dict[int, str] = {}
        self.refused_upstream: tuple[ReplyCode, int] | None = None
        self.rule = "rules[0]"
        self.names: dict[str, IPAddress] = {"group.example": GROUP.address, "host.example": HOST.address}
        self.now = 0.0

    def ask(self, request: ControlRequest, by: Channel | None = None) -> ControlReply:
        by = by or channel()
        match request.command:
            case UdpCommand.BIND:
                return self._bind(request, by)
            case UdpCommand.RELEASE:
                released = requests.release(self.table, by, request)
                if isinstance(released, Refusal):
                    return released.reply
                self.end(*released)
                return requests.released_reply(request)
            case UdpCommand.SET_TTL:
                outcome = requests.set_ttl(self.table, by, request)
                if isinstance(outcome, Refusal):
                    return outcome.reply
                self.plane.apply([outcome[1]])
                return requests.ttl_reply(request)
        return requests.unknown_command(request).reply

    def opened(self, request: ControlRequest, by: Channel | None = None) -> Association:
        """The association of a BIND that has to succeed."""
        by = by or channel()
        reply = self.ask(request, by)
        assert reply.code == ReplyCode.SUCCEEDED
        association = self.table.get(reply.aid, by)
        assert association is not None
        return association

    def close(self, by: Channel) -> None:
        for association in self.table.of_channel(by):
            self.end(association, NONE)

    def end(self, association: Association, kept: int) -> None:
        results = self.plane.apply([requests.change_to_keep(association, kept)])
        requests.conclude_release(self.table, association, kept, results)

    def _bind(self, request: ControlRequest, by: Channel) -> ControlReply:
        inquiry = bind.examine_bind(self.table, by, request)
        if isinstance(inquiry, Refusal):
            return inquiry.reply
        target = inquiry.target or self._resolve(inquiry.remote)
        if target is None:
            return requests.refuse(request, ReplyCode.HOST_UNREACHABLE, "no such name").reply
        plan = bind.plan_bind(self.table, inquiry, target, self._verdicts(inquiry), self.now)
        if isinstance(plan, Refusal):
            return plan.reply
        if plan.wanted.upstream and self.refused_upstream is not None:
            code, granted = self.refused_upstream
            return bind.abandon_bind(self.table, plan, code, "the upstream says so", granted).reply
        return bind.conclude_bind(self.table, plan, self.plane.apply([plan.change])).reply

    def _resolve(self, remote: Endpoint) -> Endpoint | None:
        address = self.names.get(str(remote.host))
        return None if address is None else Endpoint(address, remote.port)

    def _verdicts(self, inquiry: Inquiry) -> dict[int, Verdict]:
        asked = (direction for direction in (R, S) if direction & inquiry.directions)
        return {
            direction: Verdict(
                not direction & self.denied,
                self.rule,
                self.max_ttl,
                modes=self.modes,
                upstream=self.upstreams.get(direction, ""),
            )
            for direction in asked
        }


def conforms(plane: RecordingPlane) -> Plane:
    """For mypy: the fake has the shape of a plane."""
    return plane


def kinds(changes: Iterable[Change]) -> list[str]:
    return [type(change).__name__ for change in changes]
