"""Run a program where the kernel denies having sendmmsg(2): `python -m tests.interop.without_sendmmsg PROGRAM …`.

libuv then sends by sendmsg(2), and wrappers that never heard of the newer call see what is sent. seccomp(2), filters:
linux/filter.h, linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

SENDMMSG = {"x86_64": 307, "aarch64": 269}.get(platform.machine())

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_FAIL_WITH, _ALLOW = 0x0005_0000, 0x7FFF_0000
_STEP = struct.Struct("=HBBI")


def deny(number: int) -> None:
    """For this process from now on, and for what it becomes. Raises OSError."""
    steps = (
        (_LOAD_NUMBER, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _FAIL_WITH | errno.ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(_STEP.pack(*step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    if SENDMMSG is None:
        sys.exit(f"the number of sendmmsg(2) on {platform.machine()} is not known here")
    deny(SENDMMSG)
    os.execvp(sys.argv[1], sys.argv[1:])
