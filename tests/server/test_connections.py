"""How many connections there may be, in the words that refuse one more."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mcastsocks.server.connections import Connections
from mcastsocks.server.sections import Limits
from mcastsocks.server.shared_ledger import SharedLedger
from mcastsocks.server.shares import Shares

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
    assert not full.turns_away(OTHER)
    last = full.open(ONE)
    assert full.turns_away(OTHER)
    assert full.turned_away == 1
    last.close()
    assert not full.turns_away(OTHER)
    assert full.turned_away == 1


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


def test_one_address_with_many_idle_connections_leaves_room_for_others() -> None:
    some = connections(20, handshakes_per_client=3)
    for _ in range(100):
        if not some.turns_away(ONE):
            some.open(ONE)
    assert len(some) == 7  # three that may log in, four that are told why not
    assert some.turned_away == 93
    for _ in range(3):
        assert not some.turns_away(OTHER)
        assert some.open(OTHER).full is None


def test_who_logs_in_makes_room_for_the_next_of_that_address() -> None:
    few = connections(20, handshakes_per_client=1)
    places = [few.open(ONE) for _ in range(5)]
    assert few.turns_away(ONE)
    places[0].log_in("alice")
    assert not few.turns_away(ONE)


def test_ipv6_hosts_count_by_their_64_bit_prefix() -> None:
    one, neighbour, other = (ip_address(f"2001:db8:0:{host}") for host in ("1::1", "1:ffff:ffff:ffff:ffff", "2::1"))
    few = connections(20, handshakes_per_client=1)
    assert few.open(one).full is None
    second = few.open(neighbour)
    assert second.full == "2001:db8:0:1:: has 1 connections that have not logged in"
    assert few.open(other).full is None
    for _ in range(3):
        few.open(neighbour)
    assert (few.turns_away(one), few.turns_away(other)) == (True, False)
    second.close()
    assert not few.turns_away(one)


def test_limits_hold_for_the_connections_of_all_workers() -> None:
    shares = Shares(2, 64)
    limits = Limits(connections=4, handshakes_per_client=2, connections_per_user=1)
    here, there = (Connections(limits, 4, SharedLedger(shares, worker)) for worker in (0, 1))
    assert [each.open(ONE).full for each in (here, there)] == [None, None]
    crowded = here.open(ONE)
    assert crowded.full == "192.0.2.1 has 2 connections that have not logged in"
    crowded.close()
    alice = here.open(OTHER)
    assert (alice.full, alice.log_in("alice")) == (None, None)
    again = there.open(OTHER)
    assert (again.full, again.log_in("alice")) == (None, "alice has 1 connections, the limit for one user")
    assert here.open(OTHER).full == there.open(OTHER).full == "the relay is full: 4 connections"
    assert (len(here), len(there)) == (3, 3)
    shares.forget(0)
    assert there.open(OTHER).full is None
