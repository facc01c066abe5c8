"""Several workers behind one TCP port, as clients and the administrator meet them.

                            ┌─ worker 0, UDP 1080 ─┐
client ── "in" ── TCP 1080 ─┤                      ├─ "out" ── outside
                            └─ worker 1, UDP 1081 ─┘
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.netns.client import BOTH, MM, MU, MULTICAST, RECEIVE, UNICAST, RawClient, Refused
from tests.netns.lab import CLIENT, GROUP, INSIDE, PORT, REMOTE, Capture, Host, Lab, wait_for
from tests.netns.relay import RelayProcess
from tests.netns.socks_client import RULES as PLAIN_RULES
from tests.netns.socks_client import Associate
from tests.netns.test_groups import both_versions, outside_sender, udp_to
from tests.netns.test_modes import ANY_MODE, inside_talker, member

TWO = "workers = 2"
_MOST_TRIES = 64
"""All connections to one worker of two, that often, will not be seen."""


class Client(RawClient):
    """Sends where the replies say; its worker, and its session's number, are told by its record."""

    def __enter__(self) -> Client:
        return self

    def __init__(self, relay: RelayProcess, host: Host, user: str = "alice", **options: Any) -> None:
        super().__init__(host, user, **options)
        name, port, *_ = self.tcp.getsockname()
        endpoint = f"[{name}]:{port}" if self.version == 6 else f"{name}:{port}"
        start = relay.wait_for_record("session-start", client=endpoint)
        self.worker, self.session = int(start["worker"]), int(start["session"])
        self.relay = (INSIDE[self.version], PORT + self.worker)


@pytest.fixture
def relay(start_relay: Callable[..., RelayProcess]) -> RelayProcess:
    return started(start_relay(plane=TWO))


def started(relay: RelayProcess) -> RelayProcess:
    """Both workers serve."""
    for worker in (0, 1):
        relay.wait_for_record("relay-start", worker=worker)
    return relay


def workers(relay: RelayProcess) -> list[int]:
    """Their processes, in the order of their birth."""
    return [int(pid) for pid in Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text().split()]


def process_of(lab: Lab, worker: int) -> int:
    """That holds the worker's UDP port."""
    found = lab.relay.run("ss", "-Hulnp", f"sport = :{PORT + worker}").stdout.decode()
    return int(found.partition("pid=")[2].partition(",")[0])


def kill(lab: Lab, relay: RelayProcess, worker: int, meanwhile: Callable[[], object] = lambda: None) -> int:
    """And wait until another one serves in its place; the process that was killed."""

    def starts() -> int:
        return sum(record["event"] == "relay-start" for record in list(relay.records))

    before, process = starts(), process_of(lab, worker)
    os.kill(process, signal.SIGKILL)
    wait_for("the next worker", lambda: (meanwhile(), starts() > before)[1])
    return process


def client_at(worker: int, relay: RelayProcess, host: Host, user: str = "alice", **options: Any) -> Client:
    """The kernel shares connections out by chance, so that may take a few."""
    before = connections(relay)
    for _ in range(_MOST_TRIES):
        client = Client(relay, host, user, **options)
        if client.worker == worker:
            return client
        client.close()
        wait_for("its place to be free", lambda: connections(relay) == before)
    raise AssertionError(f"none of {_MOST_TRIES} connections came to worker {worker}")


@contextmanager
def one_at_each(
    relay: RelayProcess, host: Host, users: tuple[str, str] = ("alice", "alice"), **options: Any
) -> Iterator[tuple[Client, Client]]:
    """A client at each worker."""
    with client_at(0, relay, host, users[0], **options) as one, client_at(1, relay, host, users[1], **options) as other:
        yield one, other


def counters(relay: RelayProcess) -> dict[int, dict[str, Any]]:
    """Of each worker, now."""
    before = sum(record["event"] == "counters" for record in list(relay.records))
    relay.process.send_signal(signal.SIGUSR1)

    def both() -> list[dict[str, Any]]:
        newer = [record for record in list(relay.records) if record["event"] == "counters"][before:]
        return newer if len(newer) == 2 else []

    return {record["worker"]: record for record in wait_for("counters of both", both)}


