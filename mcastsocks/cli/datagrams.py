"""join, send and probe."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import typer

from mcastsocks.address import Endpoint
from mcastsocks.cli import targets
from mcastsocks.cli.input import Input
from mcastsocks.cli.output import FileOutput, Output, PlayerOutput
from mcastsocks.cli.targets import Format
from mcastsocks.cli.terminal import Question
from mcastsocks.client import Association, ConnectionLost, Mode, Relay, RelayUrl, connect
from mcastsocks.errors import NotConfirmed, RelayError

_RETRY_FIRST_S, _RETRY_LAST_S = 0.2, 5.0


def say(text: str) -> None:
    typer.echo(text, err=True)


def join(
    relay: str | None,
    config_file: Path | None,
    group: str,
    form: Format,
    to: str | None,
    count: int | None,
    sources: Sequence[str],
    excluding: Sequence[str],
    over_tcp: bool,
    mode: Mode | None = None,
) -> None:
    config = targets.client_config(config_file)
    url, groups = targets.relay_url(relay, config), targets.groups(group)
    player = targets.player(to) if to else None
    targets.check_sources(sources, excluding)
    targets.check_mode(mode, needs_mu=bool(sources or excluding or over_tcp))
    for each in groups:
        config.check(each)

    async def receive() -> None:
        output = PlayerOutput(player) if player else _standard_output(form)

        async def join_all(relay: Relay) -> list[Association]:
            return [
                await relay.join(
                    str(group.host), group.port, sources=sources, excluding=excluding, over_tcp=over_tcp, mode=mode
                )
                for group in groups
            ]

        await _Receiver(url, join_all, output, count).run()

    _run(receive(), stop_by_signal=True)


def send(
    relay: str | None,
    config_file: Path | None,
    group: str,
    ttl: int,
    octets: int | None,
    over_tcp: bool,
    yes: bool,
    mode: Mode | None = None,
) -> None:
    config = targets.client_config(config_file)
    url, to = targets.relay_url(relay, config), targets.group(group)
    config.check(to, ttl)
    targets.check_mode(mode, needs_mu=over_tcp)
    stdin = targets.opened(sys.stdin, "standard input")
    question = None
    if config.confirm_sending and not yes:
        try:
            question = Question(f"send to {to} with TTL {ttl} through {url}?")
        except OSError:
            must = f"sending to {to} has to be confirmed ({config.place('confirm_sending')})"
            raise NotConfirmed(f"{must}, and there is no terminal to ask on; --yes answers in advance") from None
    try:
        _run(_Sender(url, to, ttl, Input(stdin.fileno(), octets), over_tcp, question, mode).run())
    finally:
        if question is not None:
            question.close()


def probe(
    relay: str | None,
    config_file: Path | None,
    remote: str,
    data: str,
    form: Format,
    timeout_s: float,
    over_tcp: bool,
) -> None:
    url, to = targets.relay_url(relay, targets.client_config(config_file)), targets.remote(remote)
    targets.opened(sys.stdout, "standard output")
    _run(_probe(url, to, os.fsencode(data), form, timeout_s, over_tcp))


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
    pause, ever, ask_features = _RETRY_FIRST_S, False, True
    while True:
        try:
            async with connect(url, ask_features=ask_features) as relay:
                pause, ever = _RETRY_FIRST_S, True
                ask_features = relay.features is not None  # not again of a relay that does not know the question
                await work(relay)
                return
        except ConnectionLost as lost:
            if not ever:
                raise
            say(f"{lost}; trying again in {pause:g} s")
        await asyncio.sleep(pause)
        pause = min(2 * pause, _RETRY_LAST_S)


def _standard_output(form: Format) -> FileOutput:
    return FileOutput(targets.opened(sys.stdout, "standard output").fileno(), form)


def _name(association: Association) -> str:
    """Of its group, for people; MU-mode is what they expect."""
    return f"{association.remote}{' (MM-mode)' if association.mode is Mode.MM else ''}"


class _Receiver:
    """Writes the groups' datagrams to an output, and counts."""

    def __init__(
        self, url: RelayUrl, join: Callable[[Relay], Awaitable[list[Association]]], output: Output, count: int | None
    ) -> None:
        self._url, self._join, self._output, self._count = url, join, output, count
        self._dropped = 0

    async def run(self) -> None:
        try:
            await _reconnecting(self._url, self._receive)
            await self._output.finish()
        finally:
            try:
                await self._output.close()
            finally:
                self._sum_up()

    async def _receive(self, relay: Relay) -> None:
        joined = await self._join(relay)
        say(f"joined {', '.join(map(_name, joined))} through {self._url}")
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
            if not self._has_enough():  # another group's may have been the last
                self._output.write(association.remote, datagram)
            if self._has_enough():
                return

    def _has_enough(self) -> bool:
        return self._count is not None and self._output.taken >= self._count

    def _sum_up(self) -> None:
        output = self._output
        lost = self._dropped + output.taken - output.written
        dropped = f", {lost} dropped here because the output was too slow" if lost else ""
        say(f"{output.written} datagrams, {output.written_octets} octets{dropped}")


class _Sender:
    """Sends standard input to a group; what is not yet read while the relay is away waits in the pipe."""

    def __init__(
        self,
        url: RelayUrl,
        group: Endpoint,
        ttl: int,
        stdin: Input,
        over_tcp: bool,
        question: Question | None,
        mode: Mode | None,
    ) -> None:
        self._url, self._group, self._ttl, self._stdin, self._over_tcp = url, group, ttl, stdin, over_tcp
        self._question, self._mode = question, mode
        self._unsent: bytes | None = None
        self._sent = self._sent_octets = 0

    async def run(self) -> None:
        try:
            await _reconnecting(self._url, self._send)
        finally:
            say(f"{self._sent} datagrams, {self._sent_octets} octets")

    async def _send(self, relay: Relay) -> None:
        host, port = str(self._group.host), self._group.port
        confirm = self._confirm if self._question is not None else None
        association = await relay.sender(
            host, port, ttl=self._ttl, over_tcp=self._over_tcp, mode=self._mode, confirm=confirm
        )
        say(f"sending to {_name(association)} with TTL {self._ttl} through {self._url}")
        while True:
            if self._unsent is None:
                self._unsent = await self._stdin.next()
            if not self._unsent:
                return
            data = self._unsent.removesuffix(b"\n") if self._stdin.has_lines else self._unsent
            try:
                await association.send(data)
            except ValueError as error:
                say(f"not sent: {error}")
            else:
                self._sent += 1
                self._sent_octets += len(data)
            self._unsent = None

    async def _confirm(self, group: Endpoint, ttl: int) -> bool:
        return self._question is None or await self._question.ask()


async def _probe(url: RelayUrl, remote: Endpoint, data: bytes, form: Format, timeout_s: float, over_tcp: bool) -> None:
    async with connect(url) as relay:
        association = await relay.associate(str(remote.host), remote.port, over_tcp=over_tcp)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                await association.send(data)
                answer = await association.recv()
        except ValueError as error:
            raise RelayError(f"--data: {error}") from None
        except TimeoutError:
            raise RelayError(f"no answer from {remote} within {timeout_s:g} s") from None
        elapsed_ms = (time.perf_counter() - started) * 1000
        source = {"source": str(answer.source)} if answer.source is not None else {}
        sys.stdout.buffer.write(targets.encode(answer.data, form, remote=str(remote), **source))
        if form is Format.raw:
            sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
        say(f"{len(answer.data)} octets from {remote} in {elapsed_ms:.1f} ms; it saw {association.outside}")
