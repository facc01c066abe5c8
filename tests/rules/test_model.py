"""A rule as it is written: what it takes, and what it says about what it does not."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from pydantic import ValidationError

from mcastsocks.rules.model import Action, Rule


def rule(**fields: Any) -> Rule:
    return Rule.model_validate({"name": "r", "allow": True, **fields})


def complaint(**fields: Any) -> str:
    """The key and the words of the one problem that these fields have."""
    with pytest.raises(ValidationError) as caught:
        rule(**fields)
    (problem,) = caught.value.errors()
    return ".".join(map(str, problem["loc"])) + ": " + problem["msg"]


@pytest.mark.parametrize(
    ("field", "written", "taken"),
    [
        ("name", "  desk\tmay  talk ", "desk may talk"),
        ("users", ["alice", "@desk"], ["alice", "@desk"]),
        ("clients", ["192.0.2.7", "2001:db8::/32"], [ip_network("192.0.2.7/32"), ip_network("2001:db8::/32")]),
        ("do", ["udp", "send-group"], [Action.UDP, Action.SEND_GROUP]),
        ("groups", ["239.1.0.0/16", "ff15::1"], [ip_network("239.1.0.0/16"), ip_network("ff15::1/128")]),
        ("to", ["198.51.100.1", "A.Example.", "*.b"], [ip_network("198.51.100.1/32"), "a.example", "*.b"]),
        ("ports", 53, [(53, 53)]),
        ("ports", "53", [(53, 53)]),
        ("ports", "5000 - 5999", [(5000, 5999)]),
        ("ports", [53, "1-1023", "65535"], [(53, 53), (1, 1023), (65535, 65535)]),
        ("max_ttl", 255, 255),
        ("modes", ["mu"], ["mu"]),
    ],
)
def test_field_is_taken_as_meant(field: str, written: Any, taken: Any) -> None:
    assert getattr(rule(**{field: written}), field) == taken


def test_absent_fields_match_anything_and_limit_nothing() -> None:
    plain = rule()
    assert (plain.users, plain.clients, plain.do, plain.groups, plain.to, plain.ports) == (None,) * 6
    assert (plain.max_ttl, plain.modes) == (255, ["mu"])


NETWORK = "expected an address or a network like 192.0.2.0/24 or 2001:db8::/32"
PORTS = 'expected a port, a range like "5000-5999", or a list of these'


@pytest.mark.parametrize(
    ("field", "written", "expected"),
    [
        ("name", " ", "name: Value error, expected a name for the rule"),
        ("name", 5, "name: Value error, expected a name for the rule"),
        ("allow", "yes", "allow: Input should be a valid boolean"),
        ("users", "alice", "users: Input should be a valid list"),
        ("clients", ["host.example"], f"clients.0: Value error, {NETWORK}"),
        ("clients", ["192.0.2.0/33"], f"clients.0: Value error, {NETWORK}"),
        ("clients", [5], f"clients.0: Value error, {NETWORK}"),
        ("clients", ["192.0.2.7/24"], "behind the prefix: expected 192.0.2.0/24"),
        ("clients", ["::ffff:192.0.2.0/120"], "expected an IPv4 network written as one"),
        ("do", ["receive-groups"], "do.0: Input should be 'receive-group', 'send-group', 'udp', 'connect' or 'bind'"),
        ("groups", ["10.0.0.0/8"], "expected groups: a network within 224.0.0.0/4 or ff00::/8"),
        ("groups", ["224.0.0.0/3"], "expected groups: a network within 224.0.0.0/4 or ff00::/8"),
        ("groups", ["all"], "expected groups: an address or a network like 239.1.0.0/16 or ff15::/16"),
        ("to", ["239.0.0.0/8"], "groups belong under 'groups'"),
        ("to", ["*"], f"{NETWORK}, or a name like host.example or *.example"),
        ("to", ["a..b"], f"{NETWORK}, or a name like host.example or *.example"),
        ("to", ["a.*.b"], "or a name like host.example or *.example"),
        ("to", ["198.51.100"], "or a name like host.example or *.example"),
        ("to", ["198.51.100.256"], "or a name like host.example or *.example"),
        ("to", ["198.51.100.1/24"], "behind the prefix: expected 198.51.100.0/24"),
        ("ports", "http", f"ports.0: Value error, {PORTS}"),
        ("ports", [53, "1-x"], f"ports.1: Value error, {PORTS}"),
        ("ports", True, f"ports.0: Value error, {PORTS}"),
        ("ports", 65536, f"ports.0: Value error, {PORTS}"),
        ("ports", "2-1", "from a lower to a higher port, 1 to 65535"),
        ("ports", 0, "from a lower to a higher port, 1 to 65535"),
        ("max_ttl", 0, "greater than or equal to 1"),
        ("max_ttl", 256, "less than or equal to 255"),
        ("max_ttl", True, "max_ttl: Input should be a valid integer"),
        ("modes", ["mx"], "modes.0: Input should be 'mu' or 'mm'"),
        ("port", 53, "port: Extra inputs are not permitted"),
    ],
)
def test_wrong_value_says_what_was_expected(field: str, written: Any, expected: str) -> None:
    assert expected in complaint(**{field: written})


@pytest.mark.parametrize("field", ["users", "clients", "do", "groups", "to", "ports", "modes"])
def test_empty_list_is_refused_because_it_would_match_nothing(field: str) -> None:
    assert complaint(**{field: []}).startswith(f"{field}: List should have at least 1 item")


@pytest.mark.parametrize("field", ["name", "allow"])
def test_name_and_allow_must_be_written(field: str) -> None:
    with pytest.raises(ValidationError, match="Field required"):
        Rule.model_validate({key: value for key, value in (("name", "r"), ("allow", True)) if key != field})
