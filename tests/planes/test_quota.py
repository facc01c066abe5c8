"""The quota's count is the number of sockets that are open, whatever fails."""

from __future__ import annotations

import errno
import socket

import pytest

from mcastsocks.planes.quota import Quota


def opened() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def refused() -> socket.socket:
    raise OSError(errno.EADDRNOTAVAIL, "no such address")


def test_it_holds_no_more_than_it_may() -> None:
    quota = Quota(1)
    sock = quota.open(opened)
    with pytest.raises(OSError, match="the relay is full: 1 UDP sockets"):
        quota.open(opened)
    quota.close(sock)
    assert sock.fileno() == -1
    quota.close(quota.open(opened))
    assert quota.held == 0


def test_what_cannot_be_opened_does_not_count() -> None:
    quota = Quota(1)
    with pytest.raises(OSError, match="no such address"):
        quota.open(refused)
    assert quota.held == 0


def test_what_cannot_be_prepared_is_closed_and_does_not_count() -> None:
    quota, prepared = Quota(1), []

    def prepare(sock: socket.socket) -> None:
        prepared.append(sock)
        raise OSError(errno.ENODEV, "the interface has gone")

    with pytest.raises(OSError, match="the interface has gone"):
        quota.open(opened, prepare)
    assert quota.held == 0
    assert prepared[0].fileno() == -1
