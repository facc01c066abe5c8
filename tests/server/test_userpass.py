"""Logins: right, wrong, remembered, throttled; with a clock of our own and hashes that cost nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.rules.users import User, Users
from mcastsocks.server.auth import userpass
from mcastsocks.server.auth.throttle import SharedThrottle, Throttle
from mcastsocks.server.auth.userpass import PasswordCheck, Remembered
from mcastsocks.server.sections import Limits
from mcastsocks.server.shared_ledger import SharedLedger
from mcastsocks.server.shares import Shares
from mcastsocks.server.worker import Worker
from mcastsocks.wire.socks5 import Credentials

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
USERS = Users(users={"alice": User(password=CHEAP.hash("right")), "bob": User(password=CHEAP.hash("right"))})
ALICE, WRONG, NOBODY = (Credentials(*pair) for pair in ((b"alice", b"right"), (b"alice", b"wrong"), (b"eve", b"right")))
HERE, THERE = ip_address("192.0.2.7"), ip_address("2001:db8::7")
REFUSED, THROTTLED = "wrong user name or password", "too many failed logins from this address"
LIMITS = Limits(login_failures_per_minute=3, login_remembered_s=300, logins_remembered=100)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Hashing:
    """Counts verifications; while `gate` is closed they wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.gate = 0, threading.Event()
        self.gate.set()
        verify = userpass._verify

        def counted(stored: str, password: bytes) -> bool:
            self.count += 1
            assert self.gate.wait(10)
            return verify(stored, password)

        monkeypatch.setattr(userpass, "_verify", counted)
        monkeypatch.setattr(userpass, "HASHER", CHEAP)


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Hashing:
    return Hashing(monkeypatch)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def passwords(hashing: Hashing, clock: Clock) -> Iterator[PasswordCheck]:
    check = PasswordCheck(USERS, LIMITS, clock)
    yield check
    check.close()


def checking(users: int, per_minute: int, clock: Clock) -> PasswordCheck:
    """For users 0, 1, …, all with the password "right"."""
    hashed = User(password=CHEAP.hash("right"))
    limits = LIMITS.model_copy(update={"login_failures_per_minute": per_minute})
    return PasswordCheck(Users(users={str(n): hashed for n in range(users)}), limits, clock)


def login(passwords: PasswordCheck, *attempts: Credentials, client: str = str(HERE)) -> list[str | None]:
    """One after the other; why each was refused, or None."""

    async def attempt() -> list[str | None]:
        return [await passwords.check(each, ip_address(client)) for each in attempts]

    return asyncio.run(attempt())


def test_right_password_is_accepted_and_everything_else_refused(passwords: PasswordCheck) -> None:
    assert login(passwords, ALICE) == [None]
    assert login(passwords, WRONG, NOBODY, Credentials(b"alice", b"")) == 3 * [REFUSED]


@pytest.mark.parametrize("user", [b"Alice", b"alice\0", b"\xff", b"alice "])
def test_name_is_compared_octet_by_octet(passwords: PasswordCheck, user: bytes) -> None:
    assert login(passwords, Credentials(user, b"right")) == [REFUSED]


def test_unknown_user_costs_a_verification_too(passwords: PasswordCheck, hashing: Hashing) -> None:
    login(passwords, NOBODY)
    assert hashing.count == 1


def test_unknown_user_never_gets_in_whatever_the_stand_in_hash(
    passwords: PasswordCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userpass, "_verify", lambda stored, password: True)
    assert login(passwords, NOBODY) == [REFUSED]


def test_remembered_login_is_not_hashed_again(passwords: PasswordCheck, hashing: Hashing) -> None:
    assert login(passwords, *5 * [ALICE]) == 5 * [None]
    assert hashing.count == 1
    assert login(passwords, WRONG, Credentials(b"bob", b"right")) == [REFUSED, None]
    assert hashing.count == 3


