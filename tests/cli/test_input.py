"""What send reads from: pipes, files, terminals and devices, in lines or in portions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from mcastsocks.cli.input import Input


@contextmanager
def pipe_with(octets: bytes) -> Iterator[int]:
    reader, writer = os.pipe()
    os.write(writer, octets)
    os.close(writer)
    yield reader
    os.close(reader)


@contextmanager
def file_with(octets: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("input")
    os.write(descriptor, octets)
    os.lseek(descriptor, 0, os.SEEK_SET)
    yield descriptor
    os.close(descriptor)


@contextmanager
def terminal_with(octets: bytes) -> Iterator[int]:
    keyboard, terminal = os.openpty()
    os.write(keyboard, octets + b"\x04")  # ctrl-D
    yield terminal
    os.close(terminal)
    os.close(keyboard)


def portions(descriptor: int, octets: int | None) -> list[bytes]:
    async def read() -> list[bytes]:
        source, read = Input(descriptor, octets), []
        while portion := await source.next():
            read.append(portion)
        assert await source.next() == b""
        return read

    return asyncio.run(read())


@pytest.mark.parametrize("source", [pipe_with, file_with])
@pytest.mark.parametrize(
    ("octets", "size", "expected"),
    [
        (b"", None, []),
        (b"one\n\ntwo", None, [b"one\n", b"\n", b"two"]),
        (b"one\ntwo\n", None, [b"one\n", b"two\n"]),
        (b"abcdefg", 3, [b"abc", b"def", b"g"]),
        (b"abcdef", 3, [b"abc", b"def"]),
        (b"a\nb", 65_000, [b"a\nb"]),
    ],
)
def test_input_is_cut_into_lines_or_portions(
    source: Callable[[bytes], AbstractContextManager[int]], octets: bytes, size: int | None, expected: list[bytes]
) -> None:
    with source(octets) as descriptor:
        assert portions(descriptor, size) == expected


def test_a_line_longer_than_one_read_is_whole() -> None:
    line = bytes(200_000) + b"\n"
    with file_with(line + b"next") as descriptor:
        assert portions(descriptor, None) == [line, b"next"]


def test_a_terminal_is_read_by_lines() -> None:
    with terminal_with(b"typed\n") as descriptor:
        assert portions(descriptor, None) == [b"typed\n"]


def test_the_null_device_is_empty() -> None:
    with Path(os.devnull).open("rb") as null:
        assert portions(null.fileno(), None) == []


def test_waiting_can_be_cancelled_and_nothing_read_is_lost() -> None:
    reader, writer = os.pipe()

    async def main() -> None:
        source = Input(reader)
        waiting = asyncio.create_task(source.next())
        os.write(writer, b"half ")
        while not source._read:  # noqa: ASYNC110 - it tells nobody that it has read half a line
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        os.write(writer, b"a line\n")
        assert await source.next() == b"half a line\n"

    asyncio.run(main())
    os.close(reader)
    os.close(writer)
