"""Username and password (RFC 1929) against the users file's argon2id hashes."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from argon2.exceptions import Argon2Error, InvalidHashError

from mcastsocks.address import IPAddress, site_of
from mcastsocks.rules.users import HASHER, Users
from mcastsocks.server.auth.throttle import Throttle
from mcastsocks.server.sections import Limits
from mcastsocks.server.worker import Worker
from mcastsocks.tables.tally import Counts
from mcastsocks.wire.socks5 import Credentials

_THREADS = 2
_WAITING = 128
"""Verifications under way at once. One costs some 50 ms of CPU and 64 MiB; more are refused, not queued."""

_LOOK_AGAIN_S = 0.05
"""Another worker does not tell when it has verified a password."""


class Remembered:
    """Successful logins for a while: keyed digests of user, password and stored hash, never the password.

    curl, ssh and PySocks log in anew for every connection.
    """

    def __init__(self, most: int, seconds: float, clock: Callable[[], float]) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._key = secrets.token_bytes(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def knows(self, credentials: Credentials, stored: str) -> bool:
        return self._until.get(self._digest(credentials, stored), 0.0) > self._clock()

    def add(self, credentials: Credentials, stored: str) -> None:
        digest = self._digest(credentials, stored)
        self._until[digest] = self._clock() + self._seconds
        self._until.move_to_end(digest)
        while len(self._until) > self._most:
            self._until.popitem(last=False)

    def _digest(self, credentials: Credentials, stored: str) -> bytes:
        parts = (credentials.user, credentials.password, stored.encode())
        return hmac.digest(self._key, b"".join(len(part).to_bytes(4) + part for part in parts), "sha256")


class PasswordCheck:
    """Verifies passwords off the event loop, a few at once, throttled before any hashing."""

    def __init__(
        self,
        users: Users,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        worker: Worker | None = None,
    ) -> None:
        worker = worker or Worker()
        self._hashes = {name.encode(): user.password for name, user in users.users.items()}
        self._unknown = HASHER.hash(secrets.token_hex())  # unknown users take the same time
        self._remembered = Remembered(limits.logins_remembered, limits.login_remembered_s, clock)
        self._throttle = worker.throttle or Throttle(limits.login_failures_per_minute, limits.logins_remembered, clock)
        self._threads = ThreadPoolExecutor(worker.part_of(_THREADS), "password")
        self._under_way = 0
        self._turn = worker.ledger.turn
        self._checking: Counts[IPAddress] = worker.ledger.tally("passwords being checked")
        self._checked = asyncio.Event()
        self._look_again_s = _LOOK_AGAIN_S if worker.of > 1 else None

    async def check(self, credentials: Credentials, client: IPAddress) -> str | None:
        """None when these credentials are right, else why not, for the record.

        No more attempts of one address are checked at once than it has failures left; further ones wait, and may
        find their login remembered by then.
        """
        stored = self._hashes.get(credentials.user)
        site = site_of(client)
        while True:
            if stored is not None and self._remembered.knows(credentials, stored):
                return None
            with self._turn():
                left = self._throttle.left(site)
                if left < 1:
                    return "too many failed logins from this address"
                if self._checking[site] < left:
                    if self._under_way >= _WAITING:
                        return "too many logins at once"
                    self._checking.add(site)
                    break
            await self._another_checked()
        self._under_way += 1
        right: bool | None = None  # not known yet
        try:
            loop = asyncio.get_running_loop()
            verified = await loop.run_in_executor(self._threads, _verify, stored or self._unknown, credentials.password)
            right = verified and stored is not None
        finally:
            self._under_way -= 1
            with self._turn():  # nobody finds it neither under way nor failed
                self._checking.remove(site)
                if right is False:
                    self._throttle.spend(site)
            self._checked.set()
            self._checked.clear()
        if stored is None or not right:
            return "wrong user name or password"
        self._remembered.add(credentials, stored)
        return None

    async def _another_checked(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._look_again_s):
                await self._checked.wait()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _verify(stored: str, password: bytes) -> bool:
    try:
        return HASHER.verify(stored, password)
    except (Argon2Error, InvalidHashError):
        return False