def test_remembered_login_expires(passwords: PasswordCheck, hashing: Hashing, clock: Clock) -> None:
    login(passwords, ALICE)
    clock.now += 299
    login(passwords, ALICE)
    assert hashing.count == 1
    clock.now += 1
    assert login(passwords, ALICE) == [None]
    assert hashing.count == 2


def test_remembered_login_gets_in_where_others_are_throttled(passwords: PasswordCheck) -> None:
    assert login(passwords, ALICE, *3 * [WRONG], WRONG, ALICE) == [None, *3 * [REFUSED], THROTTLED, None]


def test_throttle_refuses_before_hashing(passwords: PasswordCheck, hashing: Hashing) -> None:
    assert login(passwords, *3 * [WRONG], WRONG, NOBODY, ALICE) == [*3 * [REFUSED], *3 * [THROTTLED]]
    assert hashing.count == 3


def test_throttle_is_for_one_address(passwords: PasswordCheck) -> None:
    login(passwords, *4 * [WRONG])
    assert login(passwords, ALICE, client=str(THERE)) == [None]


def test_throttle_fills_again_with_time(passwords: PasswordCheck, clock: Clock) -> None:
    login(passwords, *3 * [WRONG])
    clock.now += 19
    assert login(passwords, WRONG) == [THROTTLED]
    clock.now += 1  # three a minute: one in 20 s
    assert login(passwords, WRONG, WRONG) == [REFUSED, THROTTLED]
    clock.now += 3600
    assert login(passwords, *4 * [WRONG]) == [*3 * [REFUSED], THROTTLED]


def test_successful_logins_do_not_use_up_the_throttle(passwords: PasswordCheck, clock: Clock) -> None:
    for _ in range(10):
        assert login(passwords, ALICE) == [None]
        clock.now += 300  # forgotten, and a minute's worth has come back
    assert login(passwords, ALICE, *3 * [WRONG]) == [None, *3 * [REFUSED]]


def test_throttle_bears_so_many_failures_and_no_more(clock: Clock) -> None:
    throttle = Throttle(3, 10, clock)
    assert [throttle.left(HERE) for _ in range(4)] == 4 * [3]  # asking costs nothing
    for left in (2, 1, 0):
        throttle.spend(HERE)
        assert throttle.left(HERE) == left
    assert throttle.left(THERE) == 3
    clock.now += 20
    assert throttle.left(HERE) == 1
    clock.now += 3600
    assert throttle.left(HERE) == 3


def test_throttle_forgets_the_address_that_was_quiet_longest(clock: Clock) -> None:
    throttle = Throttle(1, 2, clock)
    first, second, third = (ip_address(f"192.0.2.{n}") for n in (1, 2, 3))
    for each in (first, second, third):
        assert throttle.left(each) == 1
        throttle.spend(each)
    assert [throttle.left(each) for each in (third, second, first)] == [0, 0, 1]
    assert len(throttle._full) == 2


def test_shared_throttle_is_the_same_to_every_worker(clock: Clock) -> None:
    throttle = SharedThrottle(Shares(2, 8), 3, 100, clock)  # a process that is forked has this very one
    for left in (3, 2, 1, 0):
        assert throttle.left(HERE) == left
        throttle.spend(HERE)
    assert throttle.left(THERE) == 3
    clock.now += 20
    assert throttle.left(HERE) == 0, "it went on after there was none left"
    clock.now += 20
    assert throttle.left(HERE) == 1
    clock.now += 3600
    assert throttle.left(HERE) == 3


