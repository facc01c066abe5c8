"""Which rule speaks, and what it allows."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcastsocks.rules.decide import DEFAULT, Query, Ruleset, Verdict
from mcastsocks.rules.model import Action, Rule
from mcastsocks.rules.protected import Protected

OWN = ["192.0.2.1", "203.0.113.1", "2001:db8:2::1", "127.0.0.1"]
INSIDE = ["192.0.2.0/24", "2001:db8:1::/48"]
PROTECTED = Protected(frozenset(map(ip_address, OWN)), tuple(map(ip_network, INSIDE)))
TEAMS = {"desk": ["alice", "carol"]}


def ruleset(*rules: dict[str, Any], protected: Protected = PROTECTED) -> Ruleset:
    """Rules numbered from 0; they allow unless they say otherwise."""
    models = [Rule.model_validate({"name": f"{n}", "allow": True, **rule}) for n, rule in enumerate(rules)]
    return Ruleset(models, TEAMS, protected)


def query(
    action: str = "udp",
    address: str = "198.51.100.7",
    port: int = 53,
    *,
    user: str | None = "alice",
    client: str = "192.0.2.7",
    name: str | None = None,
) -> Query:
    return Query(user, ip_address(client), Action(action), ip_address(address), port, name)


def group(address: str = "239.1.2.3", port: int = 5004, action: str = "receive-group", **more: Any) -> Query:
    return query(action, address, port, **more)


def speaks(rules: Ruleset, asked: Query) -> str:
    return rules.decide(asked).rule


# Order


def test_first_rule_that_matches_decides() -> None:
    rules = ruleset({"to": ["198.51.100.0/24"], "allow": False}, {}, {"allow": False})
    assert speaks(rules, query(address="198.51.100.7")) == "0"
    assert speaks(rules, query(address="203.0.113.7")) == "1"
    assert [rules.decide(query(address=a)).allowed for a in ("198.51.100.7", "203.0.113.7")] == [False, True]


@pytest.mark.parametrize("rules", [[], [{"users": ["bob"]}], [{"do": ["connect"]}]])
def test_what_no_rule_speaks_of_is_denied(rules: list[dict[str, Any]]) -> None:
    verdict = ruleset(*rules).decide(query())
    assert (verdict.allowed, verdict.rule) == (False, DEFAULT)
    assert verdict.reason == "no rule allows udp 198.51.100.7 port 53"


@pytest.mark.parametrize("asked", [query(user=None), query("bind", "2001:db8:9::1", 1), group(), group("ff15::1")])
def test_rule_without_fields_matches_anything(asked: Query) -> None:
    assert ruleset({}).decide(asked).allowed


def test_verdict_names_its_rule_and_carries_its_limits() -> None:
    rules = ruleset({"name": "talk", "max_ttl": 16}, {"name": "never", "allow": False})
    assert rules.decide(query()) == Verdict(True, "talk", "allowed by rule 'talk'", 16, ("mu",))
    rules = ruleset({"name": "never", "allow": False, "max_ttl": 16})
    assert rules.decide(query()).reason == "rule 'never' denies it"


def test_limits_never_influence_which_rule_matches() -> None:
    rules = ruleset({"max_ttl": 1, "modes": ["mu"]}, {"max_ttl": 255})
    assert rules.decide(group(action="send-group")).max_ttl == 1


# Each field


MATCHES = {
    "user": ({"users": ["alice"]}, query(user="alice"), query(user="bob")),
    "nobody": ({"users": ["alice"]}, query(user="alice"), query(user=None)),
    "name like a team": ({"users": ["desk"]}, query(user="desk"), query(user="alice")),
    "team": ({"users": ["@desk"]}, query(user="carol"), query(user="desk")),
    "unknown team": ({"users": ["@x", "bob"]}, query(user="bob"), query(user="alice")),
    "client": ({"clients": ["192.0.2.0/28"]}, query(client="192.0.2.15"), query(client="192.0.2.16")),
    "client of another family": ({"clients": ["::/0"]}, query(client="2001:db8::1"), query(client="192.0.2.7")),
    "action": ({"do": ["connect", "udp"]}, query("connect"), query("bind")),
    "group": ({"groups": ["239.1.0.0/16"]}, group("239.1.255.255"), group("239.2.0.0")),
    "IPv6 group": ({"groups": ["ff15::/16"]}, group("ff15::1"), group("ff25::1")),
    "destination": ({"to": ["198.51.100.0/25"]}, query(address="198.51.100.127"), query(address="198.51.100.128")),
    "port": ({"ports": [53, "5000-5999"]}, query(port=5999), query(port=6000)),
    "first port": ({"ports": [53, "5000-5999"]}, query(port=53), query(port=54)),
    "port of a group": ({"ports": "5004"}, group(port=5004), group(port=5005)),
    "name": ({"to": ["a.example"]}, query(name="A.example."), query(name="b.a.example")),
    "no name": ({"to": ["a.example"]}, query(name="a.example"), query(name=None)),
    "wildcard": ({"to": ["*.example"]}, query(name="B.A.Example"), query(name="example")),
    "end of a name": ({"to": ["*.example"]}, query(name="a.example"), query(name="aexample")),
    "name or network": (
        {"to": ["a.example", "203.0.113.7"]},
        query(address="203.0.113.7", name="b.example"),
        query(address="203.0.113.8", name="b.example"),
    ),
}


@pytest.mark.parametrize(("fields", "fits", "fits_not"), MATCHES.values(), ids=MATCHES)
@pytest.mark.parametrize("allow", [True, False])
def test_field_matches(fields: dict[str, Any], fits: Query, fits_not: Query, allow: bool) -> None:
    rules = ruleset({**fields, "allow": allow})
    assert speaks(rules, fits) == "0"
    assert rules.decide(fits).allowed is allow
    assert speaks(rules, fits_not) == DEFAULT


def test_groups_speak_only_of_group_actions_and_to_only_of_unicast() -> None:
    rules = ruleset({"groups": ["239.1.0.0/16"], "to": ["198.51.100.0/24"]})
    assert [speaks(rules, asked) for asked in (group(), group(action="send-group"), query(), query("connect"))] == 4 * [
        "0"
    ]
    assert speaks(ruleset({"groups": ["239.1.0.0/16"]}), query(address="203.0.113.7")) == "0"
    assert speaks(ruleset({"to": ["198.51.100.0/24"]}), group("239.9.9.9")) == "0"
    assert speaks(ruleset({"to": ["a.example"]}), group("239.9.9.9", name="b.example")) == "0"
    assert speaks(ruleset({"groups": ["239.1.0.0/16"]}), group("239.9.9.9", name="239.1.2.3")) == DEFAULT


def test_any_port_is_allowed_by_a_rule_for_all_ports_and_denied_by_a_rule_for_one() -> None:
    assert speaks(ruleset({"ports": "1-65534"}), query(port=0)) == DEFAULT
    assert speaks(ruleset({"ports": [53, "1-65535"]}), query(port=0)) == "0"
    assert speaks(ruleset({"ports": 53, "allow": False}, {}), query(port=0)) == "0"


# Protected ranges


RANGES = {
    # what                             an address in it    opens it                          too wide
    "own address": ("203.0.113.1", ["203.0.113.1"], ["203.0.113.0/31"]),
    "own IPv6 address": ("2001:db8:2::1", ["2001:db8:2::1/128"], ["2001:db8:2::/64"]),
    "own address of an inside network": ("192.0.2.1", ["192.0.2.1"], ["192.0.2.0/24"]),
    "inside network": ("192.0.2.9", ["192.0.2.0/24"], ["192.0.0.0/16"]),
    "part of an inside network": ("192.0.2.9", ["192.0.2.8/30"], ["192.0.2.0/23"]),
    "inside IPv6 network": ("2001:db8:1::9", ["2001:db8:1:0::/64"], ["2001:db8::/32"]),
    "loopback": ("127.0.0.1", ["127.0.0.0/8"], ["126.0.0.0/7"]),
    "part of loopback": ("127.0.0.53", ["127.0.0.53"], ["0.0.0.0/0"]),
    "IPv6 loopback": ("::1", ["::1"], ["::/0"]),
    "link-local": ("169.254.169.254", ["169.254.0.0/16"], ["0.0.0.0/0"]),
    "IPv6 link-local": ("fe80::1", ["fe80::/10"], ["fe80::/9"]),
    "this network": ("0.0.0.1", ["0.0.0.0/8"], ["0.0.0.0/7"]),
    "broadcast": ("255.255.255.255", ["255.255.255.255"], ["255.0.0.0/8"]),
    "local control groups": ("224.0.0.251", ["224.0.0.0/24"], ["224.0.0.0/23"]),
    "one local control group": ("224.0.0.251", ["224.0.0.251"], ["224.0.0.0/4"]),
    "link-local groups": ("ff02::fb", ["ff02::/16"], ["ff00::/14"]),
    "link-local groups with flags": ("ff12::1", ["ff12::/16"], ["ff02::/16", "ff10::/12"]),
}


@pytest.mark.parametrize(("address", "opened", "too_wide"), RANGES.values(), ids=RANGES)
def test_protected_range_is_opened_by_naming_it_or_a_part(address: str, opened: list[str], too_wide: list[str]) -> None:
    field, action = ("groups", "receive-group") if ip_address(address).is_multicast else ("to", "udp")
    asked = query(action, address)
    assert speaks(ruleset({field: opened}), asked) == "0"
    assert speaks(ruleset({field: too_wide}, {}), asked) == DEFAULT
    assert speaks(ruleset({field: too_wide, "allow": False}, {field: opened}), asked) == "0"
    assert "is protected: a rule must name it or a part of it" in ruleset({}).decide(asked).reason


@pytest.mark.parametrize(("address", "opened"), [case[:2] for case in RANGES.values()], ids=RANGES)
def test_rule_that_denies_matches_protected_ranges_as_it_does_others(address: str, opened: list[str]) -> None:
    field, action = ("groups", "receive-group") if ip_address(address).is_multicast else ("to", "udp")
    rules = ruleset({"allow": False}, {field: opened})
    assert speaks(rules, query(action, address)) == "0"
    wide = ["224.0.0.0/4", "ff00::/8"] if field == "groups" else ["0.0.0.0/0", "::/0"]
    assert speaks(ruleset({"allow": False, field: wide}, {field: opened}), query(action, address)) == "0"


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.9", "203.0.113.1", "169.254.1.1", "::1"])
def test_name_never_opens_a_protected_range(address: str) -> None:
    rules = ruleset({"to": ["a.example", "*.example", "198.51.100.0/24"]})
    assert rules.decide(query(address="203.0.113.99", name="a.example")).allowed
    assert not rules.decide(query(address=address, name="a.example")).allowed


def test_name_is_denied_by_a_rule_wherever_it_leads() -> None:
    rules = ruleset({"to": ["a.example"], "allow": False}, {"to": ["127.0.0.0/8"]})
    assert speaks(rules, query(address="127.0.0.1", name="a.example")) == "0"
    assert speaks(rules, query(address="127.0.0.1", name="b.example")) == "1"


def test_neighbours_of_protected_ranges_are_ordinary() -> None:
    rules = ruleset({})
    for address in ("126.255.255.255", "128.0.0.1", "192.0.3.1", "203.0.113.2", "169.253.255.255", "fec0::1", "::2"):
        assert rules.decide(query(address=address)).allowed, address
    for address in ("224.0.1.0", "239.255.255.250", "ff03::1", "ff05::1", "ff0e::1"):
        assert rules.decide(group(address)).allowed, address


def test_relay_without_inside_networks_still_protects_loopback() -> None:
    assert not ruleset({}, protected=Protected()).decide(query(address="127.0.0.1")).allowed


@pytest.mark.parametrize("address", ["ff01::1", "ff11::1234", "ff00::1", "ff30::8000:1"])
def test_groups_of_one_interface_never_cross(address: str) -> None:
    verdict = ruleset({"groups": [address, "ff01::/16", "ff00::/8"]}).decide(group(address))
    assert (verdict.allowed, verdict.rule) == (False, DEFAULT)
    assert "never crosses" in verdict.reason


# May ever


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], False),
        ([{}], True),
        ([{"allow": False}], False),
        ([{"allow": False}, {}], True),  # of some address a later rule may speak
        ([{"users": ["bob"]}], False),
        ([{"users": ["@desk"]}], True),
        ([{"clients": ["192.0.2.0/24"]}], True),
        ([{"clients": ["198.51.100.0/24"]}], False),
        ([{"do": ["connect", "bind"]}], False),
        ([{"do": ["connect", "send-group"]}], True),
        ([{"users": ["bob"]}, {"do": ["connect"]}, {"groups": ["239.1.2.3"], "ports": 1}], True),
    ],
)
def test_may_ever_says_whether_any_rule_could_allow_it(rules: list[dict[str, Any]], expected: bool) -> None:
    actions = frozenset((Action.UDP, Action.RECEIVE_GROUP, Action.SEND_GROUP))
    assert ruleset(*rules).may_ever("alice", ip_address("192.0.2.7"), actions) is expected


# Against another reading of design.md, as plain as possible and from the text that people write


def within(address: str, network: str) -> bool:
    left, right = ip_address(address), ip_network(network)
    shift = right.max_prefixlen - right.prefixlen
    return left.version == right.version and int(left) >> shift == int(right.network_address) >> shift


def guards(address: str) -> list[str]:
    """The protected ranges of an address."""
    found = [own for own in OWN if own == address and own != "127.0.0.1"]
    ranges = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "255.255.255.255", "::/127", "fe80::/10", *INSIDE]
    return found + [each for each in [*ranges, "224.0.0.0/24", "ff02::/16"] if within(address, each)]


def is_part(network: str, wider: str) -> bool:
    return within(network.split("/")[0], wider) and ip_network(network).prefixlen >= ip_network(wider).prefixlen


def agrees(rule: dict[str, Any], asked: dict[str, Any]) -> bool:
    user, action, address, name = asked["user"], asked["action"], asked["address"], asked["name"]
    members = [m for each in rule.get("users", []) for m in (TEAMS["desk"] if each == "@desk" else [each])]
    if "users" in rule and user not in members:
        return False
    if "clients" in rule and not any(within(asked["client"], each) for each in rule["clients"]):
        return False
    if "do" in rule and action not in rule["do"]:
        return False
    ports = [each.split("-") for each in rule.get("ports", [])]
    if ports and not any(int(each[0]) <= asked["port"] <= int(each[-1]) for each in ports):
        return False
    speaking = rule.get("groups" if action.endswith("-group") else "to")
    networks = [each for each in speaking or [] if "example" not in each]
    names = [each for each in speaking or [] if "example" in each]
    if rule["allow"] and guards(address):
        return any(
            within(address, each) and all(is_part(each, guard) for guard in guards(address)) for each in networks
        )
    if speaking is None or any(within(address, each) for each in networks):
        return True
    return name is not None and any(
        name == each or (each.startswith("*.") and name.endswith(each[1:])) for each in names
    )


def naive(rules: Sequence[dict[str, Any]], asked: dict[str, Any]) -> tuple[bool, str]:
    if not within(asked["address"], "ff01::/16"):
        for rule in rules:
            if agrees(rule, asked):
                return rule["allow"], rule["name"]
    return False, DEFAULT


UNICAST = [
    *OWN,
    *("192.0.2.9", "198.51.100.7", "198.51.100.200", "169.254.1.1", "255.255.255.255", "0.0.0.9"),
    *("2001:db8:1::9", "2001:db8:9::1", "::1", "fe80::1"),
]
GROUPS = ["224.0.0.5", "224.0.1.1", "239.1.2.3", "239.2.3.4", "ff02::1", "ff01::1", "ff15::1", "ff0e::1"]
NAMES = ["a.example", "b.a.example", "example"]
ACTIONS = [action.value for action in Action]


def some(*items: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(items), min_size=1, max_size=3, unique=True)


RULES = st.lists(
    st.fixed_dictionaries(
        {"allow": st.booleans()},
        optional={
            "users": some("alice", "bob", "@desk"),
            "clients": some("192.0.2.0/24", "192.0.2.7", "2001:db8::/32", "0.0.0.0/0", "::/0"),
            "do": some(*ACTIONS),
            "groups": some(*GROUPS, "224.0.0.0/4", "224.0.0.0/24", "239.0.0.0/8", "ff00::/8", "ff02::/16", "ff01::/16"),
            "to": some(
                *(*UNICAST, *INSIDE, "0.0.0.0/0", "::/0", "198.51.100.0/25", "127.0.0.0/8", "192.0.2.8/29"),
                *("a.example", "*.a.example", "*.example"),
            ),
            "ports": some("53", "1-1023", "5000-5999", "1-65535"),
        },
    ),
    max_size=6,
).map(lambda rules: [{**rule, "name": str(n)} for n, rule in enumerate(rules)])

ASKED = st.sampled_from(ACTIONS).flatmap(
    lambda action: st.fixed_dictionaries(
        {
            "action": st.just(action),
            "user": st.sampled_from(["alice", "bob", "carol", None]),
            "client": st.sampled_from(["192.0.2.7", "192.0.2.8", "198.51.100.7", "2001:db8::1", "2001:db9::1"]),
            "address": st.sampled_from(GROUPS if action.endswith("-group") else UNICAST),
            "port": st.sampled_from([1, 53, 1024, 5000, 5999, 6000, 65535]),
            "name": st.sampled_from([None, *NAMES]),
        }
    )
)


@settings(max_examples=120, deadline=None)
@given(RULES, st.lists(ASKED, min_size=1, max_size=8))
def test_compiled_rules_agree_with_a_naive_reading(rules: list[dict[str, Any]], queries: list[dict[str, Any]]) -> None:
    compiled = ruleset(*rules)
    for asked in queries:
        verdict = compiled.decide(query(**asked))
        assert (verdict.allowed, verdict.rule) == naive(rules, asked), asked
        if verdict.allowed:
            user, client = asked["user"], ip_address(asked["client"])
            assert compiled.may_ever(user, client, frozenset((Action(asked["action"]),)))