def connections(relay: RelayProcess) -> int:
    """Of both together."""
    return sum(record["connections"] for record in counters(relay).values())


def drops(relay: RelayProcess) -> dict[str, int]:
    """Of both together."""
    found: dict[str, int] = {}
    for record in counters(relay).values():
        for key, count in record.items():
            if key.startswith("drop."):
                found[key.removeprefix("drop.")] = found.get(key.removeprefix("drop."), 0) + count
    return found


def refused(client: RawClient, flags: int, remote: tuple[str, int], **options: Any) -> int:
    with pytest.raises(Refused) as refusal:
        client.bind(flags, remote, **options)
    return refusal.value.code


@both_versions
def test_each_worker_has_a_port_of_its_own_and_its_replies_name_it(lab: Lab, relay: RelayProcess, version: int) -> None:
    with one_at_each(relay, lab.client, version=version) as clients, lab.outside.udp(REMOTE[version]) as remote:
        for worker, client in enumerate(clients):
            reply = client.bind(BOTH | UNICAST, remote.getsockname()[:2])
            assert reply.LOCAL.pair == (INSIDE[version], PORT + worker)
            client.send(int(reply.AID), b"out")
            data, source = remote.recvfrom(100)
            assert data == b"out"
            remote.sendto(b"and back", source)
            assert client.receive() == (int(reply.AID), b"and back")
    starts = {record["worker"]: record for record in relay.records if record["event"] == "relay-start"}
    assert [starts[worker]["udp_ports"] for worker in (0, 1)] == ["1080", "1081"]


def test_each_worker_has_its_part_of_the_ports_for_udp_associate(
    lab: Lab, start_relay: Callable[..., RelayProcess]
) -> None:
    relay = started(start_relay(plane=TWO, socks='udp_ports = "3000-3004"', rules=PLAIN_RULES))
    seen: dict[int, int] = {}
    with lab.outside.udp(REMOTE[4]) as remote:
        for _ in range(_MOST_TRIES):
            with Associate(lab.client) as client:
                client.send(remote.getsockname(), b"by either")
                assert remote.recv(100) == b"by either"
                host, port = client.control.tcp.getsockname()
                seen[relay.wait_for_record("udp-associate-start", client=f"{host}:{port}")["worker"]] = client.relay[1]
            if len(seen) == 2:
                break
    assert seen == {0: 3000, 1: 3002}


def test_a_worker_that_is_killed_takes_its_own_clients_alone_and_is_replaced(lab: Lab, relay: RelayProcess) -> None:
    with one_at_each(relay, lab.client) as (lost, other), lab.outside.udp(REMOTE[4]) as remote:
        aid = other.associate(remote.getsockname())
        other.send(aid, b"hello")
        _, source = remote.recvfrom(100)
        lost.join((GROUP[4], 5700))
        numbers = itertools.count()

        def ask() -> None:
            number = b"%d" % next(numbers)
            remote.sendto(number, source)
            assert other.receive() == (aid, number)

        killed = kill(lab, relay, 0, meanwhile=ask)
        assert next(numbers) > 10
        assert lost.is_closed()
        assert relay.wait_for_record("worker-replaced")["why"] == f"process {killed} was killed by SIGKILL"
        assert GROUP[4] not in lab.relay.memberships(4, "out")
    with one_at_each(relay, lab.client) as (new, _), lab.outside.udp(REMOTE[4]) as remote:
        new.send(new.associate(remote.getsockname()), b"served again")
        assert remote.recv(100) == b"served again"
    sessions = [record["session"] for record in relay.records if record["event"] == "session-start"]
    assert len(set(sessions)) == len(sessions), "no two sessions have one number"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ("associations_per_user = 2", "alice holds 2 associations, the limit for one user"),
        ("associations = 2", "the relay is full: 2 associations"),
        ("groups_per_user = 2", "alice uses 2 groups, the limit for one user"),
        ("groups = 2", "the relay is full: 2 groups"),
    ],
)
def test_limits_hold_over_all_workers_and_what_a_dead_one_held_is_free(
    lab: Lab, start_relay: Callable[..., RelayProcess], limits: str, words: str
) -> None:
    relay = started(start_relay(plane=TWO, limits=limits))
    with one_at_each(relay, lab.client) as clients:
        held = [client.join((GROUP[4], 5710 + worker)) for worker, client in enumerate(clients)]
        for client in clients:
            assert refused(client, RECEIVE | MULTICAST | MU, (GROUP[4], 5712)) == 1
            assert relay.wait_for_record("refused", worker=client.worker)["why"] == words
        assert clients[1].release(held[1], RECEIVE) == 0
        clients[0].join((GROUP[4], 5713))
        assert refused(clients[1], RECEIVE | MULTICAST | MU, (GROUP[4], 5712)) == 1
        kill(lab, relay, 0)
        for port in (5714, 5715):
            clients[1].join((GROUP[4], port))
        assert refused(clients[1], RECEIVE | MULTICAST | MU, (GROUP[4], 5712)) == 1


