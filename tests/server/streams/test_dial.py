"""The first address that answers wins; when none does, what is told says most."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from mcastsocks.address import IPAddress, SockAddr, from_sockaddr
from mcastsocks.server.streams import dial as dialling
from mcastsocks.server.streams.dial import MOST_ATTEMPTS, DialFailed, dial, interleaved
from tests.server.streams.pairs import descriptors, run, until

ANY: Mapping[int, IPAddress | None] = {4: None, 6: None}
V4, V6 = IPv4Address("127.0.0.1"), IPv6Address("::1")


class Kernel:
    """Connects to some addresses fail as a test says; `tried` are all of them in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: dict[str, int]) -> None:
        self.tried: list[str] = []
        kernel = self

        class Socket(socket.socket):
            def connect(self, address: SockAddr) -> None:  # type: ignore[override]
                kernel.tried.append(address[0])
                if (number := fails.get(address[0])) is not None:
                    raise OSError(number, os.strerror(number))
                super().connect(address)

        monkeypatch.setattr(socket, "socket", Socket)


@pytest.fixture
def port() -> Iterator[int]:
    """Where 127.0.0.1 to .9 and ::1 listen."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        yield listener.getsockname()[1]


def addresses(*texts: str) -> list[IPAddress]:
    return [ip_address(text) for text in texts]


class Silent:
    """Listens, and answers nobody: its queue is full, so the kernel drops what asks to connect."""

    def __init__(self, host: str, port: int = 0) -> None:
        self._listener = socket.create_server((host, port), backlog=0)
        self.port: int = self._listener.getsockname()[1]
        self._filling = socket.create_connection((host, self.port))

    def answer(self) -> None:
        """Make room: who repeats the question is answered."""
        self._listener.accept()[0].close()

    def close(self) -> None:
        self._filling.close()
        self._listener.close()


@contextmanager
def silent(host: str) -> Iterator[int]:
    made = Silent(host)
    try:
        yield made.port
    finally:
        made.close()


@pytest.mark.parametrize("address", [V4, V6])
def test_one_address_is_connected_to_without_blocking(port: int, address: IPAddress) -> None:
    async def test() -> None:
        with await dial([address], port, timeout_s=10, local=ANY) as sock:
            assert from_sockaddr(sock.getpeername()) == (address, port)
            assert sock.getblocking() is False

    run(test())


def test_connection_comes_from_the_outside_address(port: int) -> None:
    async def test() -> None:
        local: dict[int, IPAddress | None] = {4: IPv4Address("127.0.0.7"), 6: V6}
        for address, source in ((V4, local[4]), (V6, local[6])):
            with await dial([address], port, timeout_s=10, local=local) as sock:
                assert sock.getsockname()[0] == str(source)
                assert sock.getsockopt(socket.IPPROTO_IP, 24) == 1  # IP_BIND_ADDRESS_NO_PORT

    run(test())


def test_refused_address_gives_way_to_the_next_at_once(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 3600)
    kernel = Kernel(monkeypatch, {"192.0.2.1": errno.ENETUNREACH, "192.0.2.2": errno.ECONNREFUSED})

    async def test() -> None:
        targets = addresses("192.0.2.1", "192.0.2.2", "127.0.0.1")
        with await dial(targets, port, timeout_s=10, local=ANY) as sock:
            assert sock.getpeername()[0] == "127.0.0.1"

    run(test())
    assert kernel.tried == ["192.0.2.1", "192.0.2.2", "127.0.0.1"]


def test_refusal_that_comes_late_starts_the_next_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 3600)

    async def test() -> None:
        refusing = Silent("127.0.0.2")
        with socket.create_server(("127.0.0.3", refusing.port)):
            before = descriptors()
            dialled = asyncio.create_task(
                dial(addresses("127.0.0.2", "127.0.0.3"), refusing.port, timeout_s=10, local=ANY)
            )
            await until(lambda: descriptors() == before + 1)
            refusing.close()
            with await dialled as sock:
                assert sock.getpeername()[0] == "127.0.0.3"

    run(test())


def test_silent_address_is_joined_by_the_next_after_the_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 0.05)

    async def test() -> None:
        with silent("127.0.0.2") as port, socket.create_server(("127.0.0.3", port)):
            begun = asyncio.get_running_loop().time()
            with await dial(addresses("127.0.0.2", "127.0.0.3"), port, timeout_s=10, local=ANY) as sock:
                assert sock.getpeername()[0] == "127.0.0.3"
            assert asyncio.get_running_loop().time() - begun >= 0.05

    run(test())


def test_answer_that_comes_late_still_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt goes on while others are tried; those are closed when it succeeds."""
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 0.01)

    async def test() -> None:
        late = Silent("127.0.0.2")
        never = Silent("127.0.0.3", late.port)
        before = descriptors()
        dialled = asyncio.create_task(dial(addresses("127.0.0.2", "127.0.0.3"), late.port, timeout_s=10, local=ANY))
        await until(lambda: descriptors() == before + 2)
        late.answer()
        with await dialled as sock:
            assert sock.getpeername()[0] == "127.0.0.2"
            assert descriptors() == before + 1
        late.close()
        never.close()

    run(test())


