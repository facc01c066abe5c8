"""Names to addresses without holding anybody up."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from mcastsocks.address import IPAddress, unmapped

_THREADS = 8


class ResolveError(Exception):
    """A name that does not resolve, or not now; the text says why."""


class Resolver:
    """The system's resolver in a few threads; more look-ups than `most` at once are refused."""

    def __init__(self, most: int, timeout_s: float) -> None:
        self._most, self._timeout_s = most, timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, "resolver")
        self._under_way = 0

    async def resolve(self, name: str) -> list[IPAddress]:
        """The name's addresses, best first, at least one. Raises ResolveError."""
        if self._under_way >= self._most:
            raise ResolveError(f"{self._most} names are being looked up already")
        self._under_way += 1
        # Counted until the thread is done with it, which can be long after the caller gave up.
        looking = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, name)
        looking.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(looking), self._timeout_s)
        except TimeoutError:
            raise ResolveError(f"{name} did not resolve within {self._timeout_s:g} s") from None
        except OSError as error:
            raise ResolveError(f"{name}: {error.strerror}") from None
        except UnicodeError:  # an empty label, or one of more than 63 octets
            raise ResolveError(f"{name} is no name that could be looked up") from None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, looking: asyncio.Future[list[IPAddress]]) -> None:
        self._under_way -= 1
        if not looking.cancelled():
            looking.exception()  # taken note of: nobody may be waiting any more


def _look_up(name: str) -> list[IPAddress]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys(unmapped(ip_address(str(item[4][0]).partition("%")[0])) for item in found))
