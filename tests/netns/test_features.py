"""What the relay says it can do, to whom, and that it is so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from mcastsocks.client import connect
from mcastsocks.wire.features import Extension
from tests import scapy_layers as layers
from tests.netns.client import BOTH, MULTICAST, RECEIVE, SEND, UNICAST, RawClient, Refused
from tests.netns.lab import CLIENT, GROUP, INSIDE, REMOTE, SECOND, Lab
from tests.netns.relay import PASSWORDS, RULES, RelayProcess
from tests.netns.test_commands import command

COMMAND, UDP_ASSOCIATE, ENHANCED_UDP_MODE, LIST_FEATURES = 4, 3, 4, 0x10
UNICAST_LISTED, GROUPS_LISTED = 1, 2
BASE = {UNICAST_LISTED, GROUPS_LISTED}

CAROL_ELSEWHERE = f"""
[[rules]]
name = "carol may ask the outside from one host"
allow = true
users = ["carol"]
clients = ["{SECOND[4]}"]
do = ["udp"]
to = ["10.77.2.0/24"]
"""


@pytest.fixture(scope="module")
def one_relay(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    relay = RelayProcess(lab, tmp_path_factory.mktemp("relay"), rules=RULES + CAROL_ELSEWHERE)
    yield relay
    relay.close()


def url(user: str) -> str:
    return f"socks5://{user}:{PASSWORDS[user]}@{INSIDE[4]}"


@pytest.mark.parametrize(
    ("user", "address", "base"),
    [
        ("alice", CLIENT[4], {UNICAST_LISTED, GROUPS_LISTED}),
        ("bob", CLIENT[4], {GROUPS_LISTED}),
        ("carol", CLIENT[4], set()),
        ("carol", SECOND[4], {UNICAST_LISTED}),
    ],
)
def test_a_user_is_told_what_the_rules_allow_from_there(
    lab: Lab, one_relay: RelayProcess, user: str, address: str, base: set[int]
) -> None:
    with RawClient(lab.client, user, address=address, enter=False) as client:
        listed = client.list_features()
    enhanced = listed.pop((COMMAND, ENHANCED_UDP_MODE), b"")
    assert BASE.intersection(enhanced) == base
    assert bool(enhanced) == bool(base), "an extension alone is of no use"
    assert list(enhanced) == sorted(set(enhanced))
    commands = {each for tag, each in listed if tag == COMMAND} - {LIST_FEATURES}
    assert commands == ({UDP_ASSOCIATE} if UNICAST_LISTED in base else set())
    for each in commands:
        assert listed.pop((COMMAND, each)) == b""
    assert listed == {
        (0x00, 0x10): bytes((1, 2)),  # it depends on client address and authentication method
        (0x01, 0x05): b"",
        (0x02, 0x01): b"",
        (0x02, 0x03): b"",
        (0x02, 0x04): b"",
        (0x03, 0x02): b"",
        (COMMAND, LIST_FEATURES): bytes((1,)),
        (0x10, 0x03): b"mcastsocks",
    }


def test_what_is_listed_is_served_on_the_same_connection(lab: Lab, one_relay: RelayProcess) -> None:
    with RawClient(lab.client, "alice", enter=False) as client:
        listed = client.list_features()
        assert client.list_features() == listed, "as often as one likes, within reason"
        assert BASE <= set(listed[COMMAND, ENHANCED_UDP_MODE])
        client.enter()
        assert client.bind(BOTH | UNICAST, (REMOTE[4], 5004)).AID
        assert client.bind(BOTH | MULTICAST, (GROUP[4], 5004), ttl=1).AID


def test_what_is_not_listed_is_refused(lab: Lab, one_relay: RelayProcess) -> None:
    with RawClient(lab.client, "bob", enter=False) as bob:
        assert UNICAST_LISTED not in bob.list_features()[COMMAND, ENHANCED_UDP_MODE]
        bob.enter()
        with pytest.raises(Refused) as refused:
            bob.bind(BOTH | UNICAST, (REMOTE[4], 5004))
        assert refused.value.code == 0x02
        assert bob.bind(RECEIVE | MULTICAST, (GROUP[4], 5004)).AID
    with RawClient(lab.client, "carol", enter=False) as carol:
        assert (COMMAND, ENHANCED_UDP_MODE) not in carol.list_features()
        with pytest.raises(Refused) as refused:
            carol.enter()
        assert refused.value.code == 0x02


def test_whoever_is_told_of_unicast_alone_has_unicast_alone(lab: Lab, one_relay: RelayProcess) -> None:
    with RawClient(lab.client, "carol", address=SECOND[4], enter=False) as carol:
        assert BASE.intersection(carol.list_features()[COMMAND, ENHANCED_UDP_MODE]) == {UNICAST_LISTED}
        carol.enter()
        assert carol.associate((REMOTE[4], 5004))
        for direction, ttl, code in ((RECEIVE, 0, 0x11), (SEND, 1, 0x12)):
            with pytest.raises(Refused) as refused:
                carol.bind(direction | MULTICAST, (GROUP[4], 5004), ttl=ttl)
            assert refused.value.code == code


def test_a_list_without_the_wish_to_go_on_ends_the_connection(lab: Lab, one_relay: RelayProcess) -> None:
    with RawClient(lab.client, enter=False) as client:
        client.list_features(flag=0)
        assert client.is_closed()


def test_login_list_and_enhanced_mode_may_come_in_one_segment(lab: Lab, one_relay: RelayProcess) -> None:
    with RawClient(lab.client, enter=False) as client:
        client.tcp.sendall(bytes(layers.Request(CMD=0x10, FLAG=1)) + bytes(layers.Request(CMD=4)))
        assert client.read(10) == bytes.fromhex("05000101000000000000")
        while (head := client.read(3))[0] != 0xFF:
            client.read(head[2])
        assert client.read(10) == bytes.fromhex("01000001000000000000")
        assert client.join((GROUP[4], 5004))


def test_the_library_knows_what_its_relay_can_do(lab: Lab, one_relay: RelayProcess) -> None:
    async def ask(user: str) -> frozenset[Extension]:
        async with connect(url(user)) as relay:
            assert relay.features is not None
            return relay.extensions

    base = frozenset((Extension.UNICAST, Extension.GROUPS))
    assert lab.client.call(lambda: asyncio.run(ask("alice"))) & base == base
    first = one_relay.wait_for_record("session-start", user="alice")["session"]
    assert lab.client.call(lambda: asyncio.run(ask("bob"))) & base == {Extension.GROUPS}
    one_relay.wait_for_record("session-start", user="bob", session=first + 1)  # one connection each


def test_features_prints_the_list_for_a_person(lab: Lab, one_relay: RelayProcess) -> None:
    with command(lab.client, "features", relay=url("bob")) as features:
        code, out = features.finish()
    lines = out.decode().splitlines()
    assert code == 0
    assert lines[0] == f"socks5://bob@{INSIDE[4]}:1080"
    assert "  SOCKS versions    5" in lines
    assert "  address types     IPv4, names, IPv6" in lines
    assert "  authentication    username/password" in lines
    assert any(line.startswith("  commands          ENHANCED_UDP_MODE: groups") for line in lines)
    assert "                    LIST-FEATURES: the connection can be kept" in lines
    assert PASSWORDS["bob"] not in out.decode()


def test_features_writes_json_for_a_program_even_for_whom_no_rule_knows(lab: Lab, one_relay: RelayProcess) -> None:
    with command(lab.client, "features", "--format", "json", relay=url("carol")) as features:
        code, out = features.finish()
    assert code == 0
    listed = json.loads(out)
    assert listed["relay"] == f"socks5://carol@{INSIDE[4]}:1080"
    assert [each["words"] for each in listed["features"] if each["tag"] == COMMAND] == [
        "LIST-FEATURES: the connection can be kept"
    ]
