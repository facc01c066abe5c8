"""demo: the whole story in one terminal, on loopback. It tells what it observed, and nothing else."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import struct
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from mcastsocks.client import Association, Relay, RelayUrl, RequestRefused, connect
from mcastsocks.errors import McastsocksError
from mcastsocks.rules.users import set_password

GROUP = "239.255.77.77"
PATIENCE_S = 5.0

_CONFIG = """\
[inside]
listen = ["127.0.0.1:{port}"]
[outside]
interface = "lo"
[auth]
methods = ["userpass"]
users = "users.toml"
[log]
format = "json"
[[rules]]
name = "alice may watch and talk"
allow = true
users = ["alice"]
do = ["receive-group", "send-group"]
groups = ["{group}"]
max_ttl = 1
[[rules]]
name = "bob may watch"
allow = true
users = ["bob"]
do = ["receive-group"]
groups = ["{group}"]
"""


class DemoError(McastsocksError):
    """What should have been observed was not."""


def run() -> None:
    if sys.platform != "linux":
        raise DemoError("the demo reads the kernel's own account of groups, which needs Linux")
    with tempfile.TemporaryDirectory(prefix="mcastsocks-demo-") as folder:
        asyncio.run(_Demo(Path(folder)).run())


class _Demo:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._group_port = _free_port(socket.SOCK_STREAM), _free_port(socket.SOCK_DGRAM)
        self._passwords = {name: secrets.token_urlsafe(9) for name in ("alice", "bob")}
        self._console = Console(highlight=False, soft_wrap=True)
        self._records: list[dict[str, Any]] = []

    async def run(self) -> None:
        self._say("relay", "starting a relay on loopback, with two users and the rules")
        self._say("relay", f"  alice may receive and send {GROUP}; bob may only receive it; nobody else anything")
        async with self._relay(), asyncio.timeout(60):
            async with connect(self._url("alice")) as alice, connect(self._url("bob")) as bob:
                await self._watch(alice, bob)
            self._say("alice", "and bob hang up without a word of goodbye to the group")
            await _eventually(lambda: not _kernel_receives(GROUP), "the relay to leave the group")
            self._say("kernel", f"{GROUP} is no longer joined: nothing is left behind")
        self._tell_records()

    async def _watch(self, alice: Relay, bob: Relay) -> None:
        self._say("alice", "and bob log in over TCP")
        for_alice = await alice.join(GROUP, self._group_port)
        for_bob = await bob.join(GROUP, self._group_port)
        self._say("kernel", f"sockets that joined {GROUP}: {_kernel_receives(GROUP)}, for two receivers")

        with _outside_sender() as outside:
            outside.sendto(b"news from outside", (GROUP, self._group_port))
        self._say("outside", f"sends one datagram to {GROUP}")
        for name, association in (("alice", for_alice), ("bob", for_bob)):
            self._say(name, f"receives {await _receive(association)!r}")

        await for_alice.add(send=True, ttl=1)
        with _outside_receiver(self._group_port) as outside:
            await for_alice.send(b"greetings from inside")
            data, source = await asyncio.wait_for(asyncio.to_thread(outside.recvfrom, 2048), PATIENCE_S)
        self._say("alice", "asks to send as well, and sends")
        self._say("outside", f"receives {data.decode()!r} from {source[0]}:{source[1]}, the relay")
        self._say("bob", f"receives {await _receive(for_bob)!r}, his copy")

        try:
            await for_bob.add(send=True)
        except RequestRefused as refused:
            self._say("bob", f"asks to send: {refused}")
        else:
            raise DemoError("bob was allowed to send")
        try:
            await for_alice.set_ttl(5)
        except RequestRefused as refused:
            self._say("alice", f"asks for more: {refused}")
        else:
            raise DemoError("a TTL beyond the rule was allowed")

    @asynccontextmanager
    async def _relay(self) -> AsyncIterator[None]:
        """The relay as its own process, by the command that everybody uses."""
        for name, password in self._passwords.items():
            set_password(self._folder / "users.toml", name, password)
        config = self._folder / "relay.toml"
        config.write_text(_CONFIG.format(port=self._port, group=GROUP))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mcastsocks", "relay", "-c", str(config)), stdout=PIPE, stderr=PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.create_task(process.stderr.read())
        first = await asyncio.wait_for(process.stdout.readline(), 30)
        if not first:
            raise DemoError(f"the relay did not start:\n{(await errors).decode()}")
        reader = asyncio.create_task(self._read_records(process, first))
        try:
            yield
        finally:
            process.terminate()
            await asyncio.wait_for(reader, PATIENCE_S)
            await errors
            await process.wait()

    async def _read_records(self, process: Process, first: bytes) -> None:
        assert process.stdout is not None
        self._records.append(json.loads(first))
        async for line in process.stdout:
            self._records.append(json.loads(line))

    def _tell_records(self) -> None:
        self._say("record", "what the relay wrote down:")
        for record in self._records:
            if record["event"] == "association-end":
                self._say(
                    "record",
                    f"  {record['user']}: {record['what']} {record['remote']}, {record['duration_s']} s, "
                    f"datagrams: {record['to_client_datagrams']} in, {record['to_remote_datagrams']} out, "
                    f"by rule {record['rule']!r}",
                )
            elif record["event"] == "refused":
                self._say("record", f"  {record['user']}: {record['command']} refused: {record['why']}")

    def _say(self, who: str, what: str) -> None:
        colours = {"relay": "cyan", "record": "cyan", "kernel": "magenta", "outside": "yellow"}
        self._console.print(f"[{colours.get(who, 'green')}]{who:>8}[/]  {escape(what)}")

    def _url(self, user: str) -> RelayUrl:
        return RelayUrl("127.0.0.1", self._port, user, self._passwords[user])


async def _receive(association: Association) -> str:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return (await association.recv()).data.decode()
    except TimeoutError:
        raise DemoError(f"nothing came from {association.remote} within {PATIENCE_S:g} s") from None


async def _eventually(condition: Any, what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - the kernel rings no bell
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise DemoError(f"waited in vain for {what}") from None


def _kernel_receives(group: str) -> int:
    """How many sockets joined a group on loopback, by the kernel's own account."""
    wanted = f"{int.from_bytes(socket.inet_aton(group), sys.byteorder):08X}"
    for line in Path("/proc/net/igmp").read_text().splitlines():
        fields = line.split()
        if fields and fields[0] == wanted:
            return int(fields[1])
    return 0


def _outside_sender() -> socket.socket:
    """A plain program outside: it knows nothing of any relay."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    sock.bind(("127.0.0.1", 0))
    return sock


def _outside_receiver(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((GROUP, port))
    sock.setsockopt(
        socket.IPPROTO_IP,
        socket.IP_ADD_MEMBERSHIP,
        struct.pack("=4s4s", socket.inet_aton(GROUP), socket.inet_aton("127.0.0.1")),
    )
    sock.settimeout(PATIENCE_S)
    return sock


def _free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
