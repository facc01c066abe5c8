"""Names as destinations of a UDP ASSOCIATE: resolved by the relay, in order, and judged by what they resolve to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.netns.lab import BORDER, INSIDE, REMOTE, SECOND, STRANGER, Lab, wait_for
from tests.netns.nameserver import Nameserver
from tests.netns.relay import RelayProcess
from tests.netns.socks_client import RULES, Associate, receives_nothing

WAITING = 16
"""Datagrams that may wait for one name."""

NAMES = {
    "remote.example": (REMOTE[4],),
    "remote6.example": (REMOTE[6],),
    "stranger.example": (STRANGER[4],),
    "loopback.example": ("127.0.0.1", "::1"),
    "inside.example": (SECOND[4], SECOND[6]),
    "relay.example": (INSIDE[4], INSIDE[6], BORDER[4], BORDER[6]),
    "mapped.example": ("::ffff:127.0.0.1",),
    "mixed.example": ("127.0.0.1", INSIDE[4], REMOTE[4]),
    "nobody.example": ("0.0.0.0",),
    "group.example": ("239.77.1.2",),
    "empty.example": (),
}


@pytest.fixture(scope="module")
def nameserver(lab: Lab) -> Iterator[Nameserver]:
    with Nameserver(lab.outside, REMOTE[4], NAMES) as server, lab.relay.asking(REMOTE[4]):
        yield server


@pytest.fixture
def relay(nameserver: Nameserver, start_relay: Callable[..., RelayProcess]) -> RelayProcess:
    return start_relay(rules=RULES)


@pytest.fixture
def remote(lab: Lab) -> Iterator[socket.socket]:
    with lab.outside.udp(REMOTE[4]) as sock:
        yield sock


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def crosses(associate: Associate, remote: socket.socket) -> None:
    """A datagram to the remote's address, and no name, does; what was sent before has been seen to."""
    associate.send(remote.getsockname(), b"by address")
    assert remote.recv(100) == b"by address"


@pytest.mark.parametrize("version", [4, 6])
def test_a_name_is_resolved_and_the_answer_names_the_address(lab: Lab, relay: RelayProcess, version: int) -> None:
    name = {4: "remote.example", 6: "remote6.example"}[version]
    with Associate(lab.client) as associate, lab.outside.udp(REMOTE[version]) as remote:
        associate.send((name, port_of(remote)), b"question")
        data, source = remote.recvfrom(100)
        assert data == b"question"
        remote.sendto(b"answer", source)
        assert associate.receive() == ((REMOTE[version], port_of(remote)), b"answer")


def test_datagrams_that_wait_for_a_name_keep_their_order(
    lab: Lab, nameserver: Nameserver, relay: RelayProcess, remote: socket.socket
) -> None:
    nameserver.hold("remote.example")
    named = ("remote.example", port_of(remote))
    sent = [index.to_bytes(1) * index for index in range(WAITING)]
    with Associate(lab.client) as associate:
        for data in sent:
            associate.send(named, data)
        wait_for("all to wait", lambda: relay.counters()["waiting"] == len(sent))
        nameserver.release("remote.example")
        assert [remote.recv(100) for _ in sent] == sent
        associate.send(named, b"and one more")
        assert remote.recv(100) == b"and one more"
    assert relay.counters()["waiting"] == 0


def test_a_name_that_takes_its_time_holds_up_no_other_destination(
    lab: Lab, nameserver: Nameserver, relay: RelayProcess, remote: socket.socket
) -> None:
    nameserver.hold("remote.example")
    with Associate(lab.client) as associate, lab.outside.udp(STRANGER[4]) as stranger:
        associate.send(("remote.example", port_of(remote)), b"slow")
        associate.send(("stranger.example", port_of(stranger)), b"another name")
        assert stranger.recv(100) == b"another name"
        crosses(associate, remote)
        nameserver.release("remote.example")
        assert remote.recv(100) == b"slow"


def test_two_ports_of_a_name_are_two_destinations(
    lab: Lab, nameserver: Nameserver, relay: RelayProcess, remote: socket.socket
) -> None:
    with Associate(lab.client) as associate, lab.outside.udp(REMOTE[4]) as other:
        for index in range(3):
            for sock in (remote, other):
                associate.send(("remote.example", port_of(sock)), bytes([index]))
        for sock in (remote, other):
            assert [sock.recv(100) for _ in range(3)] == [b"\0", b"\1", b"\2"]


def test_what_waits_for_a_name_is_bounded(
    lab: Lab, nameserver: Nameserver, relay: RelayProcess, remote: socket.socket
) -> None:
    nameserver.hold("remote.example")
    with Associate(lab.client) as associate:
        for index in range(WAITING + 5):
            associate.send(("remote.example", port_of(remote)), bytes([index]))
        wait_for("the drops", lambda: relay.drops() == {"not-waiting": 5})
        nameserver.release("remote.example")
        assert [remote.recv(100) for _ in range(WAITING)] == [bytes([index]) for index in range(WAITING)]
        crosses(associate, remote)
        assert receives_nothing(remote)


