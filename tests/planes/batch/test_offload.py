"""What the kernel coalesces, and what is assumed where it cannot be asked."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from mcastsocks.planes.batch import offload
from tests.planes.batch.loopback import udp_socket


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    offload._segments.cache_clear()
    yield
    offload._segments.cache_clear()


@pytest.mark.parametrize("version", [4, 6])
def test_kernel_is_asked_by_socket(version: int) -> None:
    with udp_socket(version) as sock:
        assert offload.receive_coalesced(sock)
        assert sock.getsockopt(socket.IPPROTO_UDP, offload.UDP_GRO) == 1
        assert offload.segments_of(sock) in (64, 128)


def test_socket_without_coalescing() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        assert not offload.receive_coalesced(sock)
        assert offload.segments_of(sock) == 1


@pytest.mark.parametrize(("why", "segments"), [(errno.EINVAL, 64), (errno.EPERM, 64), (None, 128)])
def test_limit_is_found_by_trial(monkeypatch: pytest.MonkeyPatch, why: int | None, segments: int) -> None:
    def trial(*_: object) -> int:
        if why is not None:
            raise OSError(why, "")
        return 128

    class Sock(socket.socket):
        sendto = trial

    with udp_socket() as sock:
        monkeypatch.setattr(socket, "socket", Sock)
        assert offload.segments_of(sock) == segments