def test_many_silent_addresses_hold_a_bounded_number_of_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """All have their turn; the oldest gives way, and the last that answers wins."""
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 0.001)

    async def test() -> None:
        with silent("127.0.0.2") as port, socket.create_server(("127.0.0.3", port)):
            before = descriptors()
            dialled = asyncio.create_task(
                dial(addresses(*["127.0.0.2"] * 40, "127.0.0.3"), port, timeout_s=10, local=ANY)
            )
            most = 0
            while not dialled.done():
                most = max(most, descriptors() - before)
                await asyncio.sleep(0)
            assert most == MOST_ATTEMPTS
            with await dialled as sock:
                assert sock.getpeername()[0] == "127.0.0.3"

    run(test())


def test_timeout_tells_who_was_silent_and_who_had_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 3600)

    async def test() -> None:
        with silent("127.0.0.2") as port, pytest.raises(DialFailed) as caught:
            await dial(addresses("127.0.0.2", "127.0.0.3"), port, timeout_s=0.01, local=ANY)
        assert caught.value.errno == errno.ETIMEDOUT
        assert caught.value.strerror == "127.0.0.2: no answer in time; 127.0.0.3: not tried in time"

    run(test())


def test_cancelled_dial_leaves_no_socket() -> None:
    async def test() -> None:
        with silent("127.0.0.2") as port:
            before = descriptors()
            dialled = asyncio.create_task(dial(addresses("127.0.0.2"), port, timeout_s=10, local=ANY))
            await until(lambda: descriptors() == before + 1)
            dialled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dialled
            assert descriptors() == before

    run(test())


def test_dial_that_won_as_it_was_cancelled_leaves_no_socket(port: int) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        dialled = asyncio.create_task(dial([V4], port, timeout_s=10, local=ANY))
        await asyncio.sleep(0)
        loop.call_soon(dialled.cancel)
        with pytest.raises(asyncio.CancelledError):
            await dialled

    run(test())


@pytest.mark.parametrize(
    ("numbers", "telling"),
    [
        ([errno.ENETUNREACH, errno.ECONNREFUSED, errno.EHOSTUNREACH], errno.ECONNREFUSED),
        ([errno.ENETUNREACH, errno.EHOSTUNREACH], errno.EHOSTUNREACH),
        ([errno.ETIMEDOUT, errno.ENETUNREACH], errno.ENETUNREACH),
        ([errno.EADDRNOTAVAIL, errno.EACCES], errno.EACCES),
        ([errno.EMFILE, errno.EAFNOSUPPORT], errno.EAFNOSUPPORT),
        ([errno.EMFILE], errno.EMFILE),
    ],
)
def test_failure_carries_the_errno_that_says_most(
    monkeypatch: pytest.MonkeyPatch, numbers: list[int], telling: int
) -> None:
    fails = {f"192.0.2.{index}": number for index, number in enumerate(numbers)}
    Kernel(monkeypatch, fails)

    async def test() -> None:
        with pytest.raises(DialFailed) as caught:
            await dial(addresses(*fails), 1, timeout_s=10, local=ANY)
        assert caught.value.errno == telling
        assert caught.value.strerror == "; ".join(f"{host}: {os.strerror(number)}" for host, number in fails.items())

    run(test())


def test_reasons_of_many_addresses_are_told_in_a_line() -> None:
    failed = [(ip_address(f"192.0.2.{index}"), ConnectionRefusedError(111, "refused")) for index in range(100)]
    assert str(DialFailed(failed)).endswith("192.0.2.3: refused; 96 more")


def test_refusal_of_a_real_host_is_told() -> None:
    async def test() -> None:
        with silent("127.0.0.2") as port, pytest.raises(DialFailed, match="Connection refused") as caught:
            await dial(addresses("127.0.0.3"), port, timeout_s=10, local=ANY)
        assert caught.value.errno == errno.ECONNREFUSED

    run(test())


def test_version_that_the_outside_does_not_speak_is_not_tried(port: int) -> None:
    async def test() -> None:
        with await dial([V6, V4], port, timeout_s=10, local={4: None}) as sock:
            assert sock.family == socket.AF_INET
        with pytest.raises(DialFailed, match="::1: the outside speaks no IPv6") as caught:
            await dial([V6], port, timeout_s=10, local={4: None})
        assert caught.value.errno == errno.EAFNOSUPPORT

    run(test())


def test_outside_address_that_is_gone_is_told(port: int) -> None:
    async def test() -> None:
        with pytest.raises(DialFailed) as caught:
            await dial([V4], port, timeout_s=10, local={4: IPv4Address("192.0.2.1")})
        assert caught.value.errno == errno.EADDRNOTAVAIL

    run(test())


def test_no_address_is_a_mistake_of_the_caller() -> None:
    async def test() -> None:
        with pytest.raises(ValueError, match="no address"):
            await dial([], 1, timeout_s=10, local=ANY)

    run(test())


def test_families_take_turns_beginning_with_the_best() -> None:
    given = addresses("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2")
    taken = addresses("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3")
    assert interleaved(given) == taken
    assert interleaved(addresses("192.0.2.1", "2001:db8::1")) == addresses("192.0.2.1", "2001:db8::1")