@pytest.mark.parametrize(
    "name", ["loopback.example", "inside.example", "relay.example", "mapped.example", "group.example"]
)
def test_a_name_of_a_protected_address_leads_nowhere(
    lab: Lab, relay: RelayProcess, remote: socket.socket, name: str
) -> None:
    """DNS rebinding: somebody outside gives a name of his an address within."""
    with (
        Associate(lab.client) as associate,
        lab.relay.udp("127.0.0.1", port_of(remote)) as own,
        lab.client.udp(SECOND[4], port_of(remote)) as neighbour,
    ):
        for _ in range(3):
            associate.send((name, port_of(remote)), b"let me in")
        wait_for("the drops", lambda: relay.drops() == {"not-allowed": 3})
        crosses(associate, remote)
        assert receives_nothing(own)
        assert receives_nothing(neighbour)
    relay.wait_for_record("refused", command="udp", remote=f"{name}:{port_of(remote)}")
    end = relay.wait_for_record("udp-associate-end")
    assert end["dropped_datagrams"] == 3


def test_of_a_names_addresses_the_protected_ones_are_passed_over(
    lab: Lab, relay: RelayProcess, remote: socket.socket
) -> None:
    with Associate(lab.client) as associate, lab.relay.udp("127.0.0.1", port_of(remote)) as own:
        associate.send(("mixed.example", port_of(remote)), b"to whom?")
        assert remote.recv(100) == b"to whom?"
        assert receives_nothing(own)
        assert relay.drops() == {}


def test_a_name_of_nobodys_address_is_a_bad_address(lab: Lab, relay: RelayProcess, remote: socket.socket) -> None:
    with Associate(lab.client) as associate:
        associate.send(("nobody.example", port_of(remote)), b"who?")
        wait_for("the drop", lambda: relay.drops() == {"bad-address": 1})
        crosses(associate, remote)


@pytest.mark.parametrize("name", ["nowhere.example", "empty.example", "a..b", "x" * 64 + ".example", "\xff.example"])
def test_what_was_sent_to_a_name_without_addresses_is_dropped(
    lab: Lab, relay: RelayProcess, remote: socket.socket, name: str
) -> None:
    with Associate(lab.client) as associate:
        for _ in range(3):
            associate.send((name, port_of(remote)), b"anybody?")
        wait_for("the drops", lambda: sum(relay.drops().values()) == 3)
        assert set(relay.drops()) <= {"unresolved", "bad-address"}
        crosses(associate, remote)


def test_a_name_that_nobody_answers_for_is_given_up_in_time(
    lab: Lab, nameserver: Nameserver, start_relay: Callable[..., RelayProcess], remote: socket.socket
) -> None:
    relay = start_relay(rules=RULES, limits="name_timeout_s = 1")
    nameserver.hold("remote.example")
    with Associate(lab.client) as associate:
        associate.send(("remote.example", port_of(remote)), b"first")
        associate.send(("remote.example", port_of(remote)), b"second")
        wait_for("the drops", lambda: relay.drops() == {"unresolved": 2})
        nameserver.release("remote.example")
        crosses(associate, remote)
        assert receives_nothing(remote)


def test_an_association_that_ends_drops_what_waits_for_its_names(
    lab: Lab, nameserver: Nameserver, relay: RelayProcess, remote: socket.socket
) -> None:
    nameserver.hold("remote.example")
    with Associate(lab.client) as associate:
        associate.send(("remote.example", port_of(remote)), b"never mind")
        wait_for("it to wait", lambda: relay.counters()["waiting"] == 1)
    relay.wait_for_record("udp-associate-end", dropped_datagrams=1)
    nameserver.release("remote.example")
    assert relay.drops() == {"unresolved": 1}
    assert relay.counters()["waiting"] == 0
    with Associate(lab.client) as associate:
        crosses(associate, remote)
        assert receives_nothing(remote)


def test_one_user_has_no_more_than_so_many_names_looked_up_at_once(
    lab: Lab, nameserver: Nameserver, start_relay: Callable[..., RelayProcess], remote: socket.socket
) -> None:
    relay = start_relay(rules=RULES, limits="name_lookups_per_user = 1")
    nameserver.hold("remote.example")
    with Associate(lab.client) as associate:
        associate.send(("remote.example", port_of(remote)), b"the first name")
        wait_for("it to wait", lambda: relay.counters()["waiting"] == 1)
        associate.send(("stranger.example", port_of(remote)), b"has to wait for its turn")
        wait_for("both to wait", lambda: relay.counters()["waiting"] == 2)
        nameserver.release("remote.example")
        assert remote.recv(100) == b"the first name"
        wait_for("the second's turn", lambda: relay.counters()["waiting"] == 0)
        assert relay.drops() == {}
