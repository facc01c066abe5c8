"""One line an event, whatever is in it; and nobody waits for whoever reads them."""

from __future__ import annotations

import io
import json
import os
import re
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcastsocks.server import records
from mcastsocks.server.records import FORMATS, Records, WholeLines, as_json, as_keyvalue

WHEN = datetime(2030, 1, 2, 3, 4, 5, 678_999, UTC)
PATIENCE_S = 10
NASTY = [
    "a b",
    "",
    "a=b",
    'a"b',
    "a\\b",
    "a\nrelay-end",
    "a\r",
    "a\x00b",
    "\x1b[2J",
    "\x9b2J",
    "a\u2028b",
    "a\x85b",
    "é",
]


def read_keyvalue(line: str) -> dict[str, str]:
    """Another reading of the format: a value is bare, or a JSON string."""
    assert re.fullmatch(r'\S+ \S+( [a-z_.-]+=("([^"\\]|\\.)*"|[^\s"=\\]+))*', line), line
    pairs = re.findall(r' ([a-z_.-]+)=("(?:[^"\\]|\\.)*"|[^\s"=\\]+)', line)
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}


def test_keyvalue_is_a_time_an_event_and_pairs() -> None:
    line = as_keyvalue(WHEN, "session-end", {"user": "alice", "duration_s": 1.5, "associations": 2, "ok": True})
    assert line == "2030-01-02T03:04:05.678Z session-end user=alice duration_s=1.5 associations=2 ok=true"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("239.1.2.3:5004", "239.1.2.3:5004"),
        ("[ff15::1]:5004", "[ff15::1]:5004"),
        ("receive+send-group", "receive+send-group"),
        ("two words", '"two words"'),
        ("", '""'),
        ('say "no"', r'"say \"no\""'),
        ("a=b", '"a=b"'),
        ("a\\b", r'"a\\b"'),
        ("a\nb", r'"a\nb"'),
        ("é", r'"\u00e9"'),
    ],
)
def test_keyvalue_quotes_what_could_be_misread(value: str, written: str) -> None:
    assert as_keyvalue(WHEN, "e", {"k": value}) == f"2030-01-02T03:04:05.678Z e k={written}"


def test_json_carries_time_event_and_every_type() -> None:
    fields: dict[str, records.Value] = {"user": "a b", "octets": 3, "duration_s": 0.5, "ok": False}
    line = as_json(WHEN, "association-end", fields)
    assert json.loads(line) == {"time": "2030-01-02T03:04:05.678Z", "event": "association-end", **fields}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("user", NASTY)
def test_no_user_name_forges_a_line_or_a_field(format: str, user: str) -> None:
    line = FORMATS[format](WHEN, "refused", {"user": user, "why": "no"})
    assert line.isascii()
    assert line.isprintable()
    assert (json.loads if format == "json" else read_keyvalue)(line).items() >= {"user": user, "why": "no"}.items()


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["user", "why", "drop.runt"]), st.text()))
def test_any_text_comes_back_from_both_formats(fields: dict[str, Any]) -> None:
    plain, structured = as_keyvalue(WHEN, "e", fields), as_json(WHEN, "e", fields)
    assert plain.isascii()
    assert plain.isprintable()
    assert read_keyvalue(plain) == fields
    assert json.loads(structured).items() >= fields.items()


def test_fields_that_are_none_are_left_out() -> None:
    stream = io.StringIO()
    written = Records("json", stream)
    written.write("session-start", user=None, session=0, client="")
    written.close()
    assert json.loads(stream.getvalue()).keys() == {"time", "event", "session", "client"}


def test_records_are_written_in_order_and_before_close_returns() -> None:
    stream = io.StringIO()
    written = Records(stream=stream)
    for number in range(1000):
        written.write("e", n=number)
    written.close()
    assert [line.split(" n=")[1] for line in stream.getvalue().splitlines()] == [str(n) for n in range(1000)]


