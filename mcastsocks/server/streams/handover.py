"""From asyncio's streams, which a session speaks SOCKS over, to the plain socket that is pumped."""

from __future__ import annotations

import asyncio
import socket


async def hand_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[socket.socket, bytes]:
    """The non-blocking socket of a connection without TLS, and what was read ahead from it.

    Everything written is with the kernel first. The transport is gone afterwards, its descriptor closed; the socket is
    the caller's. Raises OSError when the connection is lost.
    """
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    if transport.is_reading():
        transport.pause_reading()
    transport.set_write_buffer_limits(0)
    await writer.drain()
    reader.feed_eof()  # of what is here: the socket tells of its own end again
    early = await reader.read()
    sock: socket.socket = writer.get_extra_info("socket").dup()
    transport.abort()
    await asyncio.sleep(0)  # it closes its descriptor in a turn of its own
    return sock, early
