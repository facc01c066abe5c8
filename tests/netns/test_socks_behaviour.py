"""UDP ASSOCIATE as RFC 1928 §7 means it, case by case where other relays have been seen to go wrong.

Seen with hev-socks5-server, 3proxy, Dante and asyncio-socks-server in the versions that were at hand; each test says
whom it is about.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.netns.lab import ANNEX_BORDER, BORDER, CLIENT, INSIDE, REMOTE, SECOND, STRANGER, Lab, wait_for
from tests.netns.relay import RelayProcess
from tests.netns.socks_client import HEADER_OCTETS, RULES, Associate, datagram, receives_nothing
from tests.netns.test_borders import TWO_OUTSIDES
from tests.netns.test_many import descriptors

both_versions = pytest.mark.parametrize("version", [4, 6])
FIRST, LATER, END = 1, 2, 0x80
USECLIENTSPORT = 0x04
UDP_OCTETS = {4: 65_507, 6: 65_527}


@pytest.fixture
def relay(start_relay: Callable[..., RelayProcess]) -> RelayProcess:
    return start_relay(rules=RULES)


@pytest.fixture
def reassembling(start_relay: Callable[..., RelayProcess]) -> RelayProcess:
    return start_relay(rules=RULES, socks="udp_fragments = true")


@pytest.fixture
def remote(lab: Lab) -> Iterator[socket.socket]:
    with lab.outside.udp(REMOTE[4]) as sock:
        yield sock


def answered(associate: Associate, remote: socket.socket, data: bytes = b"question") -> tuple[str, int]:
    """One datagram there and one back; the outside endpoint of the association."""
    there = remote.getsockname()[:2]
    associate.send(there, data)
    received, source = remote.recvfrom(70_000)
    assert received == data
    remote.sendto(data[::-1], source)
    assert associate.receive() == (there, data[::-1])
    return source[0], source[1]


@pytest.mark.parametrize(("inside", "outside"), [(4, 4), (4, 6), (6, 4), (6, 6)])
def test_each_client_reaches_destinations_of_both_versions(
    lab: Lab, relay: RelayProcess, inside: int, outside: int
) -> None:
    """The answer's header names its source, whatever the version of the association."""
    with Associate(lab.client, version=inside) as associate, lab.outside.udp(REMOTE[outside]) as there:
        assert associate.relay[0] == INSIDE[inside], "a real address, not 0.0.0.0"
        assert answered(associate, there)[0] == BORDER[outside]


def test_one_association_speaks_to_many_by_one_outside_port(lab: Lab, relay: RelayProcess) -> None:
    with Associate(lab.client) as associate, ExitStack() as stack:
        remotes = [stack.enter_context(lab.outside.udp(address)) for address in (REMOTE[4], STRANGER[4], REMOTE[4])]
        assert len({answered(associate, each) for each in remotes}) == 1


def test_a_foreign_source_that_comes_first_takes_nothing_over(
    lab: Lab, relay: RelayProcess, remote: socket.socket
) -> None:
    """Dante lets it take the association over; asyncio-socks-server takes datagrams from anybody, always."""
    with Associate(lab.client) as associate, lab.client.udp(SECOND[4]) as thief:
        thief.sendto(datagram(remote.getsockname(), b"mine now"), associate.relay)
        wait_for("the drop", lambda: relay.drops() == {"wrong-address": 1})
        answered(associate, remote)
        thief.sendto(datagram(remote.getsockname(), b"and now?"), associate.relay)
        answered(associate, remote)
        assert receives_nothing(thief)
        assert relay.drops() == {"wrong-address": 2}


def test_a_second_source_port_is_another_program(lab: Lab, relay: RelayProcess, remote: socket.socket) -> None:
    """asyncio-socks-server relays it, and answers whoever sent last."""
    with Associate(lab.client) as associate, lab.client.udp(CLIENT[4]) as other:
        answered(associate, remote)
        other.sendto(datagram(remote.getsockname(), b"me too"), associate.relay)
        answered(associate, remote)
        assert receives_nothing(other)
        assert relay.drops() == {"wrong-address": 1}


def test_an_announced_port_is_kept_from_the_first_datagram_on(
    lab: Lab, relay: RelayProcess, remote: socket.socket
) -> None:
    """asyncio-socks-server checks nothing of what was announced."""
    with Associate(lab.client, announced=None) as associate, lab.client.udp(CLIENT[4]) as other:
        other.sendto(datagram(remote.getsockname(), b"me first"), associate.relay)
        answered(associate, remote)
        assert relay.drops() == {"wrong-address": 1}


