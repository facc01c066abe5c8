"""Names to addresses without holding anybody up."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from ipaddress import ip_address

from mcastsocks.address import IPAddress, unmapped
from mcastsocks.errors import McastsocksError
from mcastsocks.tables.tally import Tally

_Found = list[IPAddress] | OSError
_WAITING_PER_USER = 256


class ResolveError(McastsocksError):
    """A name that does not resolve, or not now; the text says why."""


class Resolver:
    """The system's resolver, a thread for each look-up: at most `most` at once, and `most_per_user` for one user.

    Others wait for their turn, a page of names at most for each user. The threads are daemons: getaddrinfo cannot be
    interrupted, and nobody waits for it when the relay stops.
    """

    def __init__(self, most: int, most_per_user: int, timeout_s: float) -> None:
        self._most, self._most_per_user, self._timeout_s = most, most_per_user, timeout_s
        self._under_way = 0
        self._held: Tally[str] = Tally()
        self._waiting: Tally[str] = Tally()
        self._done = asyncio.Event()

    async def resolve(self, name: str, account: str) -> list[IPAddress]:
        """The name's addresses, best first, at least one. Raises ResolveError."""
        looking: asyncio.Future[_Found] | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._wait_for_turn(account)
                looking = self._start(name, account)
                found = await asyncio.shield(looking)
        except TimeoutError:
            if looking is None:
                raise ResolveError(self._crowd(account) or f"{name} had no turn in time") from None
            raise ResolveError(f"{name} did not resolve within {self._timeout_s:g} s") from None
        if isinstance(found, OSError):
            raise ResolveError(f"{name}: {found.strerror}")
        return found

    async def _wait_for_turn(self, account: str) -> None:
        """Raises ResolveError when too many wait already."""
        if self._waiting[account] >= _WAITING_PER_USER:
            raise ResolveError(f"{_WAITING_PER_USER} names wait to be looked up for {account} already")
        self._waiting.add(account)
        try:
            while self._crowd(account) is not None:
                await self._done.wait()
        finally:
            self._waiting.remove(account)

    def _crowd(self, account: str) -> str | None:
        """Why a name has to wait."""
        if self._under_way >= self._most:
            return f"{self._most} names are being looked up already"
        if self._held[account] >= self._most_per_user:
            return f"{self._most_per_user} names are being looked up for {account} already"
        return None

    def _start(self, name: str, account: str) -> asyncio.Future[_Found]:
        """Counted until the thread is done, which can be long after the caller gave up."""
        loop = asyncio.get_running_loop()
        looking: asyncio.Future[_Found] = loop.create_future()

        def done(found: _Found) -> None:
            self._under_way -= 1
            self._held.remove(account)
            self._done.set()
            self._done = asyncio.Event()
            if not looking.cancelled():
                looking.set_result(found)

        def run() -> None:
            found = _look_up(name)
            with suppress(RuntimeError):  # the loop is closed: the relay has stopped meanwhile
                loop.call_soon_threadsafe(done, found)

        try:
            threading.Thread(target=run, name=f"resolver {name}", daemon=True).start()
        except RuntimeError as error:  # no more threads
            raise ResolveError(f"{name}: {error}") from None
        self._under_way += 1
        self._held.add(account)
        return looking


def _look_up(name: str) -> _Found:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except UnicodeError:  # a label that is empty or too long
        return OSError(socket.EAI_NONAME, "not a name that could be looked up")
    except OSError as error:
        return error
    return list(dict.fromkeys(unmapped(ip_address(str(item[4][0]).partition("%")[0])) for item in found))
