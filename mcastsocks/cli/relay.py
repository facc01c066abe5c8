"""relay and check."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

import mcastsocks
from mcastsocks.errors import ConfigError
from mcastsocks.planes.loop import DatagramLoop
from mcastsocks.rules.model import GROUP_ACTIONS, Action, Rule
from mcastsocks.server import descriptors, interfaces
from mcastsocks.server.config import Config, load_config
from mcastsocks.server.relay import Relay

_COLLECT_AFTER = 5_000
"""Objects more than there were; with Python's 700 a tenth of a datagram's time goes into looking for cycles."""


def run(path: Path | None) -> None:
    """Run until a signal. What it is and allows goes to standard error, records to standard output."""
    loaded = load_config(path)
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    async def main() -> None:
        relay = Relay(loaded)
        try:
            relay.start()
        except ConfigError:
            await relay.stop()
            raise
        console.print(f"mcastsocks {mcastsocks.__version__}, configuration: {escape(loaded.source)}")
        _explain(console, loaded.config)
        ways = ", ".join(outside.called for outside in loaded.config.outside)
        console.print(f"outside {escape(ways)}, plane {relay.plane_name}, {relay.descriptors}")
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
    console.print(str(descriptors.claim(loaded.config.limits, len(loaded.config.upstream))))
    if loaded.config.auth.users is not None:
        console.print(f"users: {len(loaded.users.users)}, teams: {len(loaded.users.teams)}")


def _explain(console: Console, config: Config) -> None:
    listen = ", ".join(str(endpoint) for endpoint in config.inside.listen)
    advertise = f", told to clients as {config.inside.advertise}" if config.inside.advertise else ""
    console.print(f"inside {escape(listen)}{advertise}: TCP, and the same port in UDP for datagrams")
    ports, socks4 = config.udp_ports, ", SOCKS 4 and 4a too" if config.socks.socks4 else ""
    console.print(f"UDP ASSOCIATE by UDP ports {ports[0]}-{ports[-1]}{socks4}")
    for upstream in config.upstream:
        console.print(f"upstream {escape(upstream.name)}: {escape(str(upstream.relay))}")
    console.print(f"authentication: {' or '.join(config.auth.methods)}")
    console.print("rules, the first that matches decides:")
    for number, rule in enumerate(config.rules, 1):
        verdict = "[green]allow[/]" if rule.allow else "[red]deny[/] "
        console.print(f"  {number:>2} {verdict} {escape(_sentence(rule))}")
    console.print("   . [red]deny[/]  everything else")


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