def test_a_foreign_address_declared_at_set_up_gets_nothing_and_sends_nothing(
    lab: Lab, relay: RelayProcess, remote: socket.socket
) -> None:
    """All four accept it: anybody could aim a stream at a third party. Here the address is always the client's own."""
    with lab.client.udp(SECOND[4]) as victim, Associate(lab.client, announced=victim.getsockname()) as associate:
        victim.sendto(datagram(remote.getsockname(), b"as declared"), associate.relay)
        answered(associate, remote)
        assert receives_nothing(victim)
        assert relay.drops() == {"wrong-address": 1}


def test_a_fragment_is_dropped_where_none_is_put_together_and_the_association_lives_on(
    lab: Lab, relay: RelayProcess, remote: socket.socket
) -> None:
    """3proxy ends the association, hev relays the fragment as a whole datagram."""
    with Associate(lab.client) as associate:
        for frag in (FIRST, LATER | END, 0x7F, END):
            associate.send(remote.getsockname(), b"a piece", frag)
        answered(associate, remote)
        assert relay.drops() == {"bad-fragment": 4}


def test_fragments_are_put_together_where_asked_for(
    lab: Lab, reassembling: RelayProcess, remote: socket.socket
) -> None:
    """None of the four does."""
    with Associate(lab.client) as associate:
        for frag, data in ((1, b"once "), (2, b""), (3, b"upon "), (4 | END, b"a time")):
            associate.send(remote.getsockname(), data, frag)
        assert remote.recv(100) == b"once upon a time"
        associate.send(remote.getsockname(), b"alone", FIRST | END)
        assert remote.recv(100) == b"alone"
    counters = reassembling.counters()
    assert (counters["pieces"], counters["reassembled"], counters["fragments.complete"]) == (5, 2, 2)


def test_a_datagram_of_127_fragments_is_as_large_as_udp_carries(
    lab: Lab, reassembling: RelayProcess, remote: socket.socket
) -> None:
    whole = bytes(range(256)) * 256
    whole, piece = whole[: UDP_OCTETS[4]], 516
    with Associate(lab.client) as associate:
        for position in range(1, 128):
            frag = position | (END if position == 127 else 0)
            data = whole[(position - 1) * piece : position * piece]
            associate.send(remote.getsockname(), data, frag)
        assert remote.recv(70_000) == whole


@pytest.mark.parametrize(
    ("frags", "whole"),
    [
        ((1, 2, 1 | END, 3 | END), b"81 "),
        ((1, 3 | END), None),
        ((2, 3 | END), None),
        ((1, 0, 2 | END), b"00 "),
        ((1, END), None),
    ],
    ids=["a lower position", "a gap", "no beginning", "a whole datagram between", "no position"],
)
def test_fragments_that_do_not_belong_together_are_abandoned(
    lab: Lab, reassembling: RelayProcess, remote: socket.socket, frags: tuple[int, ...], whole: bytes | None
) -> None:
    with Associate(lab.client) as associate:
        for frag in frags:
            associate.send(remote.getsockname(), f"{frag:02x} ".encode(), frag)
        if whole is not None:
            assert remote.recv(100) == whole
        answered(associate, remote)
        assert receives_nothing(remote)


def test_fragments_of_two_clients_are_never_mixed(lab: Lab, reassembling: RelayProcess, remote: socket.socket) -> None:
    with Associate(lab.client, announced=None) as one, Associate(lab.client, announced=None) as other:
        assert one.relay == other.relay, "they share a port"
        for frag, its, others in ((1, b"my ", b"your "), (2 | END, b"words", b"words")):
            one.send(remote.getsockname(), its, frag)
            other.send(remote.getsockname(), others, frag)
        assert [remote.recv(100) for _ in range(2)] == [b"my words", b"your words"]


BAD = {
    "runt": ["", "00", "0000", "000000", "00000001", "000000010a4d0202", "00000001 0a4d0202 13", "00000003 05 61"],
    "reserved-bits": ["0001 00 01 0a4d0202 1388", "8000 00 01 0a4d0202 1388", "ffff 00 01 0a4d0202 1388"],
    "bad-address": ["0000 00 00 0a4d0202 1388", "0000 00 02 0a4d0202 1388", "0000 00 ff 0a4d0202 1388"],
}


