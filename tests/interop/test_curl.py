"""curl fetches by HTTP and HTTPS, with every kind of SOCKS it knows."""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.interop.program import Program, needs, program
from tests.interop.servers import served
from tests.interop.socks import FORBIDDEN_PORT, NAME, PASSWORD, SILENT_PORT, USER, SocksRelay, crossed
from tests.netns.lab import INSIDE, PORT, REMOTE, Lab

pytestmark = needs(curl="curl", openssl="openssl")

PAGE = random.Random(1928).randbytes(3 << 20)
"""More than the relay copies before it splices."""

PROXY_FAILED = 97
"""CURLE_PROXY."""

LOGIN = f"{USER}:{PASSWORD}@"
SCHEMES = ["socks5", "socks5h", "socks4", "socks4a"]
RESOLVED_BY_RELAY = {"socks5h", "socks4a"}


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *arguments: object) -> None:
        """Not on the test's standard error."""


def make_certificate(lab: Lab, folder: Path) -> tuple[Path, Path]:
    """A certificate for the outside host's name and address, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    lab.outside.run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:{REMOTE[4]}", "-days", "2"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    return certificate, key


@contextmanager
def pages(lab: Lab, certificate: tuple[Path, Path] | None = None, version: int = 4) -> Iterator[int]:
    """The port of a web server outside."""

    class Server(ThreadingHTTPServer):
        address_family = 10 if version == 6 else 2

        def server_bind(self) -> None:
            if certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*certificate)
                self.socket = context.wrap_socket(self.socket, server_side=True)
            super().server_bind()

    with served(lab.outside, Server, (REMOTE[version], 0), Pages) as port:
        yield port


@contextmanager
def curl(lab: Lab, proxy: str, url: str, *options: str) -> Iterator[Program]:
    """What it says is on its standard error."""
    where = f"{proxy}{INSIDE[4]}:{PORT}"
    command = ("curl", "-q", "-sSv", "--noproxy", "", "--max-time", "10", "-x", where, *options, url)
    with program(lab.client, *command) as running:
        yield running


def fetch(lab: Lab, proxy: str, url: str, file: Path, *options: str) -> None:
    with curl(lab, proxy, url, "-o", str(file), *options) as running:
        assert running.finish() == 0, running.said
    assert file.read_bytes() == PAGE


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_by_http(lab: Lab, socks_relay: SocksRelay, tmp_path: Path, scheme: str) -> None:
    with pages(lab) as port:
        host = NAME if scheme in RESOLVED_BY_RELAY else REMOTE[4]
        fetch(lab, f"{scheme}://", f"http://{host}:{port}/", tmp_path / "page")
        record = socks_relay.ended("connect")
    assert record["remote"] == f"{host}:{port}", "the name came to the relay, or the address"
    assert crossed(record)[1] > len(PAGE)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_by_https(lab: Lab, socks_relay: SocksRelay, tmp_path: Path, scheme: str) -> None:
    certificate = make_certificate(lab, tmp_path)
    with pages(lab, certificate) as port:
        known = ("--cacert", str(certificate[0]), "--resolve", f"{NAME}:{port}:{REMOTE[4]}")
        fetch(lab, f"{scheme}://", f"https://{NAME}:{port}/", tmp_path / "page", *known)
        record = socks_relay.ended("connect")
    host = NAME if scheme in RESOLVED_BY_RELAY else REMOTE[4]
    assert record["remote"] == f"{host}:{port}"
    assert crossed(record)[1] > len(PAGE)


def test_an_ipv6_page_through_a_relay_reached_by_ipv4(lab: Lab, socks_relay: SocksRelay, tmp_path: Path) -> None:
    with pages(lab, version=6) as port:
        fetch(lab, "socks5://", f"http://[{REMOTE[6]}]:{port}/", tmp_path / "page", "--globoff")


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_the_user_who_logged_in_is_in_the_record(
    lab: Lab, socks_relay: SocksRelay, tmp_path: Path, scheme: str
) -> None:
    with pages(lab) as port:
        fetch(lab, f"{scheme}://{LOGIN}", f"http://{REMOTE[4]}:{port}/", tmp_path / "page")
        assert socks_relay.ended("connect")["user"] == USER


def test_a_wrong_password_is_refused(lab: Lab, socks_relay: SocksRelay) -> None:
    with curl(lab, f"socks5://{USER}:wrong@", f"http://{REMOTE[4]}:{SILENT_PORT}/") as running:
        assert running.finish() == PROXY_FAILED
        assert "User was rejected by the SOCKS5 server (1 1)" in running.said
    socks_relay.wait_for_record("refused", why="wrong user name or password")


@pytest.mark.parametrize(
    ("scheme", "host", "port", "said"),
    [
        ("socks5", REMOTE[4], FORBIDDEN_PORT, "(2)"),
        ("socks5", REMOTE[4], SILENT_PORT, "(5)"),
        ("socks5h", "nowhere.invalid", 80, "(4)"),
        ("socks5", f"[{INSIDE[6]}]", 22, "(2)"),
        ("socks4", REMOTE[4], FORBIDDEN_PORT, "(91)"),
        ("socks4", REMOTE[4], SILENT_PORT, "(91)"),
        ("socks4a", "nowhere.invalid", 80, "(91)"),
    ],
    ids=lambda value: str(value).strip("()"),
)
def test_curl_says_what_the_relay_refused(
    lab: Lab, socks_relay: SocksRelay, scheme: str, host: str, port: int, said: str
) -> None:
    with curl(lab, f"{scheme}://", f"http://{host}:{port}/", "--globoff") as running:
        assert running.finish() == PROXY_FAILED
        assert said in running.said
    socks_relay.wait_for_record("refused", command="connect", remote=f"{host}:{port}")
