"""Servers of a few lines, in a namespace: a thread each, ended with the context."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.netns.lab import Host


class Registry(socketserver.StreamRequestHandler):
    """A whois server of one answer (RFC 3912)."""

    def handle(self) -> None:
        asked = self.rfile.readline(100).decode().strip()
        self.wfile.write(f"domain: {asked}\r\nholder: nobody\r\n".encode())


@contextmanager
def served(
    host: Host,
    server: type[socketserver.TCPServer],
    address: tuple[str, int],
    handler: type[socketserver.BaseRequestHandler],
) -> Iterator[int]:
    """The port that a server of the standard library listens on."""
    with host.entered():
        running = server(address, handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield int(running.socket.getsockname()[1])
    finally:
        running.shutdown()
        thread.join()
        running.server_close()