def test_shared_throttle_forgets_who_is_to_be_forgotten_first(clock: Clock) -> None:
    throttle = SharedThrottle(Shares(2, 8), 2, 8, clock)
    crowd = [ip_address(f"192.0.2.{n}") for n in range(9)]
    for address in crowd[:8]:
        throttle.spend(address)
        clock.now += 1
    throttle.spend(crowd[1])
    throttle.spend(crowd[8])
    assert [throttle.left(address) for address in crowd] == [2, 0, *7 * [1]]


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 50)), max_size=30))
def test_both_throttles_bear_the_same(steps: list[tuple[int, float]]) -> None:
    clock = Clock()
    one, shared = Throttle(4, 100, clock), SharedThrottle(Shares(1, 8), 4, 100, clock)
    for number, pause_s in steps:
        address = ip_address(f"192.0.2.{number}")
        assert one.left(address) == shared.left(address)
        for throttle in (one, shared):
            throttle.spend(address)
        clock.now += pause_s


def of_two(clock: Clock, limits: Limits = LIMITS) -> list[PasswordCheck]:
    """The same in two workers."""
    shares = Shares(2, 64)
    throttle = SharedThrottle(shares, limits.login_failures_per_minute, 100, clock)
    workers = [Worker(n, 2, SharedLedger(shares, n), throttle=throttle) for n in (0, 1)]
    return [PasswordCheck(USERS, limits, clock, worker) for worker in workers]


def test_no_more_failures_are_borne_by_two_workers_than_by_one(hashing: Hashing, clock: Clock) -> None:
    async def crowd() -> list[str | None]:
        checks = of_two(clock)
        answers = await asyncio.gather(*(checks[n % 2].check(WRONG, HERE) for n in range(20)))
        assert await checks[0].check(ALICE, HERE) == THROTTLED
        assert await checks[1].check(ALICE, THERE) is None
        for check in checks:
            check.close()
        return answers

    assert sorted(map(str, asyncio.run(crowd()))) == sorted(3 * [REFUSED] + 17 * [THROTTLED])
    assert hashing.count == 4


