"""Counts that leave nothing behind at zero."""

import pytest

from mcastsocks.tables.tally import Tally


def test_a_key_is_forgotten_when_its_count_is_back_at_zero() -> None:
    tally: Tally[str] = Tally()
    for expected in (1, 2):
        tally.add("a")
        assert tally["a"] == expected
    tally.add("b")
    assert ("a" in tally, len(tally)) == (True, 2)
    for expected in (1, 0):
        tally.remove("a")
        assert tally["a"] == expected
    assert ("a" in tally, "b" in tally, len(tally)) == (False, True, 1)


def test_asking_counts_nothing() -> None:
    tally: Tally[str] = Tally()
    assert tally["a"] == 0
    assert len(tally) == 0


def test_what_is_not_counted_cannot_be_removed() -> None:
    tally: Tally[str] = Tally()
    with pytest.raises(KeyError):
        tally.remove("a")
    assert "a" not in tally