@pytest.mark.parametrize("limits", ["groups = 1", "groups_per_user = 1"])
def test_a_group_that_two_workers_have_is_one(lab: Lab, start_relay: Callable[..., RelayProcess], limits: str) -> None:
    relay = started(start_relay(plane=TWO, limits=limits))
    with one_at_each(relay, lab.client) as (first, second):
        aid = first.join((GROUP[4], 5720))
        second.join((GROUP[4], 5720))
        assert first.release(aid, RECEIVE) == 0
        assert refused(first, RECEIVE | MULTICAST | MU, (GROUP[4], 5721)) == 1, "the second has it still"
        first.join((GROUP[4], 5720))


def test_connections_are_limited_over_all_workers(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    relay = started(start_relay(plane=TWO, limits="connections_per_user = 2\nconnections = 3"))
    with one_at_each(relay, lab.client), ExitStack() as stack:
        for _ in range(4):
            with pytest.raises(Refused):
                RawClient(lab.client)
        stack.enter_context(Client(relay, lab.client, "bob"))
        with pytest.raises(Refused) as refusal:
            RawClient(lab.client, "bob")
        assert refusal.value.code == 0xFF, "before the login"
    wait_for("their records", lambda: len(refusals(relay)) == 5)
    whys = Counter(record["why"] for record in refusals(relay))
    assert whys == {"alice has 2 connections, the limit for one user": 4, "the relay is full: 3 connections": 1}


def test_failed_logins_are_throttled_over_all_workers(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    relay = started(start_relay(plane=TWO, limits="login_failures_per_minute = 2"))
    for count in range(12):
        with pytest.raises(Refused):
            RawClient(lab.client, "mallory")
        wait_for("its record", lambda: len(refusals(relay)) == count + 1)  # noqa: B023
    whys = [record["why"] for record in refusals(relay)]
    assert whys == 2 * ["wrong user name or password"] + 10 * ["too many failed logins from this address"]
    assert {record["worker"] for record in refusals(relay)} == {0, 1}


def refusals(relay: RelayProcess) -> list[dict[str, Any]]:
    return [record for record in list(relay.records) if record["event"] == "refused"]


@both_versions
def test_clients_of_two_workers_hear_each_other_once(lab: Lab, relay: RelayProcess, version: int) -> None:
    group = (GROUP[version], 5730)
    with (
        one_at_each(relay, lab.client, version=version) as (one, other),
        Client(relay, lab.client, version=version) as third,
        member(lab.outside, "out", group, REMOTE[version]) as outside,
    ):
        senders = [client.send_to_group(group) for client in (one, other)]
        receivers = [client.join(group) for client in (one, other, third)]
        for client, aid in zip((one, other), senders, strict=True):
            for number in range(3):
                client.send(aid, b"%d from %d" % (number, client.worker))
        both = sorted(b"%d from %d" % (number, worker) for number in range(3) for worker in (0, 1))
        assert sorted(outside.recv(100) for _ in both) == both
        assert sorted(third.receive() for _ in both) == [(receivers[2], data) for data in both]
        for client, aid, its in ((one, receivers[0], 1), (other, receivers[1], 0)):
            assert [client.receive() for _ in range(3)] == [(aid, b"%d from %d" % (n, its)) for n in range(3)]
        with outside_sender(lab, version) as sender:
            sender.sendto(b"last", group)
        for client, aid in zip((one, other, third), receivers, strict=True):
            assert client.receive() == (aid, b"last"), "nothing came twice"
        assert lab.relay.memberships(version, "out")[group[0]] == 2


@pytest.mark.parametrize("kind", ["batch", "portable"])
def test_in_mm_mode_one_worker_multicasts_a_group_and_another_takes_over(
    lab: Lab, start_relay: Callable[..., RelayProcess], kind: str
) -> None:
    relay = started(start_relay(plane=f'{TWO}\nkind = "{kind}"', rules=ANY_MODE))
    group = (GROUP[4], 5740)
    with (
        one_at_each(relay, lab.client) as clients,
        client_at(0, relay, lab.client) as copied,
        client_at(1, relay, lab.client) as talking,
        member(lab.client, "in", group, CLIENT[4]) as listener,
        Capture(lab.relay, "in") as inside,
        outside_sender(lab, 4) as sender,
    ):
        for client in clients:  # the first to come does it
            client.bind(RECEIVE | MULTICAST | MM, group)
        aid, voice = copied.join(group), talking.send_to_group(group)
        for number in range(20):
            sender.sendto(b"outside %d" % number, group)
            assert listener.recv(100) == b"outside %d" % number
            assert copied.receive() == (aid, b"outside %d" % number)
        talking.send(voice, b"in MU-mode")
        assert listener.recv(100) == b"in MU-mode"
        assert copied.receive() == (aid, b"in MU-mode")
        wait_for("the other to have heard them all", lambda: drops(relay) == {"other-worker": 20, "own-datagram": 1})
        kill(lab, relay, 0)
        for number in range(20):
            sender.sendto(b"again %d" % number, group)
            assert listener.recv(100) == b"again %d" % number
        talking.send(voice, b"the last")
        assert listener.recv(100) == b"the last"
        assert len(inside.wait_for("all", udp_to(*group), 42)) == 20 + 1 + 20 + 1, "each once"


def test_in_mm_mode_the_first_to_come_hands_over_when_it_goes(
    lab: Lab, start_relay: Callable[..., RelayProcess]
) -> None:
    relay = started(start_relay(plane=TWO, rules=ANY_MODE))
    group = (GROUP[4], 5745)
    with (
        one_at_each(relay, lab.client) as clients,
        member(lab.client, "in", group, CLIENT[4]) as listener,
        Capture(lab.relay, "in") as inside,
        outside_sender(lab, 4) as sender,
    ):
        aids = [int(client.bind(RECEIVE | MULTICAST | MM, group).AID) for client in (clients[1], clients[0])]
        for number in range(3):
            sender.sendto(b"%d" % number, group)
            assert listener.recv(100) == b"%d" % number
        assert clients[1].release(aids[0], RECEIVE) == 0
        for number in range(3):
            sender.sendto(b"%d" % number, group)
            assert listener.recv(100) == b"%d" % number
        assert clients[0].release(aids[1], RECEIVE) == 0
        assert len(inside.wait_for("all", udp_to(*group), 6)) == 6, "each once"
        found = counters(relay)
        assert [found[worker]["sent_inside"] for worker in (0, 1)] == [3, 3]


def test_what_an_inside_host_multicasts_is_taken_once_and_never_given_back(
    lab: Lab, start_relay: Callable[..., RelayProcess]
) -> None:
    """Both workers know it as a sender, and both have somebody who listens inside."""
    relay = started(start_relay(plane=TWO, rules=ANY_MODE))
    group = (GROUP[4], 5750)
    with (
        one_at_each(relay, lab.client) as clients,
        member(lab.outside, "out", group, REMOTE[4]) as outside,
        inside_talker(lab, CLIENT[4]) as talker,
        Capture(lab.relay, "in") as inside,
        Capture(lab.relay, "out") as out,
    ):
        local = [("0.0.0.0", 0), (CLIENT[4], talker.getsockname()[1])]
        for client, where in zip(clients, local, strict=True):
            client.bind(BOTH | MULTICAST | MM, group, ttl=1, local=where)
        for number in range(5):
            talker.sendto(b"%d" % number, group)
            assert outside.recv(100) == b"%d" % number
        found = wait_for("both to have heard it all", lambda: all_heard(relay, 5))
        assert sorted(record["sent_outside"] for record in found.values()) == [0, 5]
        assert len(out.wait_for("all", udp_to(*group), 5)) == 5
        assert len(inside.wait_for("all", udp_to(*group), 5)) == 5, "the talker's own"


def all_heard(relay: RelayProcess, count: int) -> dict[int, dict[str, Any]]:
    """The counters, once both workers have heard so many from either side."""
    found = counters(relay)
    sides = (record[side] for record in found.values() for side in ("received_inside", "received_outside"))
    return found if all(heard == count for heard in sides) else {}


def test_sigterm_ends_all_in_order(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    relay = started(start_relay(plane=TWO))
    pids = workers(relay)
    with one_at_each(relay, lab.client) as clients:
        for worker, client in enumerate(clients):
            client.join((GROUP[4], 5760 + worker))
        assert lab.relay.memberships(4, "out")[GROUP[4]] == 2
        assert relay.stop() == 0
        assert GROUP[4] not in lab.relay.memberships(4, "out")
        assert all(client.is_closed() for client in clients)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    for worker in (0, 1):
        relay.wait_for_record("association-end", worker=worker, reason="shutdown")
        relay.wait_for_record("relay-end", worker=worker)


def test_workers_end_with_a_supervisor_that_was_killed(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    relay = started(start_relay(plane=TWO))
    pids = workers(relay)
    assert len(pids) == 2
    with one_at_each(relay, lab.client) as clients:
        clients[0].join((GROUP[4], 5770))
        relay.process.kill()
        relay.process.wait()
        wait_for("the workers to end", lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()])
        assert GROUP[4] not in lab.relay.memberships(4, "out")
    for worker in (0, 1):
        relay.wait_for_record("relay-end", worker=worker)
    started(start_relay(plane=TWO))


@pytest.mark.parametrize(("first", "second"), [(TWO, TWO), (TWO, "workers = 1"), ("workers = 1", TWO)])
def test_a_second_relay_on_the_port_is_told_so(
    lab: Lab, start_relay: Callable[..., RelayProcess], tmp_path: Path, first: str, second: str
) -> None:
    relay = start_relay(plane=first)
    config = tmp_path / "relay.toml"
    tables = config.read_text().replace(f"[plane]\n{first}\n", "")
    config.write_text(f"{tables}[plane]\n{second}\n")
    other = lab.relay.popen(sys.executable, "-m", "mcastsocks", "relay", "-c", str(config), stdout=-1, stderr=-1)
    out, said = other.communicate(timeout=20)
    assert (other.returncode, out) == (2, b"")
    problem = f"{config}:3: inside.listen[0]: cannot listen on TCP {INSIDE[4]}:{PORT}: Address already in use\n"
    assert said.decode() == problem
    with RawClient(lab.client):
        pass
    assert relay.stop() == 0


def test_a_worker_that_cannot_start_at_first_stops_the_relay(
    lab: Lab, start_relay: Callable[..., RelayProcess]
) -> None:
    with lab.relay.udp(INSIDE[4], PORT + 1):
        relay = start_relay(plane=TWO)  # the other one starts
        assert relay.process.wait(timeout=20) == 2
    problem = f"relay.toml:3: inside.listen[0]: cannot take datagrams on UDP {INSIDE[4]}:1081: Address already in use"
    wait_for("the reason", lambda: relay.errors)
    assert len(relay.errors) == 1
    assert relay.errors[0].strip().endswith(problem)


def test_signals_reach_every_worker(lab: Lab, relay: RelayProcess) -> None:
    with one_at_each(relay, lab.client) as clients:
        clients[1].join((GROUP[4], 5780))
        found = counters(relay)
        assert [found[worker]["associations"] for worker in (0, 1)] == [0, 1]
        relay.process.send_signal(signal.SIGHUP)
        for worker in (0, 1):
            relay.wait_for_record("reload", worker=worker)


def test_two_users_at_two_workers_have_limits_of_their_own(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    relay = started(start_relay(plane=TWO, limits="associations_per_user = 1"))
    with one_at_each(relay, lab.client, ("alice", "bob"), address=CLIENT[4]) as clients:
        for client in clients:
            client.join((GROUP[4], 5790))
            assert refused(client, RECEIVE | MULTICAST | MU, (GROUP[4], 5791)) == 1