def test_right_logins_at_two_workers_wait_for_each_other_and_succeed(hashing: Hashing, clock: Clock) -> None:
    async def crowd() -> list[str | None]:
        checks = of_two(clock, LIMITS.model_copy(update={"login_failures_per_minute": 1}))
        users = [Credentials(name, b"right") for name in (b"alice", b"bob")]
        answers = await asyncio.gather(*(checks[n % 2].check(users[n // 2 % 2], HERE) for n in range(12)))
        for check in checks:
            check.close()
        return answers

    assert asyncio.run(crowd()) == 12 * [None]
    assert hashing.count == 4, "each worker remembers for itself"


@pytest.mark.parametrize("users", [1, 20])
def test_right_logins_of_one_address_all_succeed_however_many_come_at_once(
    hashing: Hashing, clock: Clock, users: int
) -> None:
    async def crowd() -> None:
        check = checking(users, 10, clock)
        attempts = [Credentials(str(n % users).encode(), b"right") for n in range(20)]
        assert await asyncio.gather(*(check.check(each, HERE) for each in attempts)) == 20 * [None]
        assert (check._under_way, len(check._checking)) == (0, 0)
        check.close()

    asyncio.run(crowd())
    assert hashing.count == (10 if users == 1 else 20)  # the others were remembered by then


def test_wrong_logins_that_come_at_once_are_throttled_before_hashing(
    passwords: PasswordCheck, hashing: Hashing
) -> None:
    async def crowd() -> list[str | None]:
        return await asyncio.gather(*(passwords.check(WRONG, HERE) for _ in range(20)))

    assert sorted(map(str, asyncio.run(crowd()))) == sorted(3 * [REFUSED] + 17 * [THROTTLED])
    assert hashing.count == 3


def test_no_more_logins_of_one_address_are_checked_than_it_has_failures_left(
    hashing: Hashing, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userpass, "_WAITING", 11)
    hashing.gate.clear()

    async def crowd() -> None:
        check = checking(20, 10, clock)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            crowd = [group.create_task(check.check(Credentials(str(n).encode(), b"right"), HERE)) for n in range(20)]
            other = group.create_task(check.check(Credentials(b"0", b"right"), THERE))
            third = group.create_task(check.check(Credentials(b"0", b"right"), ip_address("192.0.2.8")))
            assert await third == "too many logins at once"
            assert check._under_way == 11  # ten of the crowd, which left room for the other
            for waiting in crowd[15:]:
                waiting.cancel()
            hashing.gate.set()
        assert other.result() is None
        assert [each.result() for each in crowd[:15]] == 15 * [None]
        assert (check._under_way, len(check._checking)) == (0, 0)
        check.close()

    asyncio.run(crowd())


def test_login_that_waits_for_others_of_its_address_is_not_refused_for_them(
    hashing: Hashing, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userpass, "_WAITING", 1)

    async def crowd() -> None:
        check = checking(5, 1, clock)
        attempts = [Credentials(str(n).encode(), b"right") for n in range(5)]
        assert await asyncio.gather(*(check.check(each, HERE) for each in attempts)) == 5 * [None]
        check.close()

    asyncio.run(crowd())


def test_ipv6_hosts_are_throttled_by_their_64_bit_prefix(passwords: PasswordCheck) -> None:
    for host in ("2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:3"):
        assert login(passwords, WRONG, client=host) == [REFUSED]
    assert login(passwords, ALICE, client="2001:db8::4") == [THROTTLED]
    assert login(passwords, ALICE, client="2001:db8:0:1::4") == [None]


def test_login_is_remembered_for_this_hash_only(clock: Clock) -> None:
    remembered = Remembered(10, 300, clock)
    remembered.add(ALICE, "hash")
    assert remembered.knows(ALICE, "hash")
    assert not remembered.knows(ALICE, "changed hash")
    assert not remembered.knows(WRONG, "hash")
    assert not remembered.knows(Credentials(b"alicer", b"ight"), "hash")
    assert not Remembered(10, 300, clock).knows(ALICE, "hash")


def test_remembered_logins_are_bounded_and_the_oldest_goes_first(clock: Clock) -> None:
    remembered = Remembered(2, 300, clock)
    several = [Credentials(b"alice", str(n).encode()) for n in range(3)]
    for each in (several[0], several[1], several[0], several[2]):
        remembered.add(each, "hash")
    assert [remembered.knows(each, "hash") for each in several] == [True, False, True]
    assert len(remembered._until) == 2


def test_nothing_remembered_holds_the_password(clock: Clock) -> None:
    remembered = Remembered(2, 300, clock)
    remembered.add(ALICE, "hash")
    assert b"right" not in b"".join(remembered._until)
    assert "right" not in repr(ALICE)


def test_too_many_logins_at_once_are_refused_not_queued(
    passwords: PasswordCheck, hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userpass, "_WAITING", 2)
    hashing.gate.clear()

    async def attempt() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            waiting = [group.create_task(passwords.check(ALICE, each)) for each in (HERE, THERE)]
            third = group.create_task(passwords.check(ALICE, HERE))  # starts behind them
            assert await third == "too many logins at once"
            assert not any(task.done() for task in waiting)
            hashing.gate.set()
        assert [task.result() for task in waiting] == [None, None]
        assert await passwords.check(WRONG, HERE) == REFUSED

    asyncio.run(attempt())


def test_login_that_is_given_up_makes_room_again(
    passwords: PasswordCheck, hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userpass, "_WAITING", 1)
    hashing.gate.clear()

    async def attempt() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await passwords.check(ALICE, HERE)
        hashing.gate.set()
        assert await passwords.check(ALICE, HERE) is None

    asyncio.run(attempt())


def test_event_loop_runs_on_while_a_password_is_verified(passwords: PasswordCheck, hashing: Hashing) -> None:
    hashing.gate.clear()

    async def attempt() -> str | None:
        asyncio.get_running_loop().call_soon(hashing.gate.set)
        return await passwords.check(ALICE, HERE)

    assert asyncio.run(attempt()) is None


def test_hash_that_argon2_cannot_read_refuses() -> None:
    assert not userpass._verify("$argon2id$v=19$broken", b"right")
