"""Dante's socksify sends programs that know nothing of SOCKS through the relay: by CONNECT, BIND and UDP ASSOCIATE."""

from __future__ import annotations

import random
import socketserver
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.ftp import ftp_server
from tests.interop.names import ADDRESS, QUESTION, Names
from tests.interop.program import needs, program
from tests.interop.servers import Registry, served
from tests.interop.socks import PASSWORD, USER, SocksRelay
from tests.interop.without_sendmmsg import SENDMMSG
from tests.netns.lab import INSIDE, PORT, REMOTE, Lab

pytestmark = needs(socksify="dante-client")

_CONFIG = f"""
route {{{{
    from: 0.0.0.0/0 to: {REMOTE[4]}/32 via: {INSIDE[4]} port = {PORT}
    proxyprotocol: socks_v5
    command: {{commands}}
    protocol: tcp udp
    method: {{method}}
}}}}
"""

both_methods = pytest.mark.parametrize("method", ["none", "username"])


def socksified(folder: Path, method: str = "none", commands: str = "connect udpassociate") -> tuple[str, ...]:
    config = folder / "socks.conf"
    config.write_text(_CONFIG.format(method=method, commands=commands))
    login = (f"SOCKS_USERNAME={USER}", f"SOCKS_PASSWORD={PASSWORD}") if method == "username" else ()
    return "env", f"SOCKS_CONF={config}", *login, "socksify"


@contextmanager
def name_server(lab: Lab) -> Iterator[int]:
    with served(lab.outside, socketserver.UDPServer, (REMOTE[4], 0), Names) as port:
        yield port


def dig(port: int) -> tuple[str, ...]:
    options = ("+notcp", "+tries=1", "+time=1", "+noedns", "+qid=4660")
    return "dig", *options, "-p", str(port), f"@{REMOTE[4]}", QUESTION, "A"


@needs(drill="ldnsutils")
@both_methods
def test_drill_asks_a_name_server_outside(lab: Lab, socks_relay: SocksRelay, tmp_path: Path, method: str) -> None:
    with name_server(lab) as port:
        command = (*socksified(tmp_path, method), "drill", "-p", str(port), QUESTION, f"@{REMOTE[4]}", "A")
        with program(lab.client, *command) as drill:
            assert drill.finish() == 0, drill.said
            assert f"A\t{ADDRESS}\n" in drill.said
    record = socks_relay.ended("udp-associate")
    assert record.get("user") == (USER if method == "username" else None)
    assert (record["to_remote_datagrams"], record["to_client_datagrams"]) == (1, 1)


@needs(dig="bind9-dnsutils")
def test_dig_passes_socksify_by_and_the_relay_drops_what_has_no_header(
    lab: Lab, socks_relay: SocksRelay, tmp_path: Path
) -> None:
    """It sends by sendmmsg(2), which socksify 1.4.2 does not know, on the socket that has been associated."""
    with name_server(lab) as port, program(lab.client, *socksified(tmp_path), *dig(port)) as asking:
        assert asking.finish() != 0
        assert "timed out" in asking.said
    assert socks_relay.ended("udp-associate")["to_remote_datagrams"] == 0
    assert socks_relay.drops() == {"reserved-bits": 1}, "RSV is where DNS has its query's number"


@needs(dig="bind9-dnsutils")
@pytest.mark.skipif(SENDMMSG is None, reason="needs the number of sendmmsg(2) on this machine")
def test_dig_asks_a_name_server_outside_where_the_kernel_has_no_sendmmsg(
    lab: Lab, socks_relay: SocksRelay, tmp_path: Path
) -> None:
    command = (sys.executable, "-m", "tests.interop.without_sendmmsg", *socksified(tmp_path))
    with name_server(lab) as port, program(lab.client, *command, *dig(port)) as asking:
        assert asking.finish() == 0, asking.said
        assert f"A\t{ADDRESS}\n" in asking.said
    record = socks_relay.ended("udp-associate")
    assert (record["to_remote_datagrams"], record["to_client_datagrams"]) == (1, 1)


@needs(whois="whois")
@both_methods
def test_whois_asks_a_registry_outside(lab: Lab, socks_relay: SocksRelay, tmp_path: Path, method: str) -> None:
    with served(lab.outside, socketserver.ThreadingTCPServer, (REMOTE[4], 0), Registry) as port:
        command = (*socksified(tmp_path, method), "whois", "-h", REMOTE[4], "-p", str(port), "example.org")
        with program(lab.client, *command) as whois:
            assert whois.finish() == 0, whois.said
            assert "domain: example.org" in whois.said
    assert socks_relay.ended("connect").get("user") == (USER if method == "username" else None)


@needs(ftp="ftp")
def test_ftp_in_active_mode_is_connected_to_by_the_server(lab: Lab, socks_relay: SocksRelay, tmp_path: Path) -> None:
    """socksify does not know from which port the server will come: it names the server's address and port 0."""
    data, down = random.Random(959).randbytes(2 << 20), tmp_path / "down"
    with ftp_server(lab, tmp_path / "shared", {"file": data}) as url:
        command = (*socksified(tmp_path, commands="connect bind"), "ftp", "-A", "-o", str(down), f"{url}/file")
        with program(lab.client, *command) as ftp:
            assert ftp.finish() == 0, ftp.said
    assert down.read_bytes() == data
    record = socks_relay.ended("bind")
    assert record["remote"] == f"{REMOTE[4]}:0"
    assert record["to_client_octets"] == len(data)
