"""What several workers count together, beside dictionaries that do the same; and what is left when one dies."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcastsocks.address import Endpoint
from mcastsocks.errors import LocalError
from mcastsocks.server.sections import Limits
from mcastsocks.server.shared_ledger import SharedClaim, SharedLedger
from mcastsocks.server.shares import _COUNTS, _FREE, Shares, rows_for
from mcastsocks.tables.associations import AssociationTable, Channel, TableLimits

WORKERS = 3
workers = st.integers(0, WORKERS - 1)
accounts = st.sampled_from(("alice", "bob", "10.0.0.1"))
keys = st.sampled_from("abcd")


class AllWorkers(RuleBasedStateMachine):
    """Every worker counts, and any of them may die; what it held is gone, and the rest is as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.shares = Shares(WORKERS, 64)
        self.ledgers = [SharedLedger(self.shares, worker) for worker in range(WORKERS)]
        self.tallies = [ledger.tally("connections") for ledger in self.ledgers]
        self.groups = [ledger.tallies("groups") for ledger in self.ledgers]
        self.counted = [Counter[str]() for _ in range(WORKERS)]
        self.grouped = [Counter[tuple[str, str]]() for _ in range(WORKERS)]
        self.claims: list[tuple[int, str, SharedClaim]] = []

    @rule(worker=workers, account=accounts)
    def add(self, worker: int, account: str) -> None:
        self.tallies[worker].add(account)
        self.counted[worker][account] += 1

    @rule(worker=workers, account=accounts)
    def remove(self, worker: int, account: str) -> None:
        if self.counted[worker][account]:
            self.tallies[worker].remove(account)
            self.counted[worker][account] -= 1
        else:
            with pytest.raises(KeyError):
                self.tallies[worker].remove(account)

    @rule(worker=workers, account=accounts, key=keys)
    def add_group(self, worker: int, account: str, key: str) -> None:
        self.groups[worker].add(account, key)
        self.grouped[worker][account, key] += 1

    @rule(worker=workers, account=accounts, key=keys)
    def remove_group(self, worker: int, account: str, key: str) -> None:
        if self.grouped[worker][account, key]:
            self.groups[worker].remove(account, key)
            self.grouped[worker][account, key] -= 1

    @rule(worker=workers, key=keys)
    def claim(self, worker: int, key: str) -> None:
        self.claims.append((worker, key, self.ledgers[worker].claim("voice", key)))

    @rule(index=st.integers(0, 20))
    def give_up_claim(self, index: int) -> None:
        if index < len(self.claims):
            self.claims.pop(index)[2].close()

    @rule(worker=workers)
    def die(self, worker: int) -> None:
        self.shares.forget(worker)
        self.counted[worker].clear()
        self.grouped[worker].clear()
        self.claims = [each for each in self.claims if each[0] != worker]

    @invariant()
    def counts_are_those_of_all(self) -> None:
        counted = sum(self.counted, Counter[str]())
        for tally in self.tallies:
            assert {account: tally[account] for account in counted} == dict(counted)
            assert (len(tally), tally.total) == (len(+counted), counted.total())
        grouped = sum(self.grouped, Counter[tuple[str, str]]())
        for groups in self.groups:
            assert {pair: groups.count(*pair) for pair in grouped} == dict(grouped)
            for account in ("alice", "bob", "10.0.0.1"):
                assert groups.different(account) == len({key for its, key in +grouped if its == account})

    @invariant()
    def one_of_those_who_claim_has_it(self) -> None:
        for key in "abcd":
            holders = {worker for worker, its, claim in self.claims if its == key and claim.is_ours}
            claimants = {worker for worker, its, _ in self.claims if its == key}
            assert len(holders) == bool(claimants)
            for worker, ledger in enumerate(self.ledgers):
                assert ledger.is_others("voice", key) == bool(holders - {worker})

    @invariant()
    def nothing_else_takes_room(self) -> None:
        counted, grouped = sum(self.counted, Counter[str]()), sum(self.grouped, Counter[tuple[str, str]]())
        rows = len(counted) + bool(counted) + len(grouped) + len({account for account, _ in grouped})
        assert len(self.shares) == rows + len({key for _, key, _ in self.claims})


AllWorkers.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAllWorkers = AllWorkers.TestCase


def test_the_first_to_come_has_the_claim_until_it_goes() -> None:
    shares = Shares(3, 8)
    late, first, last = (SharedLedger(shares, worker) for worker in range(3))
    claims = [ledger.claim("group") for ledger in (first, late, last, first)]

    def have() -> list[bool]:
        return [claim.is_ours for claim in claims]

    assert have() == [True, False, False, True]
    claims[0].close()
    assert have() == [True, False, False, True], "it has another one still"
    claims[3].close()
    assert have()[1:3] == [True, False]
    assert first.is_others("group")
    shares.forget(0)
    assert have()[2]
    assert not last.is_others("group")


def test_table_is_never_overfull() -> None:
    shares = Shares(2, 3)
    tally = SharedLedger(shares, 1).tally("handshakes")
    tally.add("a")
    tally.add("b")
    with pytest.raises(LocalError):
        tally.add("c")
    assert (tally["a"], tally["b"], tally["c"], len(tally)) == (1, 1, 0, 2)
    tally.remove("a")
    tally.add("c")
    assert (tally["a"], tally["c"], len(tally)) == (0, 1, 2)


