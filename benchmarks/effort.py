"""How much is measured: the full set, or enough to see that it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """`quick` narrows the cases too. A search takes at most `steps` steps of `step_s`, each tried `tries` times."""

    rounds: int = 3
    step_s: float = 0.8
    steps: int = 8
    tries: int = 2
    quick: bool = False


FULL = Effort()
QUICK = Effort(rounds=1, step_s=0.25, steps=4, quick=True)
