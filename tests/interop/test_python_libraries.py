"""PySocks and python-socks, in this process: their sockets are made in the client's namespace."""

from __future__ import annotations

import asyncio
import random
import socket
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.interop.servers import served
from tests.interop.socks import FORBIDDEN_PORT, NAME, PASSWORD, SILENT_PORT, USER, SocksRelay, crossed
from tests.netns.lab import BORDER, INSIDE, PORT, REMOTE, STRANGER, Lab

DATA = random.Random(5).randbytes(2 << 20)


class Echo(socketserver.StreamRequestHandler):
    """Gives everything back, once all of it is there: a half-closed stream has to cross."""

    def handle(self) -> None:
        self.wfile.write(self.rfile.read())


@contextmanager
def echo(lab: Lab) -> Iterator[int]:
    with served(lab.outside, socketserver.ThreadingTCPServer, (REMOTE[4], 0), Echo) as port:
        yield port


@pytest.fixture(scope="module")
def socks() -> Any:
    return pytest.importorskip("socks", reason="needs PySocks from PyPI")


@pytest.fixture(scope="module")
def python_socks() -> Any:
    return pytest.importorskip("python_socks.async_.asyncio.v2", reason="needs python-socks from PyPI")


def pysocket(lab: Lab, socks: Any, kind: int = socket.SOCK_STREAM, **options: Any) -> Any:
    with lab.client.entered():
        sock = socks.socksocket(socket.AF_INET, kind)
    sock.settimeout(8)
    sock.set_proxy(**{"proxy_type": socks.SOCKS5, "addr": INSIDE[4], "port": PORT, "rdns": True, **options})
    return sock


LOGIN = {"username": USER, "password": PASSWORD}


@pytest.mark.parametrize("options", [{}, LOGIN, {"proxy_type": 1}], ids=["nobody", "logged-in", "socks4a"])
def test_pysocks_carries_a_stream_both_ways(
    lab: Lab, socks_relay: SocksRelay, socks: Any, options: dict[str, Any]
) -> None:
    with echo(lab) as port, pysocket(lab, socks, **options) as sock:
        lab.client.call(lambda: sock.connect((NAME, port)))
        sock.sendall(DATA)
        sock.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: sock.recv(1 << 16), b"")) == DATA
        record = socks_relay.ended("connect")
    assert crossed(record) == (len(DATA), len(DATA))
    assert record["remote"] == f"{NAME}:{port}"
    assert record.get("user") == options.get("username")


def test_pysocks_raises_what_the_relay_refused(lab: Lab, socks_relay: SocksRelay, socks: Any) -> None:
    refusals = {(REMOTE[4], FORBIDDEN_PORT): "0x02", (REMOTE[4], SILENT_PORT): "0x05", ("no.invalid", 80): "0x04"}
    for destination, code in refusals.items():
        with pysocket(lab, socks) as sock, pytest.raises(socks.GeneralProxyError, match=code):
            lab.client.call(lambda: sock.connect(destination))  # noqa: B023  (it is over when call returns)
    with pysocket(lab, socks, username=USER, password="wrong") as sock, pytest.raises(socks.GeneralProxyError) as no:
        lab.client.call(lambda: sock.connect((REMOTE[4], SILENT_PORT)))
    assert isinstance(no.value.socket_err, socks.SOCKS5AuthError)


@pytest.mark.parametrize("host", [REMOTE[4], NAME], ids=["address", "name"])
def test_pysocks_carries_datagrams(lab: Lab, socks_relay: SocksRelay, socks: Any, host: str) -> None:
    with lab.outside.udp(REMOTE[4]) as remote, pysocket(lab, socks, socket.SOCK_DGRAM) as sock:
        to = (host, remote.getsockname()[1])
        lab.client.call(lambda: sock.bind(("", 0)))  # it associates here
        for octets in (1, 1472, 9000):
            sock.sendto(DATA[:octets], to)
            data, source = remote.recvfrom(65_536)
            assert data == DATA[:octets]
            assert source[0] == BORDER[4]
            remote.sendto(data[::-1], source)
            assert sock.recvfrom(65_536) == (DATA[:octets][::-1], remote.getsockname())
        sock.close()
        record = socks_relay.ended("udp-associate")
    assert (record["to_remote_datagrams"], record["to_client_datagrams"]) == (3, 3)


def test_pysocks_speaks_to_two_remotes_by_one_socket(lab: Lab, socks_relay: SocksRelay, socks: Any) -> None:
    with (
        lab.outside.udp(REMOTE[4]) as first,
        lab.outside.udp(STRANGER[4]) as second,
        pysocket(lab, socks, socket.SOCK_DGRAM) as sock,
    ):
        lab.client.call(lambda: sock.bind(("", 0)))
        for remote in (first, second):
            sock.sendto(b"question", remote.getsockname())
            _, source = remote.recvfrom(100)
            remote.sendto(b"answer", source)
            assert sock.recvfrom(100) == (b"answer", remote.getsockname())


@pytest.mark.parametrize(
    "proxy", [f"socks5://{USER}:{PASSWORD}@", "socks5://", "socks4://"], ids=["logged-in", "nobody", "socks4"]
)
@pytest.mark.parametrize("remote_names", [True, False], ids=["name", "address"])
def test_python_socks_carries_a_stream_both_ways(
    lab: Lab, socks_relay: SocksRelay, python_socks: Any, proxy: str, remote_names: bool
) -> None:
    async def talk(port: int) -> bytes:
        by = python_socks.Proxy.from_url(f"{proxy}{INSIDE[4]}:{PORT}", rdns=remote_names)
        stream = await by.connect(NAME if remote_names else REMOTE[4], port, timeout=8)
        reader, writer = stream.reader, stream.writer
        writer.write(DATA)
        writer.write_eof()
        data = await reader.read()
        await stream.close()
        assert isinstance(data, bytes)
        return data

    with echo(lab) as port:
        assert lab.client.call(lambda: asyncio.run(talk(port))) == DATA
        record = socks_relay.ended("connect")
    assert crossed(record) == (len(DATA), len(DATA))
    assert record["remote"] == f"{NAME if remote_names else REMOTE[4]}:{port}"


def test_python_socks_raises_what_the_relay_refused(lab: Lab, socks_relay: SocksRelay, python_socks: Any) -> None:
    from importlib import import_module

    error = import_module("python_socks").ProxyError

    async def talk() -> dict[int, int]:
        codes = {}
        for port in (FORBIDDEN_PORT, SILENT_PORT):
            proxy = python_socks.Proxy.from_url(f"socks5://{INSIDE[4]}:{PORT}")
            with pytest.raises(error) as refused:
                await proxy.connect(REMOTE[4], port, timeout=8)
            codes[port] = refused.value.error_code
        return codes

    assert lab.client.call(lambda: asyncio.run(talk())) == {FORBIDDEN_PORT: 2, SILENT_PORT: 5}