@pytest.mark.parametrize("reason", BAD)
def test_a_malformed_datagram_goes_nowhere_and_ends_nothing(
    lab: Lab, relay: RelayProcess, remote: socket.socket, reason: str
) -> None:
    """asyncio-socks-server and hev ignore RSV."""
    with Associate(lab.client) as associate:
        answered(associate, remote)
        for octets in BAD[reason]:
            associate.send_octets(bytes.fromhex(octets))
        answered(associate, remote)
        assert relay.drops() == {reason: len(BAD[reason])}


def test_a_malformed_datagram_teaches_no_port(lab: Lab, relay: RelayProcess, remote: socket.socket) -> None:
    with Associate(lab.client) as associate, lab.client.udp(CLIENT[4]) as other:
        other.sendto(bytes.fromhex("0001 00 01 0a4d0202 1388"), associate.relay)
        answered(associate, remote)
        assert relay.drops() == {"reserved-bits": 1}


@pytest.mark.parametrize("destination", [(REMOTE[4], 0), ("0.0.0.0", 53), ("::", 53)])
def test_a_destination_of_nobody_is_a_bad_address(
    lab: Lab, relay: RelayProcess, remote: socket.socket, destination: tuple[str, int]
) -> None:
    with Associate(lab.client) as associate:
        associate.send(destination, b"to nobody")
        answered(associate, remote)
        assert relay.drops() == {"bad-address": 1}


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", INSIDE[4], BORDER[4], SECOND[4], "239.77.1.2", "::ffff:7f00:1"]
)
def test_a_protected_destination_is_not_allowed(
    lab: Lab, relay: RelayProcess, remote: socket.socket, address: str
) -> None:
    with Associate(lab.client) as associate:
        for _ in range(3):
            associate.send((address, 53), b"let me in")
        answered(associate, remote)
        assert relay.drops() == {"not-allowed": 3}
        assert sum(record["event"] == "refused" for record in relay.records) == 1


@both_versions
def test_an_empty_datagram_is_a_datagram(lab: Lab, relay: RelayProcess, version: int) -> None:
    with Associate(lab.client, version=version) as associate, lab.outside.udp(REMOTE[version]) as remote:
        answered(associate, remote, b"")


@pytest.mark.parametrize("octets", [1472, 1490, 16_384])
@both_versions
def test_large_datagrams_cross_whole(lab: Lab, relay: RelayProcess, version: int, octets: int) -> None:
    """hev cuts everything off behind 1,490 octets and says nothing."""
    with Associate(lab.client, version=version) as associate, lab.outside.udp(REMOTE[version]) as remote:
        answered(associate, remote, (bytes(range(256)) * 64)[:octets])


@both_versions
def test_datagrams_as_large_as_udp_carries_cross_whole(lab: Lab, relay: RelayProcess, version: int) -> None:
    """The header takes its octets from the client's side: what has no room beside it is dropped, and never cut."""
    most = UDP_OCTETS[version] - HEADER_OCTETS[version]
    with Associate(lab.client, version=version) as associate, lab.outside.udp(REMOTE[version]) as remote:
        source = answered(associate, remote, bytes(most))
        remote.sendto(bytes(most + 1), source)
        answered(associate, remote)
        assert relay.drops() == {"too-large": 1}


@both_versions
def test_what_has_no_room_beside_its_header_comes_in_fragments(
    lab: Lab, reassembling: RelayProcess, version: int
) -> None:
    """65,507 octets from an IPv4 remote, 65,527 from an IPv6 one."""
    whole = (bytes(range(256)) * 256)[: UDP_OCTETS[version]]
    with Associate(lab.client, version=version) as associate, lab.outside.udp(REMOTE[version]) as remote:
        source = answered(associate, remote)
        there = remote.getsockname()[:2]
        remote.sendto(whole, source)
        pieces = [associate.receive_piece() for _ in range(2)]
    assert [frag for _, frag, _ in pieces] == [1, 2 | END]
    assert {each for each, _, _ in pieces} == {there}
    assert b"".join(data for _, _, data in pieces) == whole


def test_whom_nobody_asked_may_not_answer(lab: Lab, relay: RelayProcess, remote: socket.socket) -> None:
    """asyncio-socks-server relays it."""
    with Associate(lab.client) as associate, lab.outside.udp(STRANGER[4]) as stranger:
        source = answered(associate, remote)
        stranger.sendto(b"not asked", source)
        answered(associate, remote)
        assert relay.drops() == {"unexpected-remote": 1}
        answered(associate, stranger)
        stranger.sendto(b"asked", source)
        assert associate.receive() == (stranger.getsockname(), b"asked")


