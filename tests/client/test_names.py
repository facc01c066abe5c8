"""Names of remotes, made fit for the wire."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.client import names


@pytest.mark.parametrize(
    ("host", "wire"),
    [
        ("host.example", "host.example"),
        ("exämple.org", "xn--exmple-cua.org"),
        ("_service.example.", "_service.example."),
        ("a" * 63, "a" * 63),
    ],
)
def test_name_goes_as_ascii(host: str, wire: str) -> None:
    assert names.endpoint(host, 9) == Endpoint(wire, 9)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_address_is_no_name(host: str) -> None:
    assert names.endpoint(host, 65_535) == Endpoint(ip_address(host), 65_535)


@pytest.mark.parametrize("host", ["", "a..b", "a" * 64, "a" * 300, "abc." * 75, "\u00ad.example"])
def test_what_no_message_can_carry_is_a_value_error(host: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        names.endpoint(host, 9)


@pytest.mark.parametrize("port", [-1, 70_000])
def test_port_that_is_none_is_a_value_error(port: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 65535, not {port}"):
        names.endpoint("host.example", port)
