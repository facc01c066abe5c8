"""An event loop that drains datagram sockets where it waits for them.

asyncio takes some 10 us from a readable socket to its callback, as much as a datagram costs otherwise. Here the
selector calls what drains a socket itself, and waits again when there was nothing else; as soon as anything is due for
asyncio it goes back there. On any other loop the same sockets are read by callbacks.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple, Unpack

Drain = Callable[[], None]
_Ts = TypeVarTuple("_Ts")


class _Selector(selectors.DefaultSelector):
    """`is_due` is set when asyncio has got something to do."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        super().__init__()
        self._failed = failed
        self.is_due = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            ready = super().select(timeout)
            others = [each for each in ready if not isinstance(each[0].data, _Drained)]
            for key, _ in ready:
                if isinstance(key.data, _Drained):
                    self._drain(key.data)
            if others or self.is_due or not ready:
                self.is_due = False
                return others
            if end is not None:
                timeout = end - time.monotonic()
                if timeout <= 0:
                    return others

    def _drain(self, drained: _Drained) -> None:
        try:
            drained.drain()
        except Exception as error:  # a defect, and no reason to stop everything
            self._failed(error)


class _Drained:
    """What a datagram socket is registered with."""

    __slots__ = ("drain",)

    def __init__(self, drain: Drain) -> None:
        self.drain = drain


class DatagramLoop(asyncio.SelectorEventLoop):
    """Everything else is asyncio's."""

    def __init__(self) -> None:
        self._drains = _Selector(self._drain_failed)
        super().__init__(self._drains)

    def add_drain(self, fd: int, drain: Drain) -> None:
        self._drains.register(fd, selectors.EVENT_READ, _Drained(drain))

    def remove_drain(self, fd: int) -> None:
        self._drains.unregister(fd)

    def call_soon(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self._drains.is_due = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._drains.is_due = True
        return super().call_at(when, callback, *args, context=context)

    def _drain_failed(self, error: Exception) -> None:
        self.call_exception_handler({"message": "a datagram socket", "exception": error})


def watch(loop: asyncio.AbstractEventLoop, fd: int, drain: Drain) -> None:
    """Call `drain` whenever the socket is readable."""
    if isinstance(loop, DatagramLoop):
        loop.add_drain(fd, drain)
    else:
        loop.add_reader(fd, drain)


def unwatch(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    if isinstance(loop, DatagramLoop):
        loop.remove_drain(fd)
    else:
        loop.remove_reader(fd)
