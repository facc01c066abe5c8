"""relay and check."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

import mcastsocks
from mcastsocks.errors import ConfigError
from mcastsocks.planes.loop import DatagramLoop
from mcastsocks.rules.model import GROUP_ACTIONS, Action, Rule
from mcastsocks.server import descriptors, interfaces
from mcastsocks.server.config import Config, Loaded, load_config
from mcastsocks.server.post import Post, Report
from mcastsocks.server.records import Records, WholeLines
from mcastsocks.server.relay import Relay
from mcastsocks.server.supervisor import DRAIN_S, Supervisor
from mcastsocks.server.worker import Worker

_COLLECT_AFTER = 5_000
"""Objects more than there were; with Python's 700 a tenth of a datagram's time goes into looking for cycles."""


def run(path: Path | None) -> None:
    """Run until a signal. What it is and allows goes to standard error, records to standard output."""
    loaded = load_config(path)
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def started(serves: str) -> None:
        console.print(f"mcastsocks {mcastsocks.__version__}, configuration: {escape(loaded.source)}")
        _explain(console, loaded.config)
        ways = ", ".join(outside.called for outside in loaded.config.outside)
        each = "each worker: " if loaded.config.plane.workers > 1 else ""
        console.print(f"outside {escape(ways)}, {each}{serves}")

    if loaded.config.plane.workers == 1:
        _serve(loaded, Worker(), Records(loaded.config.log.format), started)
        return
    if killed := Supervisor(loaded, partial(_work, loaded)).run(started):
        records = Records(loaded.config.log.format)
        for index in killed:
            records.write("worker-killed", worker=index, why=f"it did not end within {DRAIN_S:g} s")
        records.close()


def _work(loaded: Loaded, worker: Worker, post: Post) -> None:
    """One of several workers, in its own process."""
    records = Records(loaded.config.log.format, WholeLines(sys.stdout.fileno()), worker=worker.index)
    if post.predecessor is not None:
        records.write("worker-replaced", why=post.predecessor)

    def started(serves: str) -> None:
        post.send(Report(serves))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    try:
        _serve(loaded, worker, records, started, post.lifeline)
    finally:
        records.close()


def _serve(
    loaded: Loaded, worker: Worker, records: Records, started: Callable[[str], None], lifeline: int | None = None
) -> None:
    """Until a signal, or until the lifeline ends."""

    async def main() -> None:
        relay = Relay(loaded, records, worker)
        try:
            relay.start()
        except ConfigError:
            await relay.stop()
            raise
        if lifeline is not None:
            asyncio.get_running_loop().add_reader(lifeline, relay.end)
        started(f"plane {relay.plane_name}, {relay.descriptors}")
        gc.freeze()  # what has been made by now stays: no collection needs to look at it
        gc.set_threshold(_COLLECT_AFTER)
        await relay.serve()

    with asyncio.Runner(loop_factory=DatagramLoop) as runner:
        runner.run(main())


def check(path: Path | None) -> None:
    """Everything that `relay` would check before it listens."""
    loaded = load_config(path)
    console = Console(highlight=False, soft_wrap=True)
    outsides = [interfaces.configured_outside(loaded, index) for index in range(len(loaded.config.outside))]
    console.print(f"{escape(loaded.source)}: valid")
    _explain(console, loaded.config)
    for settings, outside in zip(loaded.config.outside, outsides, strict=True):
        called = f"{settings.name}: " if settings.name else ""
        addresses = " and ".join(str(each) for each in (outside.ipv4, outside.ipv6) if each)
        console.print(f"outside {escape(called)}{outside.name}: groups are joined there, and remotes see {addresses}")
    each = "each worker: " if loaded.config.plane.workers > 1 else ""
    console.print(f"{each}{descriptors.claim(loaded.config.limits, len(loaded.config.upstream))}")
    if loaded.config.auth.users is not None:
        console.print(f"users: {len(loaded.users.users)}, teams: {len(loaded.users.teams)}")


def _explain(console: Console, config: Config) -> None:
    listen = ", ".join(str(endpoint) for endpoint in config.inside.listen)
    advertise = f", told to clients as {config.inside.advertise}" if config.inside.advertise else ""
    workers, socks4 = config.plane.workers, ", SOCKS 4 and 4a too" if config.socks.socks4 else ""
    own = "the same port in UDP for datagrams"
    if workers > 1:
        own = f"UDP {_own_ports(config)} for datagrams, one for each of {workers} workers"
    console.print(f"inside {escape(listen)}{advertise}: TCP, and {own}")
    part = f", {len(config.udp_ports_of(0))} for each worker" if workers > 1 else ""
    console.print(f"UDP ASSOCIATE by UDP ports {_dashed(config.udp_ports)}{part}{socks4}")
    for upstream in config.upstream:
        console.print(f"upstream {escape(upstream.name)}: {escape(str(upstream.relay))}")
    console.print(f"authentication: {' or '.join(config.auth.methods)}")
    console.print("rules, the first that matches decides:")
    for number, rule in enumerate(config.rules, 1):
        verdict = "[green]allow[/]" if rule.allow else "[red]deny[/] "
        console.print(f"  {number:>2} {verdict} {escape(_sentence(rule))}")
    console.print("   . [red]deny[/]  everything else")


def _own_ports(config: Config) -> str:
    """Of all workers, for the enhanced mode."""
    ports = sorted({endpoint.port for endpoint in config.inside.listen})
    return " and ".join(f"ports {_dashed(config.worker_ports(port))}" for port in ports)


def _dashed(ports: range) -> str:
    return f"{ports[0]}-{ports[-1]}"


def _sentence(rule: Rule) -> str:
    """Group actions and unicast apart: `groups` speaks only of the ones, `to` only of the others."""
    actions = rule.do if rule.do is not None else list(Action)
    on_groups = [action for action in actions if action in GROUP_ACTIONS]
    on_unicast = [action for action in actions if action not in GROUP_ACTIONS]
    any_ = "any unprotected" if rule.allow else "any"
    what = [f"{', '.join(on_groups)}: {_any(rule.groups, f'{any_} group')}"] if on_groups else []
    if on_unicast:
        what.append(f"{', '.join(on_unicast)}: {_any(rule.to, f'{any_} address')}")
    return f"{_who(rule)} | {' | '.join(what)}{_ports(rule)}{_limits(rule)} ({rule.name})"


def _any(items: Sequence[object] | None, anything: str) -> str:
    return ", ".join(str(each) for each in items) if items is not None else anything


def _who(rule: Rule) -> str:
    users = _any(rule.users, "anyone")
    return users + (f" from {_any(rule.clients, '')}" if rule.clients is not None else "")


def _ports(rule: Rule) -> str:
    ports = [str(low) if low == high else f"{low}-{high}" for low, high in rule.ports or ()]
    return f" | port {', '.join(ports)}" if ports else ""


def _limits(rule: Rule) -> str:
    if not rule.allow:
        return ""
    ttl = f" | TTL up to {rule.max_ttl}" if rule.max_ttl < 255 else ""
    modes = f" | {', then '.join(mode.upper() for mode in rule.modes)}-mode" if rule.modes != ["mu"] else ""
    via = f" | via {rule.via}" if rule.via is not None else ""
    through = f" | through {rule.upstream}" if rule.upstream is not None else ""
    through += f" | {rule.require.upper()} only" if rule.require is not None else ""
    return ttl + modes + via + through + (f" | DSCP {rule.dscp}" if rule.dscp is not None else "")
