"""The system calls that Python's socket module lacks, or hides behind objects."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

MSG_TRUNC = 0x20  # include/linux/socket.h
MSG_DONTWAIT = 0x40

_INT, _UINT, _POINTER = ctypes.c_int, ctypes.c_uint, ctypes.c_void_p


class Calls(NamedTuple):
    """Both return how many messages were received or sent, or -1 and leave why in ctypes.get_errno().

    `receive` takes descriptor, address of the first mmsghdr, how many there are, flags, address of a timeout or None;
    `send` the first four.
    """

    receive: Callable[..., int]
    send: Callable[..., int]


@cache
def calls() -> Calls:
    """Raises OSError when the C library or the kernel has no such calls; its text is for the operator.

    musl has both, and its sendmmsg is a loop of sendmsg: right, but slower.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        receive, send = libc.recvmmsg, libc.sendmmsg
    except AttributeError:
        raise OSError(errno.ENOSYS, "the C library has no recvmmsg and sendmmsg") from None
    receive.argtypes, receive.restype = [_INT, _POINTER, _UINT, _INT, _POINTER], _INT
    send.argtypes, send.restype = [_INT, _POINTER, _UINT, _INT], _INT
    for call, arguments in ((receive, (-1, None, 0, 0, None)), (send, (-1, None, 0, 0))):
        if call(*arguments) < 0 and ctypes.get_errno() != errno.EBADF:  # a sandbox may refuse them
            raise OSError(ctypes.get_errno(), "the kernel refuses recvmmsg or sendmmsg")
    return Calls(receive, send)


@cache
def send_one() -> Callable[..., int]:
    """sendto(2): descriptor, address and octets of the data, flags, address and octets of the name."""
    call: Callable[..., int] = ctypes.CDLL(None, use_errno=True).sendto
    call.argtypes, call.restype = [_INT, _POINTER, ctypes.c_size_t, _INT, _POINTER, _UINT], ctypes.c_ssize_t  # type: ignore[attr-defined]
    return call
