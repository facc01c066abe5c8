"""The commands and the library, as a user runs them."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scapy.layers.inet import UDP

from mcastsocks.client import ConnectionLost, LoginRefused, RequestRefused, connect
from tests.netns.lab import CLIENT, GROUP, INSIDE, REMOTE, SECOND, STRANGER, Capture, Host, Lab, wait_for
from tests.netns.relay import RelayProcess
from tests.netns.test_groups import outside_sender
from tests.netns.test_modes import ANY_MODE

ALICE = f"socks5://alice:secret@{INSIDE[4]}:1080"

_ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(['sh', '-c', sys.argv[1]])))"
"""Runs a shell command with a controlling terminal of its own; standard input is typed there."""


class Command:
    """A mcastsocks command in a namespace, its standard error read as it comes."""

    def __init__(self, host: Host, *arguments: str, relay: str = ALICE) -> None:
        self.process = host.popen(
            *("env", f"MCASTSOCKS_RELAY={relay}", sys.executable, "-m", "mcastsocks", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, text: str, count: int = 1) -> None:
        wait_for(f"{text!r} from the command", lambda: sum(text in line for line in list(self.said)) >= count)

    def read(self, octets: int) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.read(octets)

    def readline(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def finish(self, data: bytes = b"") -> tuple[int, bytes]:
        """Exit code and the rest of standard output."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(data)
        self.process.stdin.close()
        output = self.process.stdout.read()
        code = self.process.wait(timeout=20)
        self._reader.join()
        return code, output

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.decode())


@contextmanager
def command(host: Host, *arguments: str, relay: str = ALICE) -> Iterator[Command]:
    running = Command(host, *arguments, relay=relay)
    try:
        yield running
    finally:
        running.close()


@pytest.mark.parametrize("version", [4, 6])
def test_join_writes_what_outside_sends(lab: Lab, relay: RelayProcess, version: int) -> None:
    group = (GROUP[version], 5500)
    text = f"[{group[0]}]:5500" if version == 6 else f"{group[0]}:5500"
    with command(lab.client, "join", text, "--count", "2") as join, outside_sender(lab, version) as sender:
        join.wait_for("joined")
        sender.sendto(b"one,", group)
        sender.sendto(b"two", group)
        assert join.finish() == (0, b"one,two")
        join.wait_for("2 datagrams, 7 octets")


def test_join_takes_a_range_of_ports_and_writes_json(lab: Lab, relay: RelayProcess) -> None:
    with (
        command(lab.client, "join", f"{GROUP[4]}:5502-5503", "--format", "json") as join,
        outside_sender(lab, 4) as sender,
    ):
        join.wait_for("joined")
        for port in (5503, 5502):
            sender.sendto(b"RTP", (GROUP[4], port))
            source = f"{REMOTE[4]}:{sender.getsockname()[1]}"
            about = {"group": GROUP[4], "port": port, "source": source}
            assert json.loads(join.readline()) == {**about, "octets": 3, "data": "525450"}


@pytest.mark.parametrize(
    ("address", "option", "source"),
    [("232.77.1.2", "--source", REMOTE[4]), (GROUP[4], "--source", REMOTE[4]), (GROUP[4], "--exclude", STRANGER[4])],
)
def test_join_receives_the_sources_asked_for_and_names_them(
    lab: Lab, relay: RelayProcess, address: str, option: str, source: str
) -> None:
    group = (address, 5516)
    with (
        command(lab.client, "join", f"{address}:5516", option, source, "--format", "json") as join,
        outside_sender(lab, 4, STRANGER[4]) as stranger,
        outside_sender(lab, 4) as sender,
    ):
        join.wait_for("joined")
        stranger.sendto(b"unwanted", group)
        sender.sendto(b"wanted", group)
        line = json.loads(join.readline())
        assert bytes.fromhex(line["data"]) == b"wanted"
        assert line["source"] == f"{REMOTE[4]}:{sender.getsockname()[1]}"


def test_join_over_tcp_needs_no_datagrams_inside(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5518)
    with (
        no_datagrams_inside(lab),
        command(lab.client, "join", f"{group[0]}:{group[1]}", "--over-tcp", "--count", "1", "-f", "json") as join,
        outside_sender(lab, 4) as sender,
    ):
        join.wait_for("joined")
        sender.sendto(b"by stream", group)
        code, line = join.finish()
        assert code == 0
        assert bytes.fromhex(json.loads(line)["data"]) == b"by stream"
        assert json.loads(line)["source"] == f"{REMOTE[4]}:{sender.getsockname()[1]}"


