"""proxychains sends programs that know nothing of SOCKS through the relay: telnet, ftp and whois."""

from __future__ import annotations

import random
import socketserver
import subprocess
from pathlib import Path

import pytest

from tests.interop.ftp import ftp_server
from tests.interop.program import needs, program
from tests.interop.servers import Registry, served
from tests.interop.socks import NAME, PASSWORD, USER, SocksRelay, crossed
from tests.netns.lab import INSIDE, PORT, REMOTE, Lab, wait_for

pytestmark = needs(proxychains4="proxychains4")

_CONFIG = """
strict_chain
proxy_dns
remote_dns_subnet 224
tcp_read_time_out 8000
tcp_connect_time_out 8000
[ProxyList]
{proxy}
"""

LOGGED_IN = f"socks5 {INSIDE[4]} {PORT} {USER} {PASSWORD}"
NOBODY = f"socks5 {INSIDE[4]} {PORT}"
SOCKS4 = f"socks4 {INSIDE[4]} {PORT}"


class Greeting(socketserver.StreamRequestHandler):
    """Says hello, takes a line, gives it back in capitals and hangs up."""

    def handle(self) -> None:
        self.wfile.write(b"hello\r\n")
        self.wfile.write(self.rfile.readline(100).upper())


def chained(folder: Path, proxy: str = LOGGED_IN) -> tuple[str, ...]:
    config = folder / "proxychains.conf"
    config.write_text(_CONFIG.format(proxy=proxy))
    return "proxychains4", "-f", str(config)


@needs(telnet="telnet")
def test_telnet_talks_to_a_host_outside(lab: Lab, socks_relay: SocksRelay, tmp_path: Path) -> None:
    with served(lab.outside, socketserver.ThreadingTCPServer, (REMOTE[4], 0), Greeting) as port:
        command = (*chained(tmp_path), "telnet", NAME, str(port))
        telnet = lab.client.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            assert telnet.stdin is not None
            telnet.stdin.write(b"a line\n")
            telnet.stdin.flush()  # not closed: telnet would leave without the answer
            assert telnet.stdout is not None
            said = telnet.stdout.read()
        finally:
            telnet.kill()
            telnet.communicate()
    assert b"hello" in said
    assert b"A LINE" in said
    record = socks_relay.ended("connect")
    assert (record["remote"], record["user"]) == (f"{NAME}:{port}", USER)


@needs(whois="whois")
@pytest.mark.parametrize("proxy", [LOGGED_IN, NOBODY, SOCKS4], ids=["logged-in", "nobody", "socks4"])
def test_whois_asks_a_registry_outside(lab: Lab, socks_relay: SocksRelay, tmp_path: Path, proxy: str) -> None:
    with served(lab.outside, socketserver.ThreadingTCPServer, (REMOTE[4], 0), Registry) as port:
        command = (*chained(tmp_path, proxy), "whois", "-h", NAME, "-p", str(port), "example.org")
        with program(lab.client, *command) as whois:
            assert whois.finish() == 0, whois.said
            assert "domain: example.org" in whois.said
    record = socks_relay.ended("connect")
    assert record["remote"] == f"{NAME}:{port}"
    assert record.get("user") == (USER if proxy == LOGGED_IN else None)


@needs(ftp="ftp")
def test_ftp_in_passive_mode_carries_a_file_both_ways(lab: Lab, socks_relay: SocksRelay, tmp_path: Path) -> None:
    here, there = random.Random(21).randbytes(1 << 20), random.Random(20).randbytes(2 << 20)
    down, up, shared = tmp_path / "down", tmp_path / "up", tmp_path / "shared"
    up.write_bytes(here)
    with ftp_server(lab, shared, {"file": there}, NAME) as url:
        for transfer in (("-o", str(down), f"{url}/file"), ("-u", f"{url}/uploaded", str(up))):
            with program(lab.client, *chained(tmp_path), "ftp", "-p", *transfer) as ftp:
                assert ftp.finish() == 0, ftp.said
    assert down.read_bytes() == there
    assert (shared / "uploaded").read_bytes() == here
    wait_for("two commands' control and data connections", lambda: len(socks_relay.all_ended("connect")) == 4)
    carried = [crossed(record) for record in socks_relay.all_ended("connect")]
    assert (0, len(there)) in carried
    assert (len(here), 0) in carried
