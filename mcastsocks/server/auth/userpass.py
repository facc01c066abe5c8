"""Username and password (RFC 1929) against the users file's argon2id hashes."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from argon2.exceptions import Argon2Error, InvalidHashError

from mcastsocks.address import IPAddress, site_of
from mcastsocks.rules.users import HASHER, Users
from mcastsocks.server.config import Limits
from mcastsocks.tables.tally import Tally
from mcastsocks.wire.socks5 import Credentials

_THREADS = 2
_WAITING = 128
"""Verifications under way at once. One costs some 50 ms of CPU and 64 MiB; more are refused, not queued."""


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


class Throttle:
    """Failures that a client address may still afford: a bucket that fills again over a minute."""

    def __init__(self, per_minute: int, most: int, clock: Callable[[], float]) -> None:
        self._per_minute, self._most, self._clock = per_minute, most, clock
        self._buckets: OrderedDict[IPAddress, tuple[float, float]] = OrderedDict()

    def left(self, client: IPAddress) -> int:
        """How many more failures are borne now."""
        return int(self._level(client))

    def spend(self, client: IPAddress) -> None:
        """An attempt failed."""
        self._buckets[client] = self._level(client) - 1, self._clock()
        self._buckets.move_to_end(client)
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)

    def _level(self, client: IPAddress) -> float:
        now = self._clock()
        level, since = self._buckets.get(client, (float(self._per_minute), now))
        return min(float(self._per_minute), level + (now - since) * self._per_minute / 60)


class PasswordCheck:
    """Verifies passwords off the event loop, a few at once, throttled before any hashing."""

    def __init__(self, users: Users, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._hashes = {name.encode(): user.password for name, user in users.users.items()}
        self._unknown = HASHER.hash(secrets.token_hex())  # unknown users take the same time
        self._remembered = Remembered(limits.logins_remembered, limits.login_remembered_s, clock)
        self._throttle = Throttle(limits.login_failures_per_minute, limits.logins_remembered, clock)
        self._threads = ThreadPoolExecutor(_THREADS, "password")
        self._under_way = 0
        self._checking: Tally[IPAddress] = Tally()
        self._checked = asyncio.Event()

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
            left = self._throttle.left(site)
            if left < 1:
                return "too many failed logins from this address"
            if self._checking[site] < left:
                break
            await self._checked.wait()
        if self._under_way >= _WAITING:
            return "too many logins at once"
        self._under_way += 1
        self._checking.add(site)
        try:
            loop = asyncio.get_running_loop()
            right = await loop.run_in_executor(self._threads, _verify, stored or self._unknown, credentials.password)
        finally:
            self._under_way -= 1
            self._checking.remove(site)
            self._checked.set()
            self._checked.clear()
        if stored is None or not right:
            self._throttle.spend(site)
            return "wrong user name or password"
        self._remembered.add(credentials, stored)
        return None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _verify(stored: str, password: bytes) -> bool:
    try:
        return HASHER.verify(stored, password)
    except (Argon2Error, InvalidHashError):
        return False