def test_join_and_send_in_mm_mode_use_the_network_itself(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    start_relay(rules=ANY_MODE)
    group = f"{GROUP[4]}:5532"
    with (
        command(lab.client, "join", group, "--mode", "mm", "--count", "1", "-f", "json") as join,
        outside_receiver(lab, (GROUP[4], 5532)) as receiver,
        command(lab.client, "send", group, "--mode", "mm") as send,
    ):
        join.wait_for(f"joined {group} (MM-mode)")
        assert send.finish(b"one line\n")[0] == 0
        send.wait_for(f"sending to {group} (MM-mode)")
        assert receiver.recv(100) == b"one line"
        code, line = join.finish()
        about = {"group": GROUP[4], "port": 5532}
        assert (code, json.loads(line)) == (0, {**about, "octets": 8, "data": b"one line".hex()})


@pytest.mark.parametrize(
    "arguments",
    [("join", "--source", REMOTE[4]), ("join", "--exclude", REMOTE[4]), ("join", "--over-tcp"), ("send", "--over-tcp")],
)
def test_mm_mode_with_what_it_cannot_do_is_wrong_usage(lab: Lab, arguments: tuple[str, ...]) -> None:
    name, *options = arguments
    with command(lab.client, name, f"{GROUP[4]}:5534", "--mode", "mm", *options) as wrong:
        assert wrong.finish() == (2, b"")
        wrong.wait_for("in MM-mode there are neither sources nor datagrams inside the TCP connection")


def test_send_over_tcp_needs_no_datagrams_inside(lab: Lab, relay: RelayProcess) -> None:
    with (
        no_datagrams_inside(lab),
        outside_receiver(lab, (GROUP[4], 5520)) as receiver,
        command(lab.client, "send", f"{GROUP[4]}:5520", "--over-tcp") as send,
    ):
        assert send.finish(b"one line\n")[0] == 0
        assert receiver.recv(100) == b"one line"


def test_probe_over_tcp_needs_no_datagrams_inside(lab: Lab, relay: RelayProcess) -> None:
    with no_datagrams_inside(lab), lab.outside.udp(REMOTE[4]) as remote:
        host, port = remote.getsockname()
        with command(lab.client, "probe", f"{host}:{port}", "--over-tcp") as probe:
            data, source = remote.recvfrom(100)
            remote.sendto(data.upper(), source)
            assert probe.finish() == (0, b"PROBE\n")


def test_join_whose_reader_stalls_ends_at_a_signal_and_says_what_was_lost(lab: Lab, relay: RelayProcess) -> None:
    group, count, octets = (GROUP[4], 5522), 200, 1400  # more than the pipe holds
    with command(lab.client, "join", f"{group[0]}:{group[1]}") as join, outside_sender(lab, 4) as sender:
        join.wait_for("joined")
        for _ in range(count):
            sender.sendto(bytes(octets), group)
        relay.received_outside(count)
        join.process.send_signal(signal.SIGTERM)
        assert join.process.wait(timeout=10) == 0
        join.wait_for("dropped here because the output was too slow")


def test_send_ends_at_ctrl_c_while_it_waits_for_input(lab: Lab, relay: RelayProcess) -> None:
    with command(lab.client, "send", f"{GROUP[4]}:5524") as send:
        send.wait_for("sending to")
        send.process.send_signal(signal.SIGINT)
        assert send.process.wait(timeout=10) == 130
        send.wait_for("0 datagrams, 0 octets")


def test_send_reads_a_file(lab: Lab, relay: RelayProcess, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"from a file\n")
    with outside_receiver(lab, (GROUP[4], 5526)) as receiver:
        lab.client.run(
            *("sh", "-c", f'exec "$@" < {file}', "sh", sys.executable, "-m", "mcastsocks"),
            *("send", f"{GROUP[4]}:5526", "--relay", ALICE),
        )
        assert receiver.recv(100) == b"from a file"


def test_join_hands_datagrams_on_to_a_player(lab: Lab, relay: RelayProcess) -> None:
    with lab.client.udp("127.0.0.1") as player, outside_sender(lab, 4) as sender:
        target = f"udp://127.0.0.1:{player.getsockname()[1]}"
        with command(lab.client, "join", f"{GROUP[4]}:5504", "--to", target) as join:
            join.wait_for("joined")
            sender.sendto(b"picture", (GROUP[4], 5504))
            assert player.recv(100) == b"picture"


def test_join_joins_again_when_the_relay_was_away(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    first = start_relay()
    with command(lab.client, "join", f"{GROUP[4]}:5506", "-f", "hex") as join, outside_sender(lab, 4) as sender:
        join.wait_for("joined")
        sender.sendto(b"before", (GROUP[4], 5506))
        assert join.readline() == b"before".hex().encode() + b"\n"
        first.process.send_signal(signal.SIGKILL)
        join.wait_for("trying again")
        first.process.wait()
        start_relay()
        join.wait_for("joined", count=2)
        sender.sendto(b"after", (GROUP[4], 5506))
        assert join.readline() == b"after".hex().encode() + b"\n"
        join.process.send_signal(signal.SIGTERM)
        assert join.finish()[0] == 0
        join.wait_for("2 datagrams, 11 octets")


def test_send_sends_a_datagram_a_line(lab: Lab, relay: RelayProcess) -> None:
    with outside_receiver(lab, (GROUP[4], 5508)) as receiver, command(lab.client, "send", f"{GROUP[4]}:5508") as send:
        assert send.finish(b"first line\nsecond\n")[0] == 0
        assert [receiver.recv(100) for _ in range(2)] == [b"first line", b"second"]


def test_send_cuts_a_stream_into_datagrams(lab: Lab, relay: RelayProcess) -> None:
    with (
        outside_receiver(lab, (GROUP[4], 5510)) as receiver,
        command(lab.client, "send", f"{GROUP[4]}:5510", "--octets", "1316") as send,
    ):
        assert send.finish(bytes(3 * 1316 + 5))[0] == 0
        assert [len(receiver.recv(2000)) for _ in range(4)] == [1316, 1316, 1316, 5]


def test_a_configured_client_uses_the_relay_for_its_groups_alone(lab: Lab, relay: RelayProcess, tmp_path: Path) -> None:
    config = tmp_path / "client.toml"
    config.write_text(f'relay = "{ALICE}"\ngroups = ["{GROUP[4]}"]\nttl = "2-16"\n')
    group = (GROUP[4], 5520)
    options = ("--client-config", str(config))
    with (
        command(lab.client, "join", f"{group[0]}:{group[1]}", *options, "--count", "1", relay="") as join,
        outside_sender(lab, 4) as sender,
    ):
        join.wait_for("joined")
        sender.sendto(b"from outside", group)
        assert join.finish() == (0, b"from outside")
    with command(lab.client, "join", "239.77.99.99:5520", *options, relay="") as join:
        assert join.finish() == (1, b"")
        where = f"is not reached through the relay ({config}: groups): it is on this network"
        assert join.said == [f"mcastsocks: 239.77.99.99 {where}\n"]
    with command(lab.client, "send", f"{group[0]}:{group[1]}", "--ttl", "17", *options, relay="") as send:
        assert send.finish(b"x\n")[0] == 1
        assert [line for line in send.said if f"({config}: ttl)" in line]


@pytest.mark.parametrize(("typed", "code"), [("y", 0), ("n", 1)])
def test_send_asks_on_the_terminal_while_standard_input_is_data(
    lab: Lab, relay: RelayProcess, tmp_path: Path, typed: str, code: int
) -> None:
    config, data = tmp_path / "client.toml", tmp_path / "data"
    config.write_text(f'relay = "{ALICE}"\nconfirm_sending = true\n')
    data.write_bytes(b"one line\n")
    to = f"{GROUP[4]}:5522"
    send = f"{sys.executable} -m mcastsocks send {to} --client-config {config}"
    with outside_receiver(lab, (GROUP[4], 5522)) as receiver:
        terminal = lab.client.popen(
            *(sys.executable, "-c", _ON_A_TERMINAL, f"{send} < {data}"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        output, _ = terminal.communicate(typed.encode() + b"\n", timeout=20)
        assert f"send to {to} with TTL 1 through socks5://alice@{INSIDE[4]}:1080? [y/N] ".encode() in output
        assert terminal.returncode == code, output
        if typed == "n":
            assert f"mcastsocks: sending to {to} was not confirmed".encode() in output
            with command(lab.client, "send", to, "--client-config", str(config), "--yes", relay="") as answered:
                assert answered.finish(b"one line\n")[0] == 0
        assert receiver.recv(100) == b"one line"
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(100)


def test_a_refusal_is_one_line_and_exit_code_1(lab: Lab, relay: RelayProcess) -> None:
    with command(lab.client, "join", "239.99.9.9:5004") as join:
        assert join.finish() == (1, b"")
        assert join.said[-1].startswith("mcastsocks: 239.99.9.9:5004: multicast receive not allowed by ruleset")
    with command(lab.client, "send", f"{GROUP[4]}:5004", "--ttl", "99") as send:
        assert send.finish(b"x\n")[0] == 1
        assert any("TTL not allowed by ruleset" in line for line in send.said)


def test_an_unreachable_relay_is_one_line_and_exit_code_1(lab: Lab) -> None:
    with command(lab.client, "join", f"{GROUP[4]}:5004", relay=f"{INSIDE[4]}:1") as join:
        assert join.finish()[0] == 1
        assert join.said[-1] == f"mcastsocks: cannot reach socks5://{INSIDE[4]}:1: Connection refused\n"


def test_probe_prints_the_answer(lab: Lab, relay: RelayProcess) -> None:
    with lab.outside.udp(REMOTE[4]) as remote:
        host, port = remote.getsockname()
        with command(lab.client, "probe", f"{host}:{port}", "--data", "are you there") as probe:
            data, source = remote.recvfrom(100)
            assert data == b"are you there"
            remote.sendto(b"I am", source)
            assert probe.finish() == (0, b"I am\n")


def test_probe_says_when_nobody_answers(lab: Lab, relay: RelayProcess) -> None:
    with command(lab.client, "probe", f"{REMOTE[4]}:9", "--timeout", "0.2") as probe:
        assert probe.finish()[0] == 1
        probe.wait_for(f"mcastsocks: no answer from {REMOTE[4]}:9 within 0.2 s")


def test_probe_refuses_more_than_a_datagram_holds_in_one_line(lab: Lab, relay: RelayProcess) -> None:
    with command(lab.client, "probe", f"{REMOTE[4]}:9", "--data", "x" * 66_000) as probe:
        assert probe.finish()[0] == 1
        assert probe.said == ["mcastsocks: --data: 66000 octets; a datagram through this relay holds 65499\n"]


def test_a_refusal_by_a_rule_is_asked_for_and_recorded_once(lab: Lab, relay: RelayProcess) -> None:
    with command(lab.client, "probe", "10.99.9.9:9") as probe:
        assert probe.finish()[0] == 1
    relay.wait_for_record("session-end")
    assert sum(record["event"] == "refused" for record in relay.records) == 1


def test_the_library_behind_a_nat_lets_the_relay_learn_its_endpoint(lab: Lab, relay: RelayProcess) -> None:
    """The client's address is rewritten on its way: what it says it is differs from what the relay sees."""
    rules = f"""
        add table ip lab
        add chain ip lab out {{ type nat hook postrouting priority 100; }}
        add rule ip lab out ip saddr {CLIENT[4]} oifname "in" snat to {SECOND[4]}
    """
    lab.client.run("nft", "-f", "-", input=rules.encode())
    try:
        with outside_sender(lab, 4) as sender:

            async def talk() -> bytes:
                async with connect(ALICE) as alice:
                    group = await alice.join(GROUP[4], 5512)
                    await asyncio.to_thread(wait_for, "the hello", lambda: relay.counters()["hellos"])
                    sender.sendto(b"through the NAT", (GROUP[4], 5512))
                    async with asyncio.timeout(5):
                        return (await group.recv()).data

            assert lab.client.call(lambda: asyncio.run(talk())) == b"through the NAT"
        assert relay.wait_for_record("association-start")["client"] == SECOND[4]
    finally:
        lab.client.run("nft", "delete", "table", "ip", "lab")


def test_the_library_notices_that_the_relays_host_is_silent(lab: Lab, relay: RelayProcess) -> None:
    async def talk() -> None:
        async with connect(ALICE, dead_relay_s=1) as alice:
            group = await alice.join(GROUP[4], 5528)
            async with asyncio.timeout(5):
                # what the kernel drops on its way out it would not count as lost: it has to be the answers
                with dropped(lab, "tcp sport 1080"), pytest.raises(ConnectionLost, match="the control channel to"):
                    await group.recv()

    lab.client.call(lambda: asyncio.run(talk()))


def test_the_library_changes_the_sources_of_a_group_in_use(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5530)

    async def talk() -> list[tuple[bytes, str]]:
        heard = []
        async with connect(ALICE) as alice, asyncio.timeout(10):
            association = await alice.join(*group)
            for step in (None, (REMOTE[4],), (STRANGER[4],)):
                if step is not None:
                    await association.set_sources(step)
                for sender in (stranger, remote, stranger, remote):
                    sender.sendto(b"%d" % (step is not None), group)
                heard += [await association.recv() for _ in range(2 if step else 4)]
            await association.set_sources(excluding=(STRANGER[4],))
            stranger.sendto(b"unwanted", group)
            remote.sendto(b"last", group)
            heard.append(await association.recv())
        return [(datagram.data, str(datagram.source)) for datagram in heard]

    with outside_sender(lab, 4) as remote, outside_sender(lab, 4, STRANGER[4]) as stranger:
        from_remote = f"{REMOTE[4]}:{remote.getsockname()[1]}"
        from_stranger = f"{STRANGER[4]}:{stranger.getsockname()[1]}"
        assert lab.client.call(lambda: asyncio.run(talk())) == [
            *[(b"0", from_stranger), (b"0", from_remote)] * 2,
            *[(b"1", from_remote)] * 2,
            *[(b"1", from_stranger)] * 2,
            (b"last", from_remote),
        ]


def test_the_librarys_datagrams_cross_whole_in_fragments_both_ways(
    lab: Lab, start_relay: Callable[..., RelayProcess]
) -> None:
    relay = start_relay(inside="fragment_above = 600")
    whole = random.Random(7).randbytes(1000)

    async def talk() -> bytes:
        async with connect(ALICE, fragment_above=600) as alice, asyncio.timeout(10):
            association = await alice.associate(*remote.getsockname())
            await association.send(whole)
            data, source = await asyncio.to_thread(remote.recvfrom, 2000)
            remote.sendto(data, source)
            return (await association.recv()).data

    with lab.outside.udp(REMOTE[4]) as remote, Capture(lab.relay, "in") as inside:
        assert lab.client.call(lambda: asyncio.run(talk())) == whole
        datagrams = inside.wait_for("pieces both ways", lambda packet: UDP in packet, count=4)
        assert max(len(packet[UDP].payload) for packet in datagrams) <= 600
    assert relay.counters()["reassembled"] == 1


def test_the_library_says_what_the_relay_refused(lab: Lab, relay: RelayProcess) -> None:
    async def talk() -> None:
        with pytest.raises(LoginRefused, match="name and password"):
            async with connect(f"socks5://alice:wrong@{INSIDE[4]}"):
                pass
        async with connect(f"socks5://bob:hunter2@{INSIDE[4]}") as bob:
            with pytest.raises(RequestRefused, match="send not allowed") as refused:
                await bob.sender(GROUP[4], 5514)
            assert refused.value.code == 0x12
            group = await bob.join(GROUP[4], 5514)
            relay.stop()
            with pytest.raises(ConnectionLost, match="closed the control channel"):
                await group.recv()
            with pytest.raises(ConnectionLost):
                await bob.join(GROUP[4], 5515)

    lab.client.call(lambda: asyncio.run(talk()))


@contextmanager
def dropped(lab: Lab, what: str) -> Iterator[None]:
    """What nft calls so neither leaves nor reaches the client."""
    table = "".join(
        f"chain {hook} {{ type filter hook {hook} priority 0; {what} drop; }}\n" for hook in ("input", "output")
    )
    lab.client.run("nft", "-f", "-", input=f"table inet cut {{\n{table}}}\n".encode())
    try:
        yield
    finally:
        lab.client.run("nft", "delete table inet cut")


@contextmanager
def no_datagrams_inside(lab: Lab) -> Iterator[None]:
    with dropped(lab, "meta l4proto udp"):
        yield


@contextmanager
def outside_receiver(lab: Lab, group: tuple[str, int]) -> Iterator[socket.socket]:
    """A plain receiver of a group outside."""
    with lab.outside.udp(*group) as sock:
        sock.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group[0]) + socket.inet_aton(REMOTE[4])
        )
        yield sock