@pytest.mark.parametrize(
    ("answers", "other_port", "stranger"),
    [("contacted-host", True, False), ("exact", False, False), ("anyone", True, True)],
)
def test_who_may_answer_is_an_option(
    lab: Lab, start_relay: Callable[..., RelayProcess], answers: str, other_port: bool, stranger: bool
) -> None:
    relay = start_relay(rules=RULES, socks=f'udp_answers = "{answers}"')
    with (
        Associate(lab.client) as associate,
        lab.outside.udp(REMOTE[4]) as remote,
        lab.outside.udp(REMOTE[4]) as another,
        lab.outside.udp(STRANGER[4]) as unknown,
    ):
        source = answered(associate, remote)
        for sock, passes in ((another, other_port), (unknown, stranger)):
            sock.sendto(b"hello", source)
            if passes:
                assert associate.receive() == (sock.getsockname(), b"hello")
        answered(associate, remote)
        dropped = 2 - other_port - stranger
        assert relay.drops() == ({"unexpected-remote": dropped} if dropped else {})


def test_two_unannounced_clients_of_one_address_get_ports_of_their_own(
    lab: Lab, relay: RelayProcess, remote: socket.socket
) -> None:
    """Nothing else tells their datagrams apart."""
    with Associate(lab.client) as one, Associate(lab.client) as other:
        assert one.relay != other.relay
        assert answered(one, remote) != answered(other, remote)


def test_an_association_ends_with_its_connection(lab: Lab, relay: RelayProcess, remote: socket.socket) -> None:
    """Nothing passes any more in either direction, and no socket is left."""
    before = descriptors(relay.pid)
    with Associate(lab.client) as associate:
        source = answered(associate, remote)
        assert lab.relay.sockets("udp", *associate.relay) == 1
        associate.control.close()
        relay.wait_for_record("udp-associate-end", reason="closed by client")
        wait_for("its sockets to be gone", lambda: descriptors(relay.pid) == before)
        assert not lab.relay.sockets("udp", *associate.relay)
        assert not lab.relay.sockets("udp", *source)
        received = relay.counters()["received_inside"]
        associate.udp.connect(associate.relay)
        associate.udp.send(datagram(remote.getsockname(), b"too late"))
        with pytest.raises(ConnectionRefusedError):
            associate.udp.recv(100)
        assert relay.counters()["received_inside"] == received
        assert receives_nothing(remote)


def test_an_association_that_ends_leaves_others_at_its_port_alone(
    lab: Lab, relay: RelayProcess, remote: socket.socket
) -> None:
    with Associate(lab.client, announced=None) as one, Associate(lab.client, announced=None) as other:
        answered(one, remote)
        answered(other, remote)
        one.control.close()
        relay.wait_for_record("udp-associate-end")
        one.send(remote.getsockname(), b"too late")
        wait_for("the drop", lambda: relay.drops() == {"wrong-address": 1})
        answered(other, remote)
        assert receives_nothing(remote)


def test_an_idle_association_ends(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(rules=RULES, limits="idle_udp_s = 1")
    with Associate(lab.client) as associate:
        assert not associate.control.tcp.recv(1)
        relay.wait_for_record("udp-associate-end", reason="idle")
        assert not lab.relay.sockets("udp", *associate.relay)


def test_the_port_of_the_client_is_used_outside_where_asked_for(
    lab: Lab, relay: RelayProcess, remote: socket.socket
) -> None:
    """USECLIENTSPORT (pro-v5 §8), echoed as it was honoured."""
    with Associate(lab.client, announced=None, flag=USECLIENTSPORT) as associate:
        assert associate.flag == USECLIENTSPORT
        assert answered(associate, remote) == (BORDER[4], associate.local[1])
        with Associate(
            lab.client, address=SECOND[4], announced=(SECOND[4], associate.local[1]), flag=USECLIENTSPORT
        ) as late:
            assert late.flag == 0, "another has that port"


def test_with_two_outsides_a_datagram_leaves_by_its_rules(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    """One association, two destinations: the verdict is the destination's."""
    to_annex = f'[[rules]]\nname = "annex"\nallow = true\nto = ["{REMOTE[4]}"]\nvia = "annex"\n'
    with lab.annex() as annex:
        start_relay(rules=to_annex + RULES, outside=TWO_OUTSIDES)
        with (
            Associate(lab.client) as associate,
            annex.udp(REMOTE[4]) as courtyard,
            lab.outside.udp(STRANGER[4]) as street,
        ):
            assert answered(associate, courtyard)[0] == ANNEX_BORDER[4]
            assert answered(associate, street)[0] == BORDER[4]
