"""AIDs: never zero, never two at once, not soon again, not to be guessed."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.errors import LocalError
from mcastsocks.tables.aids import AidPool
from tests.wire.strategies import quick


class Zeros(Random):
    """The worst luck: every draw is the first slot and no high bits."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return 0

    def getrandbits(self, k: int, /) -> int:
        return 0


def slot(pool: AidPool, aid: int) -> int:
    return aid & ((1 << pool.slot_bits) - 1)


@pytest.mark.parametrize(
    ("capacity", "slot_bits"), [(1, 8), (128, 8), (129, 9), (1000, 11), (1024, 11), (1025, 12), (100_000, 18)]
)
def test_there_are_at_least_twice_as_many_slots_as_associations(capacity: int, slot_bits: int) -> None:
    assert AidPool(capacity).slot_bits == slot_bits
    assert 1 << slot_bits >= max(256, 2 * capacity)


def test_every_slot_is_drawn_once_before_the_pool_is_empty() -> None:
    pool = AidPool(1, Random(1))
    aids = [pool.draw() for _ in range(256)]
    assert {slot(pool, aid) for aid in aids} == set(range(256))
    assert all(0 < aid < 2**32 for aid in aids)
    with pytest.raises(LocalError, match="in use"):
        pool.draw()
    pool.give_back(aids[7])
    assert slot(pool, pool.draw()) == slot(pool, aids[7])


def test_aid_is_never_zero_even_with_the_worst_luck() -> None:
    pool = AidPool(1, Zeros())
    aids = {pool.draw() for _ in range(256)}
    assert len(aids) == 256
    assert 0 not in aids


def test_a_slot_rests_while_as_many_others_as_may_be_open_are_used() -> None:
    """One association, opened and closed again and again: the shortest way back to a slot."""
    capacity = 128
    pool = AidPool(capacity, Random(2))
    last_seen: dict[int, int] = {}
    for turn in range(5000):
        aid = pool.draw()
        assert turn - last_seen.get(slot(pool, aid), -capacity) >= capacity
        last_seen[slot(pool, aid)] = turn
        pool.give_back(aid)
    assert len(last_seen) == 256


@quick
@given(st.randoms(use_true_random=False), st.lists(st.booleans(), max_size=300))
def test_no_two_associations_share_a_slot(random: Random, steps: list[bool]) -> None:
    pool, held = AidPool(1, Random(random.random())), list[int]()
    for draw in steps:
        if (draw or not held) and len(held) < 256:
            held.append(pool.draw())
        else:
            pool.give_back(held.pop(random.randrange(len(held))))
        assert len({slot(pool, aid) for aid in held}) == len(held)


def test_seeds_give_other_aids_and_the_default_is_no_seed_at_all() -> None:
    def first(random: Random | None) -> list[int]:
        pool = AidPool(1000, random)
        return [pool.draw() for _ in range(20)]

    assert first(Random(1)) == first(Random(1))
    drawn = [first(Random(1)), first(Random(2)), first(None), first(None)]
    assert len({aid for aids in drawn for aid in aids}) == 80


def test_every_bit_of_an_aid_is_as_often_set_as_not() -> None:
    pool = AidPool(4096, Random(3))
    aids = [pool.draw() for _ in range(4096)]
    for bit in range(32):
        assert 0.45 < sum(aid >> bit & 1 for aid in aids) / len(aids) < 0.55
    assert len({later - earlier for earlier, later in pairwise(aids)}) > 4000  # no counter behind it


def test_a_slot_comes_back_with_other_high_bits() -> None:
    pool = AidPool(1, Random(4))
    aids = []
    for _ in range(5000):
        aids.append(pool.draw())
        pool.give_back(aids[-1])
    assert len(set(aids)) > 4990
