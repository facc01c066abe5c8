"""user add."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from mcastsocks.rules.users import check_user_name, set_password


def add(name: str, path: Path) -> None:
    try:
        check_user_name(name)
        new = set_password(path, name, _ask_password(name))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(f"{'added' if new else 'changed the password of'} {name} in {path}")


def _ask_password(name: str) -> str:
    """Never from the command line, which every user of the host can read."""
    if sys.stdin.isatty():
        answer: str = typer.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True)
        return answer
    return sys.stdin.readline().rstrip("\r\n")
