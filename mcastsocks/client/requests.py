"""Requests on a control channel that wait for their replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from mcastsocks.errors import RelayError, RequestRefused
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply
from mcastsocks.wire.options import OptionType
from mcastsocks.wire.replies import ReplyCode, meaning

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Waiting:
    what: str
    take: Callable[[ControlReply], Any]
    answer: asyncio.Future[Any]


class Refused(RequestRefused):
    """With what FLAGS say of a refused BIND: whether a part of it could have been met (mcast §4.3.1)."""

    def __init__(self, message: str, reply: ControlReply) -> None:
        super().__init__(message, reply.code)
        self.is_possible_in_part = bool(reply.flags & BOTH_DIRECTIONS)


class Requests:
    """Those under way, by TID. One stays until its reply, whether or not somebody still waits for that."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        self._next_tid = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def tid(self) -> int:
        """A transaction id that no request waits under (mcast §4.2)."""
        if len(self._waiting) > 0xFFFF:
            raise RelayError("65,536 requests wait for an answer already")
        while True:
            self._next_tid = (self._next_tid + 1) & 0xFFFF
            if self._next_tid not in self._waiting:
                return self._next_tid

    def add(self, tid: int, what: str, take: Callable[[ControlReply], _T]) -> asyncio.Future[_T]:
        """A request was written. The future gets what `take` makes of a success, else a Refused."""
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._waiting[tid] = _Waiting(what, take, answer)
        return answer

    def answer(self, reply: ControlReply) -> None:
        """A reply was read. It takes effect at once, because datagrams may be right behind a grant."""
        waiting = self._waiting.pop(reply.tid, None)
        if waiting is None:
            return
        try:
            if reply.code != ReplyCode.SUCCEEDED:
                raise Refused(f"{waiting.what}: {_why(reply)}", reply)
            taken = waiting.take(reply)
        except RelayError as error:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)
        else:
            if not waiting.answer.done():
                waiting.answer.set_result(taken)

    def fail(self, error: RelayError) -> None:
        """No reply will come any more."""
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(error)
        self._waiting.clear()


def _why(reply: ControlReply) -> str:
    """The relay's REASON where it gave one, else the meaning of the code."""
    for option in reply.options:
        if option.kind == OptionType.REASON:
            return option.value.decode("utf-8", "replace")
    return meaning(reply.code)
