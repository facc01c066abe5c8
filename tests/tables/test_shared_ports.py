"""No two clients at one port for one remote, also not shortly after one another, and no memory without bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.tables import shared_ports
from mcastsocks.tables.shared_ports import REST_S, SharedPorts


def test_clients_of_different_remotes_share() -> None:
    ports = SharedPorts()
    assert [ports.take(remote, client, 0.0) for client, remote in enumerate("abc")] == [0, 0, 0]


def test_clients_of_one_remote_do_not() -> None:
    ports = SharedPorts()
    assert [ports.take("a", client, 0.0) for client in range(3)] == [0, 1, 2]
    assert ports.take("a", 1, 0.0) == 1, "it has one already"


def test_what_was_left_rests_for_as_long_as_answers_may_come() -> None:
    ports = SharedPorts()
    assert (ports.take("a", 1, 0.0), ports.take("a", 2, 0.0)) == (0, 1)
    ports.give_back("a", 1, 10.0)
    assert ports.take("a", 3, 10.0 + REST_S - 1) == 2
    assert ports.take("a", 4, 10.0 + REST_S) == 0


def test_the_last_use_counts() -> None:
    ports = SharedPorts()
    for _ in range(2):
        assert ports.take("a", 1, 0.0) == 0
    ports.give_back("a", 1, 0.0)
    assert ports.take("a", 1, REST_S) == 0, "still its own"


def test_more_is_not_given_back_than_was_taken() -> None:
    ports = SharedPorts()
    ports.take("a", 1, 0.0)
    ports.give_back("a", 1, 0.0)
    with pytest.raises(KeyError):
        ports.give_back("a", 1, 0.0)


def test_remotes_without_clients_are_forgotten_in_time() -> None:
    ports = SharedPorts()
    for remote in range(100):
        ports.take(remote, 1, 0.0)
        ports.give_back(remote, 1, 0.0)
    ports.take("a", 1, REST_S)
    assert len(ports) == 1


def test_only_so_many_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_ports, "_MOST_RESTING", 10)
    ports = SharedPorts()
    for remote in range(1000):
        ports.take(remote, 1, 0.0)
        ports.give_back(remote, 1, 0.0)
    assert len(ports) == 10


_STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans(), st.integers(0, 40)), max_size=60)


@given(_STEPS)
def test_whatever_happens_a_port_for_a_remote_is_one_clients(steps: list[tuple[int, int, bool, int]]) -> None:
    ports, now = SharedPorts(), 0.0
    held: dict[tuple[int, int], list[int]] = {}
    last: dict[tuple[int, int], tuple[int, float]] = {}
    for remote, client, takes, passed in steps:
        now += passed
        key: Any = (remote, client)
        if takes:
            number = ports.take(remote, client, now)
            others = [numbers[0] for (its, who), numbers in held.items() if its == remote and who != client]
            assert number not in others
            assert held.get(key, [number])[0] == number
            if key not in held and (remote, number) in last:
                who, left_at = last[remote, number]
                assert who == client or left_at + REST_S <= now
            held.setdefault(key, []).append(number)
        elif key in held:
            number = held[key].pop()
            ports.give_back(remote, client, now)
            if not held[key]:
                del held[key]
                last[remote, number] = client, now
    assert len(ports) >= len({remote for remote, _ in held})