class Stuck(io.StringIO):
    """Nobody reads it until it is released; `has(n)` waits until n lines were read."""

    failing = False
    """No line is written, like on a full disk."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.released = threading.Event(), threading.Event()
        self.count = threading.Semaphore(0)

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.released.wait(PATIENCE_S)
        failing = self.failing  # before the test that waits for this line may change it
        self.count.release()
        if failing:
            raise OSError(28, "No space left on device")
        return super().write(text)

    def has(self, lines: int) -> bool:
        return all(self.count.acquire(timeout=PATIENCE_S) for _ in range(lines))

    @property
    def events(self) -> list[tuple[str, int]]:
        read = map(json.loads, self.getvalue().splitlines())
        return [(event["event"], event.get("records", event.get("n"))) for event in read]


def stuck_with_three_lost(monkeypatch: pytest.MonkeyPatch) -> tuple[Records, Stuck]:
    monkeypatch.setattr(records, "_QUEUED", 4)
    stream = Stuck()
    written = Records("json", stream)
    written.write("e", n=0)
    assert stream.entered.wait(PATIENCE_S)  # that one is out of the queue
    for number in range(1, 8):
        written.write("e", n=number)
    assert not stream.released.is_set()
    return written, stream


def test_slow_reader_blocks_nobody_and_what_it_lost_is_counted_before_the_next_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written, stream = stuck_with_three_lost(monkeypatch)
    stream.released.set()
    assert stream.has(5)
    written.write("e", n=8)
    written.close()
    assert stream.events == [*(("e", n) for n in range(5)), ("records-lost", 3), ("e", 8)]


def test_what_was_lost_is_counted_at_the_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    written, stream = stuck_with_three_lost(monkeypatch)
    stream.released.set()
    written.close()
    assert stream.events == [*(("e", n) for n in range(5)), ("records-lost", 3)]


def test_close_gives_up_on_a_reader_that_never_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_QUEUED", 1)
    monkeypatch.setattr(records, "_CLOSE_S", 0.05)
    stream = Stuck()
    written = Records(stream=stream)
    written.write("first")
    assert stream.entered.wait(PATIENCE_S)
    written.write("second")
    written.close()  # the queue is full, the thread is stuck
    assert stream.getvalue() == ""
    stream.released.set()


class Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.tried = error, 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left"), ValueError("closed file")])
def test_stream_that_broke_stops_nobody(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_QUEUED", 4)
    stream = Broken(error)
    written = Records(stream=stream)
    for number in range(100):
        written.write("e", n=number)
    written.close()
    assert stream.tried
    assert not written._thread.is_alive()


def full_disk() -> tuple[Records, Stuck]:
    stream = Stuck()
    stream.failing = True
    stream.released.set()
    return Records("json", stream), stream


def test_what_was_not_written_is_counted_before_the_next_that_is() -> None:
    written, stream = full_disk()
    for number in range(3):
        written.write("e", n=number)
    assert stream.has(3)  # the count of what was lost was tried before the second and the third
    stream.failing = False
    for number in range(3, 6):
        written.write("e", n=number)
    written.close()
    assert stream.events == [("records-lost", 3), ("e", 3), ("e", 4), ("e", 5)]


def test_count_of_what_a_slow_reader_lost_is_not_forgotten_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    written, stream = stuck_with_three_lost(monkeypatch)
    stream.released.set()
    assert stream.has(5)
    stream.failing = True
    written.write("e", n=8)  # behind the count of three
    assert stream.has(2)
    stream.failing = False
    written.write("e", n=9)
    written.close()
    assert stream.events == [*(("e", n) for n in range(5)), ("records-lost", 4), ("e", 9)]


def test_what_was_not_written_is_told_at_the_end_too() -> None:
    written, stream = full_disk()
    written.write("e", n=0)
    assert stream.has(1)
    stream.failing = False
    written.close()
    assert stream.events == [("records-lost", 1)]


def test_people_are_told_once_that_records_are_lost(capsys: pytest.CaptureFixture[str]) -> None:
    written, _ = full_disk()
    for number in range(40):
        written.write("e", n=number)
    written.close()
    assert capsys.readouterr().err == "mcastsocks: records are being lost: [Errno 28] No space left on device\n"


def test_fields_of_every_record_come_first_and_in_every_record() -> None:
    stream = io.StringIO()
    records = Records("keyvalue", stream, worker=3)
    records.write("relay-start", version="1")
    records.write("relay-end")
    records.close()
    assert [line.split()[1:] for line in stream.getvalue().splitlines()] == [
        ["relay-start", "worker=3", "version=1"],
        ["relay-end", "worker=3"],
    ]


def test_lines_of_several_writers_are_never_mixed() -> None:
    """Through one pipe, as from workers: more than it holds, by writes of more than one line."""
    out, into = os.pipe()
    read: list[bytes] = []

    def read_all() -> None:
        with open(out, "rb") as stream:
            read.append(stream.read())

    def write_all(name: str) -> None:
        lines = WholeLines(into)
        for number in range(2000):
            lines.write(f"{name} {number} {'x' * (number % 300)}\n")
        lines.flush()

    reader = threading.Thread(target=read_all)
    writers = [threading.Thread(target=write_all, args=(name,)) for name in "ab"]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join(PATIENCE_S)
    os.close(into)
    reader.join(PATIENCE_S)
    lines = [line.split(" ") for line in read[0].decode().splitlines()]
    for name in "ab":
        mine = [(int(number), len(rest)) for its, number, rest in lines if its == name]
        assert mine == [(number, number % 300) for number in range(2000)]
    assert len(lines) == 4000


def test_whole_lines_that_nobody_takes_now_are_tried_again() -> None:
    out, into = os.pipe()
    os.set_blocking(into, False)
    lines, line, written = WholeLines(into), "x" * 999 + "\n", 0
    with suppress(BlockingIOError):
        while written < 1000:
            lines.write(line)
            written += 1
    assert 60 < written < 100, "until the pipe was full"
    read = os.read(out, 1 << 16)
    lines.flush()
    os.close(into)
    while octets := os.read(out, 1 << 16):
        read += octets
    os.close(out)
    assert read.decode() == written * line
