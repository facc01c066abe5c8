"""Where join writes to: players, readers that are slow, readers that are gone."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from mcastsocks.address import parse_endpoint, parse_group
from mcastsocks.cli import output, targets
from mcastsocks.cli.output import FileOutput, PlayerOutput
from mcastsocks.cli.targets import Format
from mcastsocks.client import Datagram
from mcastsocks.errors import RelayError

GROUP = parse_group("239.1.2.3:5004")
PIPE_OCTETS = 4096
DATA = bytes(1024)


class Pipe:
    """With room for a page."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_OCTETS)
        os.set_blocking(self.reader, False)

    async def read_until(self, finished: Callable[[], bool]) -> bytes:
        """All that comes until then."""
        octets = b""
        while not finished():
            await asyncio.sleep(0)
            octets += self._read()
        return octets + self._read()

    def _read(self) -> bytes:
        try:
            return os.read(self.reader, PIPE_OCTETS)
        except BlockingIOError:
            return b""

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    for descriptor in (pipe.reader, pipe.writer):
        if descriptor >= 0:
            os.close(descriptor)


def test_what_was_written_is_read(pipe: Pipe) -> None:
    async def main() -> None:
        out = FileOutput(pipe.writer, Format.raw)
        for data in (b"one,", b"", b"two"):
            out.write(GROUP, Datagram(data))
        await out.finish()
        assert (out.taken, out.written, out.written_octets) == (3, 3, 7)

    asyncio.run(main())
    assert os.read(pipe.reader, 100) == b"one,two"


def test_a_source_that_is_known_is_told_in_json(pipe: Pipe) -> None:
    async def main() -> None:
        out = FileOutput(pipe.writer, Format.json)
        out.write(GROUP, Datagram(b"RTP", parse_endpoint("192.0.2.1:5000")))
        await out.finish()

    asyncio.run(main())
    assert json.loads(os.read(pipe.reader, 1000)) == {
        "group": "239.1.2.3",
        "port": 5004,
        "source": "192.0.2.1:5000",
        "octets": 3,
        "data": "525450",
    }


def test_a_stalled_reader_holds_nobody_up_and_what_it_misses_is_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_LAST_WRITE_S", 0.05)

    async def main() -> None:
        out = FileOutput(pipe.writer, Format.raw)
        for _ in range(100):
            out.write(GROUP, Datagram(DATA))
        await out.close()
        assert out.taken == 100
        assert out.written <= PIPE_OCTETS // len(DATA)
        await pipe.read_until(out._finished.is_set)  # or the thread would be there when the pipe goes

    asyncio.run(main())


def test_the_oldest_go_when_the_queue_is_full(pipe: Pipe) -> None:
    async def main() -> None:
        out = FileOutput(pipe.writer, Format.raw, queued_octets=10 * (len(DATA) + 128))
        for number in range(100):
            out.write(GROUP, Datagram(number.to_bytes(2, "big") + DATA[2:]))
        finishing = asyncio.create_task(out.finish())
        read = await pipe.read_until(finishing.done)
        numbers = [int.from_bytes(read[start : start + 2], "big") for start in range(0, len(read), len(DATA))]
        assert numbers[-10:] == list(range(90, 100))
        assert numbers == sorted(set(numbers))
        assert len(numbers) == out.written < out.taken

    asyncio.run(main())


def test_a_reader_that_is_gone_is_an_error(pipe: Pipe) -> None:
    pipe.close_reader()

    async def main() -> None:
        out = FileOutput(pipe.writer, Format.raw)
        out.write(GROUP, Datagram(b"data"))
        with pytest.raises(BrokenPipeError):
            await out.finish()
        with pytest.raises(BrokenPipeError):
            out.write(GROUP, Datagram(b"data"))
        await out.close()
        assert (out.taken, out.written) == (1, 0)

    asyncio.run(main())


def test_data_reaches_the_player_as_it_is() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as player:
        player.bind(("127.0.0.1", 0))
        player.settimeout(10)
        out = PlayerOutput(targets.player(f"udp://127.0.0.1:{player.getsockname()[1]}"))
        for data in (b"one", b"", b"two\n"):
            out.write(GROUP, Datagram(data))
            assert player.recv(100) == data
        asyncio.run(out.close())
        assert (out.taken, out.written, out.written_octets) == (3, 3, 7)


def test_player_that_nothing_can_be_sent_to_is_an_error_with_its_reason() -> None:
    out = PlayerOutput(targets.player("udp://255.255.255.255:5004"))  # broadcast: not without asking for it
    with pytest.raises(RelayError, match=r"^--to: nothing can be sent there: Permission denied$"):
        out.write(GROUP, Datagram(b"data"))
    asyncio.run(out.close())
