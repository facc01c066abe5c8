"""What the rules make of a destination, and whose rule it then is."""

from __future__ import annotations

import socket
from dataclasses import fields
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mcastsocks.address import Endpoint, from_sockaddr
from mcastsocks.errors import WireError
from mcastsocks.planes.interface import Interface
from mcastsocks.rules.decide import Ruleset
from mcastsocks.rules.model import Action, Rule
from mcastsocks.server.client import Client
from mcastsocks.server.judge import Denied, Judge
from mcastsocks.server.services import Services
from mcastsocks.server.upstream import _where_reached

V4, OTHER, V6 = ip_address("198.51.100.1"), ip_address("198.51.100.2"), ip_address("2001:db8::1")


def judge(*rules: dict[str, Any], ipv6: bool = True) -> Judge:
    outside = Interface("eth1", 2, ip_address("203.0.113.1"), ip_address("2001:db8:1::1") if ipv6 else None)  # type: ignore[arg-type]
    ruleset = Ruleset([Rule.model_validate({"allow": True, **rule}) for rule in rules], via="street")
    needed = {"rules": ruleset, "outsides": {"street": outside, "annex": outside}}
    services = Services(**{each.name: needed.get(each.name) for each in fields(Services)})  # type: ignore[arg-type]
    return Judge(services, "alice", ip_address("192.0.2.1"), "alice")


@pytest.mark.parametrize("way", [{"upstream": "hub"}, {"via": "annex"}, {"max_ttl": 3}])
def test_addresses_of_a_name_that_another_rule_allows_are_left_out(way: dict[str, Any]) -> None:
    """Whoever owns a name could otherwise choose which rule its addresses are reached by."""
    asked = judge({"name": "first", "to": [str(V4)]}, {"name": "second", "to": [str(OTHER)], **way})
    destination = Endpoint("evil.example", 80)
    for addresses, rule in (([V4, OTHER], "first"), ([OTHER, V4], "second")):
        allowed = asked.judge_addresses(Action.CONNECT, destination, addresses)
        assert (allowed.addresses, allowed.verdict.rule) == (tuple(addresses[:1]), rule)


def test_what_the_taken_rule_requires_is_required_of_a_name_too() -> None:
    asked = judge({"name": "six", "to": [str(V6)]}, {"name": "four", "to": [str(V4)], "require": "rtp"}, ipv6=False)
    with pytest.raises(Denied, match="rule 'four' looks into datagrams"):
        asked.judge_addresses(Action.UDP, Endpoint("both.example", 5004), [V6, V4])


def test_what_goes_by_an_upstream_needs_no_address_of_its_version_here() -> None:
    asked = judge({"name": "hub", "upstream": "hub", "to": [str(V6)]}, ipv6=False)
    assert asked.judge_addresses(Action.CONNECT, Endpoint(V6, 80), [V6]).addresses == (V6,)


def test_nobody_without_a_login_has_more_than_one_account_in_a_network_of_its_own() -> None:
    config = SimpleNamespace(
        limits=SimpleNamespace(handshake_timeout_s=1.0), socks=SimpleNamespace(socks4=False), auth=None
    )
    services = cast(Services, SimpleNamespace(config=config))
    accounts = {
        Client(services, 1, cast(Any, None), cast(Any, None), (address, 5000, 0, 0)).account
        for address in ("2001:db8::1", "2001:db8::ffff:1")
    }
    assert len(accounts) == 1


@pytest.mark.parametrize(
    ("told", "taken"),
    [("0.0.0.0", True), ("127.0.0.1", True), ("::ffff:127.0.0.1", True), ("127.0.0.77", False), ("fw.example", False)],
)
def test_an_upstream_takes_datagrams_where_it_was_reached_and_nowhere_else(told: str, taken: bool) -> None:
    host = told if told == "fw.example" else ip_address(told)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        reached = from_sockaddr(sock.getpeername()).host
        if taken:
            assert _where_reached(sock, Endpoint(host, 1081)) == Endpoint(reached, 1081)
        else:
            with pytest.raises(WireError, match=r"and was reached at 127\.0\.0\.1"):
                _where_reached(sock, Endpoint(host, 1081))
