"""Plain values between tables and planes: the changes a plane applies, and a result for each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.tables.filters import ANY_SOURCE, SourceFilter


class Terms(NamedTuple):
    """What an association does, and how; the thousands that agree in it share one.

    What receives a group gets copies of it from the sources that `sources` admits. `via` is the name of an outside. A
    DSCP is 0 to 63; None: as the datagram came. With `upstream` another relay is between us and the remote, and the
    plane has no outside socket or membership for it. `sends_rtp` and `receives_rtp`: what is neither RTP nor RTCP is
    dropped.
    """

    sends: bool = False
    receives: bool = False
    ttl: int = 0
    sources: SourceFilter = ANY_SOURCE
    reports_source: bool = False
    via: str = ""
    send_dscp: int | None = None
    receive_dscp: int | None = None
    upstream: bool = False
    sends_rtp: bool = False
    receives_rtp: bool = False


class Entry(NamedTuple):
    """One association as a plane sees it: who and where. That stays, while its terms may change.

    `inside` is the relay's own address and port that the client faces; `client` is the socket address that the
    client's datagrams come from, port 0 while it is to be learnt, None when they come over the control channel;
    `remote` is a destination or a group, always with an address. With `mm` the group is multicast inside, instead of a
    copy to each receiver, and what the client multicasts there goes out. Entries of one channel and client share an
    outside socket for each family and `via`, unless the outside's ports are shared by all.
    """

    aid: int
    channel: int
    inside: Endpoint
    client: SockAddr | None
    remote: Endpoint
    mm: bool = False


@dataclass(frozen=True, slots=True)
class AddEntry:
    """Start forwarding for an association. Done carries its outside endpoint."""

    entry: Entry
    terms: Terms


@dataclass(frozen=True, slots=True)
class ChangeEntry:
    """Other directions, TTL or sources for an association. Done may carry its outside endpoint."""

    aid: int
    terms: Terms


@dataclass(frozen=True, slots=True)
class RemoveEntry:
    """Forget an association. Done carries what it moved."""

    aid: int


class Answers(StrEnum):
    """Whose datagrams a UDP ASSOCIATE takes: from any port of a host that was sent to, from exactly there, from all."""

    CONTACTED_HOST = "contacted-host"
    EXACT = "exact"
    ANYONE = "anyone"


@dataclass(frozen=True, slots=True)
class Associate:
    """One UDP ASSOCIATE (RFC 1928 §7) as a plane sees it; `channel` names it, as there is one a connection.

    `inside` and `client` are as in an Entry. `outside_port` is the port that the client would like remotes to see on
    the outside `via`; 0: any.
    """

    channel: int
    inside: Endpoint
    client: SockAddr
    answers: Answers = Answers.CONTACTED_HOST
    via: str = ""
    outside_port: int = 0


@dataclass(frozen=True, slots=True)
class AddAssociate:
    """Done carries the outside endpoint where the port wished for was had."""

    associate: Associate


@dataclass(frozen=True, slots=True)
class Route:
    """What becomes of an Associate's datagrams to `destination`, as the client writes it: they go to `target`.

    With `through` they go to that relay, header and all, which has a UDP ASSOCIATE for us.

    Without a target they are dropped, for the reason `refused`. Done carries the outside endpoint that the target
    sees.
    """

    channel: int
    destination: Endpoint
    target: Endpoint | None
    via: str = ""
    dscp: int | None = None
    refused: str = ""
    through: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class ForgetRoutes:
    """Ask again about every destination of an Associate."""

    channel: int


@dataclass(frozen=True, slots=True)
class RemoveAssociate:
    """Done carries what it moved."""

    channel: int


Change = AddEntry | ChangeEntry | RemoveEntry | AddAssociate | Route | ForgetRoutes | RemoveAssociate


@dataclass(slots=True)
class Traffic:
    """Datagrams and data octets of one association, without any header.

    `errors` are ICMP errors about its destination; `last_error` says what the last one was.
    """

    to_remote_datagrams: int = 0
    to_remote_octets: int = 0
    to_client_datagrams: int = 0
    to_client_octets: int = 0
    dropped_datagrams: int = 0
    errors: int = 0
    last_error: str | None = None

    def as_dict(self) -> dict[str, int | str | None]:
        """What dataclasses.asdict says, in a tenth of the time: there is one for each association that ends."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Done:
    """A change took place."""

    outside: Endpoint | None = None
    traffic: Traffic | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A change did not take place, and everything is as it was. `errno` may be 0."""

    errno: int
    why: str


Result = Done | Failed
