"""Who may not: the reply code of the protocol, and a channel that lives on."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests import scapy_layers as layers
from tests.netns.client import BOTH, MULTICAST, RECEIVE, SEND, UNICAST, RawClient, Refused
from tests.netns.lab import BORDER, GROUP, INSIDE, PORT, REMOTE, SECOND, Lab, wait_for
from tests.netns.relay import RelayProcess

REFUSED = {
    "a group outside the rule": ("alice", RECEIVE | MULTICAST, ("239.99.1.1", 5004), 0, 0x11),
    "a port outside the rule": ("alice", RECEIVE | MULTICAST, (GROUP[4], 6004), 0, 0x11),
    "sending without the right to": ("bob", SEND | MULTICAST, (GROUP[4], 5004), 1, 0x12),
    "both directions with the right to one": ("bob", BOTH | MULTICAST, (GROUP[4], 5004), 1, 0x12),
    "a TTL above the rule": ("alice", SEND | MULTICAST, (GROUP[4], 5004), 17, 0x15),
    "TTL zero": ("alice", SEND | MULTICAST, (GROUP[4], 5004), 0, 0x15),
    "unicast without the right to": ("bob", BOTH | UNICAST, (REMOTE[4], 5004), 0, 0x02),
    "unicast to the relay's outside address": ("alice", BOTH | UNICAST, (BORDER[4], 5004), 0, 0x02),
    "unicast to the relay's inside address": ("alice", BOTH | UNICAST, (INSIDE[4], 5004), 0, 0x02),
    "unicast to another host inside": ("alice", BOTH | UNICAST, (SECOND[4], 5004), 0, 0x02),
    "loopback": ("alice", BOTH | UNICAST, ("127.0.0.1", 5004), 0, 0x02),
    "local network control": ("alice", RECEIVE | MULTICAST, ("224.0.0.251", 5353), 0, 0x11),
    "no group": ("alice", RECEIVE | MULTICAST, (REMOTE[4], 5004), 0, 0x14),
    "a group as unicast": ("alice", SEND | UNICAST, (GROUP[4], 5004), 0, 0x14),
    "source-specific without sources": ("alice", RECEIVE | MULTICAST, ("232.1.1.1", 5004), 0, 0x14),
    "no transport": ("alice", RECEIVE, (GROUP[4], 5004), 0, 0x01),
    "no direction": ("alice", MULTICAST, (GROUP[4], 5004), 0, 0x01),
    "a bit that nobody knows": ("alice", RECEIVE | MULTICAST | 0x2000, (GROUP[4], 5004), 0, 0x01),
    "port zero": ("alice", BOTH | UNICAST, (REMOTE[4], 0), 0, 0x09),
    "a name that does not resolve": ("alice", BOTH | UNICAST, ("no-such-host.invalid", 53), 0, 0x04),
}


@pytest.fixture(scope="module")
def one_relay(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    relay = RelayProcess(lab, tmp_path_factory.mktemp("relay"))
    yield relay
    relay.close()


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_client_gets_its_code_and_keeps_its_channel(lab: Lab, one_relay: RelayProcess, case: str) -> None:
    user, flags, remote, ttl, code = REFUSED[case]
    with RawClient(lab.client, user) as client:
        with pytest.raises(Refused) as refused:
            client.bind(flags, remote, ttl=ttl)
        assert refused.value.code == code
        assert client.join((GROUP[4], 5100)), "the channel lives on"
    one_relay.wait_for_record("refused", user=user, remote=f"{remote[0]}:{remote[1]}")
    wait_for("the group to be left", lambda: remote[0] not in lab.relay.memberships(4, "out"))


def test_flags_of_a_refusal_say_what_would_have_been_possible(lab: Lab, one_relay: RelayProcess) -> None:
    with RawClient(lab.client, "bob") as client:
        with pytest.raises(Refused) as refused:
            client.bind(BOTH | MULTICAST, (GROUP[4], 5004), ttl=1)
        assert refused.value.flags == RECEIVE | MULTICAST
        assert client.bind(refused.value.flags, (GROUP[4], 5004)).AID


def test_whoever_no_rule_knows_does_not_enter_the_enhanced_mode(lab: Lab, one_relay: RelayProcess) -> None:
    with pytest.raises(Refused) as refused:
        RawClient(lab.client, "carol")
    assert refused.value.code == 0x02


def test_a_wrong_password_is_refused(lab: Lab, one_relay: RelayProcess) -> None:
    with pytest.raises(Refused) as refused:
        RawClient(lab.client, "mallory")
    assert refused.value.code == 1
    one_relay.wait_for_record("refused", user="mallory", why="wrong user name or password")


def test_an_unknown_command_is_answered_and_the_channel_lives_on(lab: Lab, one_relay: RelayProcess) -> None:
    with RawClient(lab.client) as client:
        assert client.request(0x42).REPLY == 0x07
        assert client.join((GROUP[4], 5100))


def test_a_broken_frame_closes_only_its_channel(lab: Lab, one_relay: RelayProcess) -> None:
    with RawClient(lab.client) as broken, RawClient(lab.client, "bob", address=SECOND[4]) as other:
        broken.join((GROUP[4], 5200))
        aid = other.join((GROUP[4], 5200))
        broken.tcp.sendall(bytes.fromhex("09000d05000300000100000000"))
        assert broken.is_closed()
        record = one_relay.wait_for_record("session-end", reason="protocol error: unknown packet type X'09'")
        assert record["user"] == "alice"
        assert lab.relay.memberships(4, "out")[GROUP[4]] == 1, "the other still receives"
        assert other.release(aid, RECEIVE) == 0


def test_replies_to_a_pipeline_of_requests_carry_their_tids(lab: Lab, one_relay: RelayProcess) -> None:
    """A name that is slow to resolve must not hold the others up."""
    with RawClient(lab.client) as client:
        requests = [
            layers.ControlRequest(UDPCMD=5, FLAGS=BOTH | UNICAST, TID=tid, LOCAL=client.local, REMOTE=(host, 53))
            for tid, host in enumerate(("no-such-host.invalid", REMOTE[4], "127.0.0.1"))
        ]
        client.tcp.sendall(b"".join(map(bytes, requests)))
        codes = {reply.TID: int(reply.REPLY) for reply in (client.read_reply() for _ in requests)}
        assert codes == {0: 0x04, 1: 0x00, 2: 0x02}


def negotiated(lab: Lab, request: layers.Request) -> bytes:
    """What the relay answers to a login and a request, all asked in one go, until it has no more to say."""
    with lab.client.open_socket(4, socket.SOCK_STREAM) as tcp:
        tcp.connect((INSIDE[4], PORT))
        login = layers.UserpassRequest(UNAME="alice", PASSWD="secret")
        tcp.sendall(bytes.fromhex("050102") + bytes(login) + bytes(request))
        tcp.shutdown(socket.SHUT_WR)
        answer = b""
        while more := tcp.recv(100):
            answer += more
        return answer


def test_the_enhanced_mode_answers_with_the_extensions_version(lab: Lab, one_relay: RelayProcess) -> None:
    assert negotiated(lab, layers.Request(CMD=4)) == bytes.fromhex("0502 0100 01000001000000000000")


@pytest.mark.parametrize("command", [5, 0x0F, 0xFF])
def test_commands_that_nobody_knows_are_answered_not_supported(lab: Lab, one_relay: RelayProcess, command: int) -> None:
    request = layers.Request(CMD=command, DST=(REMOTE[4], 80))
    assert negotiated(lab, request) == bytes.fromhex("0502 0100 05070001000000000000")


def test_an_enhanced_channel_takes_no_command_of_rfc_1928(lab: Lab, one_relay: RelayProcess) -> None:
    with RawClient(lab.client) as client:
        client.tcp.sendall(bytes(layers.Request(CMD="UDP ASSOCIATE")))
        assert client.is_closed()
    one_relay.wait_for_record("session-end", reason="protocol error: unknown packet type X'05'")


def test_an_encapsulated_datagram_without_an_association_is_silently_discarded(
    lab: Lab, one_relay: RelayProcess
) -> None:
    with RawClient(lab.client) as client:
        client.tcp.sendall(bytes(layers.EncapsulatedDatagram(AID=7, DATA=b"x")))
        assert client.join((GROUP[4], 5100)), "the next octets are the reply to this"


def test_set_ttl_answers_with_the_aid_and_flags_zero(lab: Lab, one_relay: RelayProcess) -> None:
    with RawClient(lab.client) as client:
        sender, receiver = client.send_to_group((GROUP[4], 5110)), client.join((GROUP[4], 5112))
        unicast = client.associate((REMOTE[4], 5000))
        for aid, ttl, code in (
            (sender, 16, 0x00),
            (sender, 17, 0x15),
            (sender, 0, 0x15),
            (receiver, 1, 0x13),
            (unicast, 1, 0x13),
            (sender ^ 1, 1, 0x10),
        ):
            reply = client.request(7, aid=aid, ttl=ttl)
            assert (reply.REPLY, reply.AID, int(reply.FLAGS)) == (code, aid, 0)


def test_release_answers_with_the_flags_and_aid_of_the_request(lab: Lab, one_relay: RelayProcess) -> None:
    with RawClient(lab.client) as client:
        aid = client.join((GROUP[4], 5114))
        for wanted, flags, code in ((aid, SEND, 0x13), (aid ^ 1, RECEIVE, 0x10), (aid, 0, 0x01), (aid, BOTH, 0x00)):
            reply = client.request(6, flags, aid=wanted)
            assert (reply.REPLY, reply.AID, int(reply.FLAGS)) == (code, wanted, flags)
