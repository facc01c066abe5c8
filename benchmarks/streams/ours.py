"""The smallest relay around dial and pump: every client may CONNECT to every IPv4 address."""

from __future__ import annotations

import argparse
import asyncio
import socket
import struct
from ipaddress import IPv4Address

from mcastsocks.server.streams.dial import dial
from mcastsocks.server.streams.pipes import PIPE_OCTETS, PipePool
from mcastsocks.server.streams.pump import Octets, Pumps

_GREETING, _NO_LOGIN = b"\x05\x01\x00", b"\x05\x00"
_CONNECT = struct.Struct("!3sB4sH")  # VER CMD FLAG, ATYP, DST.ADDR, DST.PORT (RFC 1928 §4)


async def serve(port: int, pipes: int, pipe_octets: int) -> None:
    pumps = Pumps(PipePool(pipes, pipe_octets))
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    with socket.create_server(("127.0.0.1", port), backlog=512) as listener:
        listener.setblocking(False)
        while True:
            client, _ = await loop.sock_accept(listener)
            tasks.add(task := asyncio.create_task(relay(client, pumps)))
            task.add_done_callback(tasks.discard)


async def relay(client: socket.socket, pumps: Pumps) -> None:
    loop = asyncio.get_running_loop()
    with client:
        if await loop.sock_recv(client, len(_GREETING)) != _GREETING:
            return
        await loop.sock_sendall(client, _NO_LOGIN)
        request = await loop.sock_recv(client, _CONNECT.size)
        *_, address, port = _CONNECT.unpack(request)
        remote = await dial([IPv4Address(address)], port, timeout_s=10, local={4: IPv4Address("127.0.0.1")})
        host, bound = remote.getsockname()
        await loop.sock_sendall(client, _CONNECT.pack(b"\x05\x00\x00", 1, socket.inet_aton(host), bound))
        await pumps.pump(client, remote, early=b"", idle_s=600, octets=Octets())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pipes", type=int, default=32, help="0: copies only")
    parser.add_argument("--pipe-octets", type=int, default=PIPE_OCTETS)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.pipes, options.pipe_octets))


if __name__ == "__main__":
    main()
