"""Tells when links or addresses of this host have changed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x001, 0x010, 0x100  # include/uapi/linux/rtnetlink.h
_SETTLE_S = 0.1
"""Changes come in bursts: a link, its addresses, their states."""


class AddressWatch:
    """Calls `changed` a moment after the kernel's last word. Raises OSError where there is no rtnetlink."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._pending: asyncio.TimerHandle | None = None
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._sock.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
        self._loop.add_reader(self._sock.fileno(), self._heard)

    def close(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        if self._pending is not None:
            self._pending.cancel()

    def _heard(self) -> None:
        with suppress(OSError):  # also ENOBUFS: some words were lost, but not that there were any
            while self._sock.recv(65_536):
                pass
        if self._pending is not None:
            self._pending.cancel()
        self._pending = self._loop.call_later(_SETTLE_S, self._tell)

    def _tell(self) -> None:
        self._pending = None
        self._changed()
