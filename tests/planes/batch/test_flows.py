"""Batches as flows: what is looked at, in what order things are done, and what is remembered meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mcastsocks.planes.batch import flows
from mcastsocks.planes.batch.flows import Flows, flows_of, sort_out
from mcastsocks.planes.batch.layouts import Ints


class Rows:
    """Rows that run out, for names of one letter; capitals are not ordinary."""

    def __init__(self, room: int = 100) -> None:
        self.found: list[str] = []
        self.done: list[object] = []
        self._rows: dict[str, int] = {}
        self._room = room

    @property
    def is_full(self) -> bool:
        return len(self._rows) == self._room

    def clear(self) -> None:
        self._rows.clear()
        self.done.append("clear")

    def sort_out(self, letters: str) -> list[object]:
        """A letter for each datagram."""

        def find(index: int, _: bytes) -> int:
            self.found.append(letters[index])
            return self._rows.setdefault(letters[index], len(self._rows) + 1) if letters[index].islower() else 0

        def many(start: int, end: int, rows: Ints) -> None:
            by_row = {row: letter for letter, row in self._rows.items()}
            assert "".join(by_row[row] for row in rows.tolist()) == letters[start:end]
            self.done.append(letters[start:end])

        sort_out(flows_named(letters), self, find, many, self.done.append)
        return self.done


def flows_named(letters: str) -> Flows:
    plain = np.array([letter.islower() for letter in letters])
    return flows_of(np.array([[ord(letter), 7] for letter in letters], np.uint64), plain)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few there are between others."""
    monkeypatch.setattr(flows, "FEW", 0)


@pytest.mark.parametrize(
    ("letters", "starts", "ends"),
    [
        ("a", [0], [1]),
        ("aaab", [0, 3], [3, 4]),
        ("aXXa", [0, 1, 2, 3], [1, 2, 3, 4]),
        ("abab", [0, 1, 2, 3], [1, 2, 3, 4]),
    ],
)
def test_neighbours_that_are_alike_and_plain_are_a_flow(letters: str, starts: list[int], ends: list[int]) -> None:
    found = flows_named(letters)
    assert (found.starts, found.ends) == (starts, ends)
    assert [bool(name) for name in found.names] == [letters[start].islower() for start in starts]


def test_every_word_counts() -> None:
    words = np.array([[1, 2, 3], [1, 2, 3], [1, 2, 4], [1, 5, 4], [6, 5, 4]], np.uint64)
    assert flows_of(words, np.ones(5, np.bool_)).starts == [0, 2, 3, 4]


def test_what_is_all_ordinary_goes_at_once_and_each_flow_is_looked_up_once() -> None:
    rows = Rows()
    assert rows.sort_out("aabbaab") == ["aabbaab"]
    assert rows.found == ["a", "b"]


@pytest.mark.usefixtures("eager")
def test_order_is_kept_and_what_was_found_is_looked_up_again_behind_others() -> None:
    rows = Rows()
    assert rows.sort_out("aabXYaX") == ["aab", 3, 4, "a", 6]
    assert rows.found == ["a", "b", "X", "Y", "a", "X"]


def test_few_between_others_go_one_by_one() -> None:
    assert Rows().sort_out("aaX" + "b" * 8 + "Xa") == [0, 1, 2, "b" * 8, 11, 12]


@pytest.mark.parametrize("letters", ["X", "XX"])
def test_nothing_ordinary(letters: str) -> None:
    assert Rows().sort_out(letters) == list(range(len(letters)))


@pytest.mark.usefixtures("eager")
def test_a_full_table_is_cleared_when_nothing_is_pending() -> None:
    rows = Rows(room=2)
    done: Sequence[object] = rows.sort_out("abacad")
    assert done == ["aba", "clear", "ca", "clear", "d"]
