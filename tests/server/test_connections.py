"""How many connections there may be, in the words that refuse one more."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mcastsocks.server.config import Limits
from mcastsocks.server.connections import Connections

ONE, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def connections(most: int = 100, **limits: int) -> Connections:
    return Connections(Limits(**limits), most)


def test_newcomer_beyond_what_descriptors_allow_is_refused_and_still_counted() -> None:
    full = connections(2)
    first, second, third = (full.open(client) for client in (ONE, OTHER, OTHER))
    assert (first.full, second.full, third.full) == (None, None, "the relay is full: 2 connections")
    assert len(full) == 3
    third.close()
    first.close()
    assert full.open(OTHER).full is None


def test_there_is_room_to_refuse_some_but_not_any_number() -> None:
    full = connections(2)
    for _ in range(33):
        full.open(ONE)
    assert not full.overrun
    last = full.open(ONE)
    assert full.overrun
    last.close()
    assert not full.overrun


def test_unfinished_logins_are_limited_by_address() -> None:
    few = connections(handshakes_per_client=2)
    first, second, other = (few.open(client) for client in (ONE, ONE, OTHER))
    assert (first.full, second.full, other.full) == (None, None, None)
    third = few.open(ONE)
    assert third.full == "192.0.2.1 has 2 connections that have not logged in"
    third.close()
    assert second.log_in("alice") is None
    assert few.open(ONE).full is None


def test_connections_are_limited_by_user_wherever_they_come_from() -> None:
    few = connections(connections_per_user=1)
    first, second, third = (few.open(client) for client in (ONE, OTHER, OTHER))
    assert first.log_in("alice") is None
    assert second.log_in("alice") == "alice has 1 connections, the limit for one user"
    assert third.log_in("bob") is None
    second.close()
    first.close()
    assert few.open(ONE).log_in("alice") is None


@pytest.mark.parametrize("account", ["alice", None])
def test_nothing_is_kept_of_connections_that_closed(account: str | None) -> None:
    some = connections()
    places = [some.open(ONE) for _ in range(3)]
    for place in places:
        if account:
            place.log_in(account)
    for place in places:
        place.close()
    assert len(some) == len(some.handshakes) == len(some.users) == 0
