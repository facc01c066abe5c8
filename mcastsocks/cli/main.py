"""The `mcastsocks` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import mcastsocks
from mcastsocks.cli import datagrams, demo, features, relay, users
from mcastsocks.cli.targets import DEFAULT_RELAY, Format
from mcastsocks.client import Mode
from mcastsocks.errors import ConfigError, McastsocksError

app = typer.Typer(
    help="A SOCKS relay that makes UDP and IP multicast cross a firewall under control.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # it would take [user:password@] for a style; and errors stay on one line
    pretty_exceptions_enable=False,
)
user_app = typer.Typer(help="Who may log in.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(user_app, name="user")

_RelayOption = Annotated[
    str | None,
    typer.Option(
        "--relay",
        envvar="MCASTSOCKS_RELAY",
        metavar="URL",
        help="socks5://[user:password@]host[:port]",
        show_default=f"that of --client-config, or {DEFAULT_RELAY}",
    ),
]
_ClientOption = Annotated[
    Path | None,
    typer.Option(
        "--client-config", envvar="MCASTSOCKS_CLIENT", metavar="FILE", help="TOML: the relay, and for which groups"
    ),
]
_ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="TOML configuration")]
_OverTcpOption = Annotated[bool, typer.Option("--over-tcp", help="datagrams go inside the TCP connection")]
_ModeOption = Annotated[
    Mode | None,
    typer.Option("--mode", help="mu: copies from the relay; mm: the group on this network too", show_default="any"),
]
_FormatOption = Annotated[Format, typer.Option("--format", "-f", help="how data is written")]


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"mcastsocks {mcastsocks.__version__}")
        raise typer.Exit


@app.command("relay")
def _relay(config: _ConfigOption = None) -> None:
    """Run the relay; without a file, on loopback for trying it."""
    relay.run(config)


@app.command("check")
def _check(config: _ConfigOption = None) -> None:
    """Validate a configuration and explain what it allows."""
    relay.check(config)


@app.command("join")
def _join(
    group: Annotated[
        str, typer.Argument(metavar="GROUP:PORT", help="239.1.2.3:5004, a range 5004-5005, [ff15::1]:5004")
    ],
    relay_url: _RelayOption = None,
    client_config: _ClientOption = None,
    format: _FormatOption = Format.raw,
    to: Annotated[str | None, typer.Option(metavar="udp://HOST:PORT", help="on to a player instead of stdout")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="stop after so many datagrams")] = None,
    source: Annotated[
        list[str] | None, typer.Option(metavar="ADDR", help="receive what comes from here only; may be repeated")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="ADDR", help="receive nothing from here; may be repeated")
    ] = None,
    over_tcp: _OverTcpOption = False,
    mode: _ModeOption = None,
) -> None:
    """Receive a group through a relay. Joins again by itself when the relay was away."""
    datagrams.join(relay_url, client_config, group, format, to, count, source or [], exclude or [], over_tcp, mode)


@app.command("send")
def _send(
    group: Annotated[str, typer.Argument(metavar="GROUP:PORT")],
    relay_url: _RelayOption = None,
    client_config: _ClientOption = None,
    ttl: Annotated[int, typer.Option(min=1, max=255, help="hops beyond the relay")] = 1,
    octets: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="datagrams of N octets instead of one a line")
    ] = None,
    over_tcp: _OverTcpOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask, whatever the client configuration says")] = False,
    mode: _ModeOption = None,
) -> None:
    """Send standard input to a group through a relay. One datagram a line, unless --octets is given."""
    datagrams.send(relay_url, client_config, group, ttl, octets, over_tcp, yes, mode)


@app.command("probe")
def _probe(
    remote: Annotated[str, typer.Argument(metavar="HOST:PORT")],
    relay_url: _RelayOption = None,
    client_config: _ClientOption = None,
    data: Annotated[str, typer.Option(help="what to send")] = "probe",
    format: _FormatOption = Format.raw,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="how long to wait")] = 3.0,
    over_tcp: _OverTcpOption = False,
) -> None:
    """Send one datagram through a relay and print its answer."""
    datagrams.probe(relay_url, client_config, remote, data, format, timeout, over_tcp)


@app.command("features")
def _features(
    relay_url: _RelayOption = None,
    client_config: _ClientOption = None,
    format: Annotated[features.Format, typer.Option("--format", "-f", help="for a person or a program")] = (
        features.Format.text
    ),
) -> None:
    """Ask a relay what it can do for you, and print the list."""
    features.features(relay_url, client_config, format)


@app.command("demo")
def _demo() -> None:
    """The whole story in one terminal, without root. A relay, a sender outside, two clients with different rights."""
    demo.run()


@user_app.command("add")
def _user_add(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="users file")] = Path("users.toml"),
) -> None:
    """Add a user, or change a password; it is asked for, or read from a pipe."""
    users.add(name, file)


def run() -> None:
    """Entry point: one line for an error that is no defect of ours."""
    try:
        app()
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        sys.exit(2)
    except McastsocksError as error:
        typer.echo(f"mcastsocks: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:  # a full disk behind standard output, say
        typer.echo(f"mcastsocks: {error.strerror or error}", err=True)
        sys.exit(1)
