"""TCP to a host that may have several addresses."""

from __future__ import annotations

import asyncio
import os
import socket

from mcastsocks.address import SockAddr


async def dial(host: str, port: int) -> socket.socket:
    """Connected to the first of a host's addresses that takes it, in the resolver's order.

    Raises OSError; when several addresses failed, its text names each with its reason.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failed: list[tuple[str, OSError]] = []
    for family, kind, protocol, _, sockaddr in found:
        try:
            return await _connected(socket.socket(family, kind, protocol), sockaddr)
        except OSError as error:
            failed.append((str(sockaddr[0]), error))
    if len(failed) == 1:
        raise failed[0][1]
    raise OSError("; ".join(f"{address}: {reason(error)}" for address, error in failed))


def reason(error: OSError) -> str:
    """The kernel's words where it gave a number; asyncio has others for it, with tuples in them."""
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)


async def _connected(sock: socket.socket, sockaddr: SockAddr) -> socket.socket:
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock
