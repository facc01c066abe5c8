"""Plain values between tables and planes: the changes a plane applies, and a result for each."""

from __future__ import annotations

from dataclasses import dataclass

from mcastsocks.address import Endpoint, SockAddr


@dataclass(frozen=True, slots=True)
class Entry:
    """One association as a plane sees it.

    `inside` is the relay's own address and port that the client faces; `client` is the socket address that
    the client's datagrams come from, port 0 while it is to be learnt; `remote` is a destination or a group, always
    with an address. Entries of one channel and client share an outside socket of each family.
    """

    aid: int
    channel: int
    inside: Endpoint
    client: SockAddr
    remote: Endpoint
    sends: bool
    receives: bool
    ttl: int = 0


@dataclass(frozen=True, slots=True)
class AddEntry:
    """Start forwarding for an association. Done carries its outside endpoint."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class ChangeEntry:
    """Other directions or another TTL for an association."""

    aid: int
    sends: bool
    receives: bool
    ttl: int


@dataclass(frozen=True, slots=True)
class RemoveEntry:
    """Forget an association. Done carries what it moved."""

    aid: int


@dataclass(frozen=True, slots=True)
class AddReceiver:
    """Copy the association's group to it; the first receiver makes the plane join."""

    aid: int


@dataclass(frozen=True, slots=True)
class RemoveReceiver:
    """No more copies; the last receiver makes the plane leave."""

    aid: int


Change = AddEntry | ChangeEntry | RemoveEntry | AddReceiver | RemoveReceiver


@dataclass(slots=True)
class Traffic:
    """Datagrams and data octets of one association, without any header."""

    to_remote_datagrams: int = 0
    to_remote_octets: int = 0
    to_client_datagrams: int = 0
    to_client_octets: int = 0
    dropped_datagrams: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """A change took place."""

    outside: Endpoint | None = None
    traffic: Traffic | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A change did not take place, and left nothing behind. `errno` may be 0."""

    errno: int
    why: str


Result = Done | Failed
