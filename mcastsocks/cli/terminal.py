"""Questions to whoever sits at the terminal, where standard input is data."""

from __future__ import annotations

import os

from mcastsocks.cli.input import Input

PATH = "/dev/tty"


class Question:
    """Asked when it is first awaited, and only once: a new connection is no new decision."""

    def __init__(self, text: str) -> None:
        """Raises OSError when there is no terminal."""
        self._text = text
        self._answer: bool | None = None
        self._descriptor = os.open(PATH, os.O_RDWR | os.O_NOCTTY)

    async def ask(self) -> bool:
        if self._answer is None:
            os.write(self._descriptor, f"{self._text} [y/N] ".encode())
            line = await Input(self._descriptor).next()
            self._answer = line.strip().lower() in (b"y", b"yes")
        return self._answer

    def close(self) -> None:
        os.close(self._descriptor)
