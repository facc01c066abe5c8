"""The record of who did what: one line an event, as key=value or JSON."""

from __future__ import annotations

import json
import os
import queue
import re
import select
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import IntEnum
from typing import Protocol

Value = str | int | float | bool | None
_Record = tuple[datetime, str, Mapping[str, Value]]
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")
"""Graphic ASCII without quotation mark, equals sign and backslash."""
_QUEUED = 100_000
_CLOSE_S = 5.0


def as_keyvalue(time: datetime, event: str, fields: Mapping[str, Value]) -> str:
    """`TIME event key=value …`; a value with anything that could be misread is written as a JSON string.

    Both formats are ASCII: no stream fails to encode it, and no terminal acts on it.
    """
    pairs = (f"{key}={_plain(value)}" for key, value in fields.items())
    return " ".join((_stamp(time), event, *pairs))


def as_json(time: datetime, event: str, fields: Mapping[str, Value]) -> str:
    return json.dumps({"time": _stamp(time), "event": event, **fields})


def command_name(commands: type[IntEnum], command: int) -> str:
    """As records say it: its name, or its octet."""
    try:
        return commands(command).name.lower().replace("_", "-")
    except ValueError:
        return f"X'{command:02x}'"


FORMATS = {"keyvalue": as_keyvalue, "json": as_json}


class Stream(Protocol):
    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...


class Records:
    """Writes records from a thread of its own, so that a slow reader of the log delays no datagram.

    When the reader is slower than that for long, records are lost, counted, and the count is written.
    """

    def __init__(self, format: str = "keyvalue", stream: Stream | None = None, **always: Value) -> None:
        """`always` are fields of every record, before its own."""
        self._format, self._always = FORMATS[format], always
        self._stream: Stream = stream or sys.stdout
        self._queue: queue.SimpleQueue[_Record | None] = queue.SimpleQueue()
        self._lost = 0
        self._complained = False
        self._thread = threading.Thread(target=self._write_all, name="records", daemon=True)
        self._thread.start()

    def write(self, event: str, **fields: Value) -> None:
        """Fields that are None are left out."""
        present = {key: value for key, value in fields.items() if value is not None}
        if self._queue.qsize() >= _QUEUED:
            self._lost += 1
            return
        if self._lost:
            self._queue.put(_lost(self._lost))
            self._lost = 0
        self._queue.put((datetime.now(UTC), event, present))

    def close(self) -> None:
        """Write what is left, for a few seconds at most."""
        if self._lost:
            self._queue.put(_lost(self._lost))
        self._queue.put(None)
        self._thread.join(timeout=_CLOSE_S)

    def _write_all(self) -> None:
        unwritten = 0
        while (record := self._queue.get()) is not None:
            try:
                if unwritten:
                    self._write_line(_lost(unwritten))
                    unwritten = 0
                self._write_line(record)
                if self._queue.empty():
                    self._stream.flush()
            except (OSError, ValueError) as error:  # a full disk may have room again, a closed pipe has no reader
                unwritten += _count(record)
                self._complain(error)
        with suppress(OSError, ValueError):
            if unwritten:
                self._write_line(_lost(unwritten))
            self._stream.flush()

    def _write_line(self, record: _Record) -> None:
        time, event, fields = record
        self._stream.write(self._format(time, event, {**self._always, **fields}) + "\n")

    def _complain(self, error: Exception) -> None:
        """Once: whoever reads standard error learns that the record has gaps."""
        if not self._complained:
            self._complained = True
            with suppress(OSError, ValueError):
                print(f"mcastsocks: records are being lost: {error}", file=sys.stderr)


class WholeLines:
    """A stream for Records whose every write to the descriptor is of whole lines: others write there too.

    POSIX keeps up to PIPE_BUF octets together. What could not be written is tried again with the next.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._unwritten = descriptor, b""

    def write(self, line: str, /) -> int:
        if len(self._unwritten) + len(line) > select.PIPE_BUF:
            self.flush()
        self._unwritten += line.encode("ascii")
        return len(line)

    def flush(self) -> None:
        while self._unwritten:
            self._unwritten = self._unwritten[os.write(self._descriptor, self._unwritten) :]


def _lost(records: int) -> _Record:
    return datetime.now(UTC), "records-lost", {"records": records}


def _count(record: _Record) -> int:
    """How many records are lost with this one."""
    _, event, fields = record
    lost = fields.get("records") if event == "records-lost" else 1
    return lost if isinstance(lost, int) else 1


def _stamp(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _plain(value: Value) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
