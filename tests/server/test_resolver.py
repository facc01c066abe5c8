"""Names are looked up aside, a few at once, and not for ever."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from mcastsocks.server.resolver import ResolveError, Resolver
from tests.server.loopback import run, until

Answers = Callable[[str], list[str]]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answers], None]:
    """Put a function in the place of the system's resolver."""

    def install(answers: Answers) -> None:
        def getaddrinfo(name: str, *_: object, **__: object) -> list[object]:
            return [(0, 0, 0, "", (address, 0)) for address in answers(name)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return install


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What the system's resolver waits for; opened at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def resolve(name: str, timeout_s: float = 10) -> list[str]:
    async def once() -> list[str]:
        return [str(address) for address in await Resolver(4, 4, timeout_s).resolve(name, "alice")]

    return asyncio.run(once())


def test_addresses_come_in_the_systems_order_each_once(answering: Callable[[Answers], None]) -> None:
    answering(lambda name: ["2001:db8::1", "192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2", "fe80::1%lo"])
    assert resolve("host.example") == ["2001:db8::1", "192.0.2.1", "192.0.2.2", "fe80::1"]


def test_address_written_as_a_name_is_that_address() -> None:
    assert resolve("127.0.0.1") == ["127.0.0.1"]


def test_unknown_name_is_told_with_the_systems_words(answering: Callable[[Answers], None]) -> None:
    def unknown(name: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    answering(unknown)
    with pytest.raises(ResolveError, match=r"^host\.example: Name or service not known$"):
        resolve("host.example")


@pytest.mark.parametrize("name", ["a..b", ".", "x" * 64 + ".example"])
def test_name_that_cannot_be_one_is_an_error_like_any_other(name: str) -> None:
    with pytest.raises(ResolveError, match="not a name that could be looked up"):
        resolve(name)


def test_slow_name_is_given_up(answering: Callable[[Answers], None], gate: threading.Event) -> None:
    answering(lambda name: ["192.0.2.1"] if gate.wait(10) else [])
    with pytest.raises(ResolveError, match=r"^slow\.example did not resolve within 0\.01 s$"):
        resolve("slow.example", timeout_s=0.01)


def test_look_ups_are_bounded_until_their_threads_are_done(
    answering: Callable[[Answers], None], gate: threading.Event
) -> None:
    answering(lambda name: ["192.0.2.1"] if gate.wait(10) else [])

    async def crowd() -> None:
        resolver = Resolver(2, 2, 0.01)
        for name in ("a", "b"):
            with pytest.raises(ResolveError, match="did not resolve"):
                await resolver.resolve(name, "alice")
        with pytest.raises(ResolveError, match="2 names are being looked up already"):  # the threads still are
            await resolver.resolve("c", "alice")
        gate.set()
        await until(lambda: not resolver._under_way)
        assert await resolver.resolve("c", "alice") == [ip_address("192.0.2.1")]

    run(crowd())


def test_others_go_on_while_a_name_is_looked_up(answering: Callable[[Answers], None], gate: threading.Event) -> None:
    answering(lambda name: ["192.0.2.1"] if name == "fast" or gate.wait(10) else [])

    async def both() -> None:
        resolver = Resolver(4, 4, 10)
        async with asyncio.TaskGroup() as group:
            slow = group.create_task(resolver.resolve("slow", "alice"))
            assert await resolver.resolve("fast", "alice") == [ip_address("192.0.2.1")]
            assert not slow.done()
            gate.set()

    run(both())


def test_caller_that_goes_away_leaves_no_trace(
    answering: Callable[[Answers], None], gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(name: str) -> list[str]:
        gate.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    answering(fails)

    async def go() -> None:
        resolver = Resolver(1, 1, 10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await resolver.resolve("slow", "alice")
        gate.set()
        await until(lambda: not resolver._under_way)

    run(go())
    assert not caplog.records


def test_look_ups_are_bounded_for_each_user(answering: Callable[[Answers], None], gate: threading.Event) -> None:
    answering(lambda name: ["192.0.2.1"] if gate.wait(10) else [])

    async def crowd() -> None:
        resolver = Resolver(4, 2, 10)
        async with asyncio.TaskGroup() as group:
            for name in ("a", "b"):
                group.create_task(resolver.resolve(name, "alice"))
            await until(lambda: resolver._under_way == 2)
            third = group.create_task(resolver.resolve("c", "alice"))
            group.create_task(resolver.resolve("c", "bob"))
            await until(lambda: resolver._under_way == 3)
            assert not third.done(), "alice has as many as she may, bob has not"
            gate.set()
        assert third.result() == [ip_address("192.0.2.1")]
        assert (resolver._under_way, len(resolver._held)) == (0, 0)

    run(crowd())


def test_user_is_charged_for_a_name_that_timed_out_until_its_thread_is_done(
    answering: Callable[[Answers], None], gate: threading.Event
) -> None:
    answering(lambda name: ["192.0.2.1"] if gate.wait(10) else [])

    async def crowd() -> None:
        resolver = Resolver(4, 1, 0.01)
        with pytest.raises(ResolveError, match="did not resolve"):
            await resolver.resolve("a", "alice")
        with pytest.raises(ResolveError, match="1 names are being looked up for alice already"):
            await resolver.resolve("b", "alice")
        gate.set()
        await until(lambda: not resolver._under_way)
        assert await resolver.resolve("b", "alice") == [ip_address("192.0.2.1")]

    run(crowd())


def test_look_up_for_which_there_is_no_thread_is_told_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def go() -> None:
        resolver = Resolver(1, 1, 10)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", none_left)
            for _ in range(2):
                with pytest.raises(ResolveError, match=r"^host\.example: can't start new thread$"):
                    await resolver.resolve("host.example", "alice")
        assert await resolver.resolve("127.0.0.1", "alice") == [ip_address("127.0.0.1")]

    run(go())


def test_many_names_of_one_user_wait_for_their_turn_and_too_many_are_refused(
    answering: Callable[[Answers], None], gate: threading.Event
) -> None:
    answering(lambda name: ["192.0.2.1"] if gate.wait(10) else [])

    async def crowd() -> None:
        resolver = Resolver(8, 2, 10)
        async with asyncio.TaskGroup() as group:
            looking = [group.create_task(resolver.resolve(f"n{number}", "alice")) for number in range(258)]
            await until(lambda: resolver._waiting["alice"] == 256)
            with pytest.raises(ResolveError, match="256 names wait to be looked up for alice already"):
                await resolver.resolve("one more", "alice")
            gate.set()
        assert all(each.result() == [ip_address("192.0.2.1")] for each in looking)
        assert (resolver._under_way, len(resolver._held), len(resolver._waiting)) == (0, 0, 0)

    run(crowd())
