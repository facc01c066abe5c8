"""What the plane says where the calls are not to be had."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from mcastsocks.planes.batch import libc
from mcastsocks.planes.batch.receiver import Receiver


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    libc.calls.cache_clear()
    yield
    libc.calls.cache_clear()


class Call:
    """A C function that fails with an errno."""

    argtypes: list[object]
    restype: object

    def __init__(self, error: int) -> None:
        self._error = error

    def __call__(self, *arguments: object) -> int:
        ctypes.set_errno(self._error)
        return -1


def test_this_kernel_has_both() -> None:
    assert callable(libc.calls().receive)
    assert callable(libc.calls().send)


def test_library_without_the_calls_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    with pytest.raises(OSError, match="C library has no recvmmsg"):
        Receiver(4)


def test_kernel_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(recvmmsg=Call(errno.EBADF), sendmmsg=Call(errno.ENOSYS))
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    with pytest.raises(OSError, match="kernel refuses") as refused:
        libc.calls()
    assert refused.value.errno == errno.ENOSYS