def test_rows_are_enough_for_all_that_limits_allow() -> None:
    limits = Limits(connections=2, associations=3, groups=2)
    shares = Shares(2, rows_for(limits, 2))
    ledgers = [SharedLedger(shares, worker) for worker in range(2)]
    for worker, ledger in enumerate(ledgers):
        for number in range(2 * (limits.connections + 32)):  # as many as are open, whole or being refused
            for name in ("handshakes", "connections of users"):
                ledger.tally(name).add((worker, number))
    for number in range(limits.associations):
        for name in ("associations", "local endpoints", "groups"):
            ledgers[0].tally(name).add(number)
        ledgers[0].tallies("groups of accounts").add(number, number)
        for name in ("takes inside", "heard inside", "multicasts inside"):
            ledgers[0].claim(name, number)


@contextmanager
def process() -> Iterator[bool]:
    """Whether this is the new one; it ends with the block, and the old one waits for that."""
    pid = os.fork()
    try:
        yield not pid
    except BaseException:
        if not pid:
            os._exit(1)
        raise
    if not pid:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_processes_count_in_the_same_table() -> None:
    shares = Shares(2, 8)
    ours, its = (SharedLedger(shares, worker).tally("connections") for worker in (0, 1))
    ours.add("alice")
    with process() as is_new:
        if is_new:
            assert its["alice"] == 1
            its.add("alice")
    assert ours["alice"] == 2
    shares.forget(1)
    assert ours["alice"] == 1


def test_a_process_that_dies_in_the_middle_of_a_change_leaves_the_table_usable() -> None:
    """Whatever it was at: the lock is free, and all is derived anew but what others count."""
    shares = Shares(2, 8)
    ours, its = (SharedLedger(shares, worker).tallies("groups") for worker in (0, 1))
    ours.add("alice", "a")
    with process() as is_new:
        if is_new:
            its.add("alice", "b")
            shares.__enter__()
            parent = shares._find(shares.name("groups", "alice"))
            row = shares._open(shares.name("groups", "alice", "c"), parent)
            shares._words[shares._at(row) + _COUNTS + 1] = 5  # counted, and its parent not told
            shares._words[shares._bucket(shares.name("groups", "alice"))] = 0  # everybody lost
            shares._words[_FREE] = row  # in use and free
    shares.forget(1)
    assert (ours.count("alice", "a"), ours.count("alice", "c"), ours.different("alice")) == (1, 0, 1)
    assert len(shares) == 2
    for key in "bcdef":
        ours.add("alice", key)
    assert ours.different("alice") == 6
    for key in "abcdef":
        ours.remove("alice", key)
    assert len(shares) == 0


def test_processes_that_fill_a_table_at_once_never_overshoot() -> None:
    shares, room = Shares(4, 64), 40

    def fill(worker: int) -> None:
        ledger = SharedLedger(shares, worker)
        tally = ledger.tally("associations")
        for number in range(50):
            with ledger.turn():
                if tally.total < room:
                    tally.add(f"{worker} {number % 3}")

    with process() as one, process() as two:
        fill(2 * one + two)
    assert SharedLedger(shares, 0).tally("associations").total == room


def test_sessions_of_all_workers_have_different_numbers() -> None:
    shares = Shares(2, 8)
    ledgers = [SharedLedger(shares, worker) for worker in range(2)]
    assert [ledgers[index % 2].next_session() for index in range(4)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (TableLimits(3, 9, 9, 9), "the relay is full: 3 associations"),
        (TableLimits(9, 3, 9, 9), "alice holds 3 associations, the limit for one user"),
        (TableLimits(9, 9, 2, 9), "the relay is full: 2 groups"),
        (TableLimits(9, 9, 9, 2), "alice uses 2 groups, the limit for one user"),
        (TableLimits(9, 9, 9, 9, local_endpoints_per_user=3), "alice uses 3 local endpoints, the limit for one user"),
    ],
)
def test_limits_of_associations_hold_for_all_tables_of_a_relay(limits: TableLimits, words: str) -> None:
    shares = Shares(2, 99)
    tables = [AssociationTable(limits, ledger=SharedLedger(shares, worker)) for worker in (0, 1)]
    here = ip_address("192.0.2.10")
    channels = [Channel(n, "alice", here, (str(here), 9), Endpoint(here, 1080), Endpoint(here, 1080)) for n in (1, 2)]
    targets = [Endpoint(ip_address("239.1.2.3"), port) for port in (5000, 5000, 5001, 5002)]
    opened = []
    for number, target in enumerate(targets[:3]):
        table, channel, local = tables[number % 2], channels[number % 2], Endpoint(here, 4000 + number)
        assert table.full_for(channel, local, target) is None
        opened.append(table.open(channel, local, target, target, 0.0))
    assert [t.full_for(c, None, targets[3]) for t, c in zip(tables, channels, strict=True)] == [words, words]
    tables[0].close(opened[2])
    assert [t.full_for(c, None, targets[3]) for t, c in zip(tables, channels, strict=True)] == [None, None]
    tables[0].close(opened[0])
    tables[1].close(opened[1])
    assert len(shares) == 0
