"""Connecting to the first of several addresses that answers (RFC 8305)."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, zip_longest

from mcastsocks.address import Endpoint, IPAddress, to_sockaddr

ATTEMPT_DELAY_S = 0.25
"""How long an attempt is alone before the next begins beside it (RFC 8305 §5)."""

MOST_ATTEMPTS = 8
"""Sockets that one name can make the relay open at once: beyond it the oldest attempt, 2 s old, gives way."""

_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; in socket from Python 3.12
_SO_BINDTOIFINDEX = 62  # include/uapi/asm-generic/socket.h
_REASONS_TOLD = 4

_MOST_TELLING = (
    errno.ECONNREFUSED,  # a host is there and said no
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
    errno.EACCES,  # this host's own routes or filters
    errno.EPERM,
    errno.EADDRNOTAVAIL,
    errno.EAFNOSUPPORT,
)


class DialFailed(OSError):
    """No address could be connected to: errno says most of all those met, strerror tells the reason for each address,
    the first few of many.
    """

    def __init__(self, reasons: Sequence[tuple[IPAddress, OSError]]) -> None:
        numbers = {error.errno or errno.EIO for _, error in reasons}
        telling = next((number for number in _MOST_TELLING if number in numbers), min(numbers))
        told = [f"{address}: {error.strerror}" for address, error in reasons[:_REASONS_TOLD]]
        if len(reasons) > _REASONS_TOLD:
            told.append(f"{len(reasons) - _REASONS_TOLD} more")
        super().__init__(telling, "; ".join(told))


async def dial(
    addresses: Sequence[IPAddress],
    port: int,
    *,
    timeout_s: float,
    local: Mapping[int, IPAddress | None],
    interface: int | None = None,
) -> socket.socket:
    """A non-blocking socket connected to the first address, the best one given first, that answers.

    `local` names the address to connect from for each IP version that the outside speaks, None where the kernel shall
    choose; `interface` is the index of the one to leave by, whatever the routing table prefers. Raises DialFailed,
    ValueError without addresses.
    """
    if not addresses:
        raise ValueError("no address to connect to")
    race = _Race(addresses, port, local, interface)
    try:
        race.begin_next()
        async with asyncio.timeout(timeout_s):
            return race.take(await race.won)
    except TimeoutError:
        raise DialFailed(race.reasons_at_timeout()) from None
    finally:
        race.close()


def interleaved(addresses: Sequence[IPAddress]) -> list[IPAddress]:
    """By turns one of each family, beginning with the first address' (RFC 8305 §4)."""
    first = [address for address in addresses if address.version == addresses[0].version]
    other = [address for address in addresses if address.version != addresses[0].version]
    return [address for address in chain.from_iterable(zip_longest(first, other)) if address is not None]


class _Race:
    """The attempts under way, oldest first; `won` gets the socket, or DialFailed when there is nothing left to try."""

    def __init__(
        self,
        addresses: Sequence[IPAddress],
        port: int,
        local: Mapping[int, IPAddress | None],
        interface: int | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.won: asyncio.Future[socket.socket] = self._loop.create_future()
        self._port, self._local, self._interface = port, local, interface
        self._waiting = deque(interleaved(addresses))
        self._attempts: dict[socket.socket, IPAddress] = {}
        self._reasons: list[tuple[IPAddress, OSError]] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin_next(self) -> None:
        """Begin attempts until one is under way; again when its delay is over, or one has failed."""
        self._stop_timer()
        while self._waiting and not self.won.done():
            address = self._waiting.popleft()
            try:
                sock = self._begin(address)
            except OSError as error:
                self._reasons.append((address, error))
                continue
            self._attempts[sock] = address
            self._loop.add_writer(sock.fileno(), self._settled, sock)  # by number, as in Direction
            self._timer = self._loop.call_later(ATTEMPT_DELAY_S, self.begin_next)
            return
        if not self._attempts and not self.won.done():
            self.won.set_exception(DialFailed(self._reasons))

    def take(self, sock: socket.socket) -> socket.socket:
        """The winner is the caller's from here on; it was kept until now, as the caller may be cancelled."""
        del self._attempts[sock]
        return sock

    def reasons_at_timeout(self) -> list[tuple[IPAddress, OSError]]:
        late = [(address, OSError(errno.ETIMEDOUT, "no answer in time")) for address in self._attempts.values()]
        untried = [(address, OSError(errno.ETIMEDOUT, "not tried in time")) for address in self._waiting]
        return [*self._reasons, *late, *untried]

    def close(self) -> None:
        """Whoever has not been taken."""
        self._stop_timer()
        if self.won.done() and not self.won.cancelled():
            self.won.exception()  # nobody asks any more when the caller was cancelled meanwhile
        for sock in tuple(self._attempts):
            self._drop(sock)

    def _begin(self, address: IPAddress) -> socket.socket:
        """A socket whose connection is under way, or made. Raises OSError."""
        if address.version not in self._local:
            raise OSError(errno.EAFNOSUPPORT, f"the outside speaks no IPv{address.version}")
        if len(self._attempts) >= MOST_ATTEMPTS:
            oldest = next(iter(self._attempts))
            self._reasons.append((self._drop(oldest), OSError(errno.ETIMEDOUT, "no answer before others' turn")))
        sock = _socket(address, self._local[address.version], self._interface)
        try:
            sock.connect(to_sockaddr(Endpoint(address, self._port)))
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            raise
        return sock

    def _settled(self, sock: socket.socket) -> None:
        """One attempt has come to something."""
        self._loop.remove_writer(sock.fileno())
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._reasons.append((self._drop(sock), OSError(number, os.strerror(number))))
            self.begin_next()
        elif not self.won.done():
            self._stop_timer()
            self.won.set_result(sock)

    def _drop(self, sock: socket.socket) -> IPAddress:
        self._loop.remove_writer(sock.fileno())
        sock.close()
        return self._attempts.pop(sock)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _socket(remote: IPAddress, local: IPAddress | None, interface: int | None) -> socket.socket:
    """Bound to the local address, its port chosen when it connects: else only one remote could have each port."""
    family = socket.AF_INET if remote.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if interface is not None:
            sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, interface)
        if local is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind(to_sockaddr(Endpoint(local, 0)))
    except OSError:
        sock.close()
        raise
    return sock
