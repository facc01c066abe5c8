"""Conversations with one end's machine, written line by line and played in any cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Generic, Protocol, TypeVar

from mcastsocks.errors import McastsocksError


class Machine(Protocol):
    def receive(self, octets: bytes) -> None: ...
    def next_event(self) -> Any: ...
    def octets_to_send(self) -> bytes: ...


_M = TypeVar("_M", bound=Machine)


@dataclass(frozen=True)
class Line(Generic[_M]):
    """The machine hears octets, reports an event (or raises), is told what to do, and says something back."""

    hears: bytes
    event: Any = None
    then: Callable[[_M], object] = lambda machine: None
    says: bytes = b""


@dataclass
class Transcript:
    events: list[Any] = field(default_factory=list)
    said: bytes = b""


def play(machine: _M, lines: Sequence[Line[_M]], segments: Iterable[bytes]) -> Transcript:
    """Let the machine hear the segments; each event gets the answer of its line. An error is an event, by class."""
    answers = (line.then for line in lines if line.event is not None)
    transcript = Transcript()
    for segment in segments:
        machine.receive(segment)
        while True:
            try:
                event = machine.next_event()
            except McastsocksError as error:
                event = type(error)
            if event is None:
                break
            transcript.events.append(event)
            next(answers)(machine)
        transcript.said += machine.octets_to_send()
    return transcript


def script(lines: Iterable[Line[_M]]) -> Transcript:
    """What has to come of the lines, however they are cut."""
    lines = list(lines)
    return Transcript([line.event for line in lines if line.event is not None], b"".join(line.says for line in lines))


def heard(lines: Iterable[Line[_M]]) -> bytes:
    return b"".join(line.hears for line in lines)


def cut(octets: bytes, places: Iterable[int]) -> list[bytes]:
    """The octets in segments that end at the places."""
    edges = [0, *sorted(set(places)), len(octets)]
    return [octets[start:end] for start, end in pairwise(edges)]
