"""join, send and probe."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import BinaryIO

import typer

from mcastsocks.address import Endpoint
from mcastsocks.cli import targets
from mcastsocks.cli.targets import Format, Player
from mcastsocks.client import Association, ConnectionLost, Relay, RelayUrl, connect
from mcastsocks.errors import RelayError

_RETRY_FIRST_S, _RETRY_LAST_S = 0.2, 5.0


def say(text: str) -> None:
    typer.echo(text, err=True)


def join(relay: str, group: str, form: Format, to: str | None, count: int | None) -> None:
    url, groups = targets.relay_url(relay), targets.groups(group)
    receiver = _Receiver(url, groups, form, targets.player(to) if to else None, count)
    _run(receiver.run(), stop_by_signal=True)


def send(relay: str, group: str, ttl: int, octets: int | None) -> None:
    _run(_Sender(targets.relay_url(relay), targets.group(group), ttl, octets).run())


def probe(relay: str, remote: str, data: str, form: Format, timeout_s: float) -> None:
    _run(_probe(targets.relay_url(relay), targets.remote(remote), data.encode(), form, timeout_s))


def _run(work: Awaitable[None], *, stop_by_signal: bool = False) -> None:
    """Run to the end; with `stop_by_signal`, SIGINT and SIGTERM end it in order and with exit code 0."""

    async def main() -> None:
        task = asyncio.ensure_future(work)
        if stop_by_signal:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, task.cancel)
            with suppress(asyncio.CancelledError):
                await task
        else:
            await task

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _reconnecting(url: RelayUrl, work: Callable[[Relay], Awaitable[None]]) -> None:
    """Do the work on a connection, again on a new one whenever that is lost; the first must succeed."""
    pause, ever = _RETRY_FIRST_S, False
    while True:
        try:
            async with connect(url) as relay:
                pause, ever = _RETRY_FIRST_S, True
                await work(relay)
                return
        except ConnectionLost as lost:
            if not ever:
                raise
            say(f"{lost}; trying again in {pause:g} s")
        await asyncio.sleep(pause)
        pause = min(2 * pause, _RETRY_LAST_S)


class _Receiver:
    """Writes the groups' datagrams to standard output or on to a player, and counts."""

    def __init__(
        self, url: RelayUrl, groups: list[Endpoint], form: Format, player: Player | None, count: int | None
    ) -> None:
        self._url, self._groups, self._form, self._count = url, groups, form, count
        self._player = player
        self._sock = socket.socket(player.family, socket.SOCK_DGRAM) if player else None
        self._datagrams = self._octets = self._dropped = 0

    async def run(self) -> None:
        try:
            await _reconnecting(self._url, self._receive)
        finally:
            if self._sock is not None:
                self._sock.close()
            dropped = f", {self._dropped} dropped here because the output was too slow" if self._dropped else ""
            say(f"{self._datagrams} datagrams, {self._octets} octets{dropped}")

    async def _receive(self, relay: Relay) -> None:
        joined = [await relay.join(str(group.host), group.port) for group in self._groups]
        say(f"joined {', '.join(str(group) for group in self._groups)} through {self._url}")
        tasks = [asyncio.create_task(self._copy(association)) for association in joined]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._dropped += sum(association.dropped for association in joined)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _copy(self, association: Association) -> None:
        async for datagram in association:
            self._write(association.remote, datagram.data)
            if self._count is not None and self._datagrams >= self._count:
                return

    def _write(self, group: Endpoint, data: bytes) -> None:
        self._datagrams += 1
        self._octets += len(data)
        if self._sock is not None and self._player is not None:
            try:
                self._sock.sendto(data, self._player.sockaddr)
            except ConnectionRefusedError:  # the player is not there yet
                pass
            except OSError as error:
                raise RelayError(f"--to: nothing can be sent there: {error.strerror}") from None
        else:
            targets.write(sys.stdout.buffer, data, self._form, group=str(group.host), port=group.port)


class _Sender:
    """Sends standard input to a group; what is read while the relay is away waits in the pipe."""

    def __init__(self, url: RelayUrl, group: Endpoint, ttl: int, octets: int | None) -> None:
        self._url, self._group, self._ttl, self._octets = url, group, ttl, octets
        self._unsent: bytes | None = None
        self._sent = self._sent_octets = 0

    async def run(self) -> None:
        try:
            await _reconnecting(self._url, self._send)
        finally:
            say(f"{self._sent} datagrams, {self._sent_octets} octets")

    async def _send(self, relay: Relay) -> None:
        association = await relay.sender(str(self._group.host), self._group.port, ttl=self._ttl)
        say(f"sending to {self._group} with TTL {self._ttl} through {self._url}")
        while True:
            if self._unsent is None:
                self._unsent = await asyncio.to_thread(self._read, sys.stdin.buffer)
            if not self._unsent:
                return
            data = self._unsent if self._octets is not None else self._unsent.removesuffix(b"\n")
            try:
                await association.send(data)
            except ValueError as error:
                say(f"not sent: {error}")
            else:
                self._sent += 1
                self._sent_octets += len(data)
            self._unsent = None

    def _read(self, stream: BinaryIO) -> bytes:
        return stream.readline() if self._octets is None else stream.read(self._octets)


async def _probe(url: RelayUrl, remote: Endpoint, data: bytes, form: Format, timeout_s: float) -> None:
    async with connect(url) as relay:
        association = await relay.associate(str(remote.host), remote.port)
        started = time.perf_counter()
        await association.send(data)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await association.recv()
        except TimeoutError:
            raise RelayError(f"no answer from {remote} within {timeout_s:g} s") from None
        elapsed_ms = (time.perf_counter() - started) * 1000
        targets.write(sys.stdout.buffer, answer.data, form, remote=str(remote))
        if form is Format.raw:
            sys.stdout.buffer.write(b"\n")
        say(f"{len(answer.data)} octets from {remote} in {elapsed_ms:.1f} ms; it saw {association.outside}")
