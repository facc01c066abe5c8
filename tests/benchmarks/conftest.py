"""What a lab or a compiler is needed for is skipped by name without them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.lab import Lab, missing
from benchmarks.programs import compiler


@pytest.fixture(scope="session")
def _able() -> None:
    if compiler() is None:
        pytest.skip("needs a C compiler: apt install gcc libc6-dev")
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture
def able(_able: None) -> None:
    """Questions can be answered here."""


@pytest.fixture(scope="module")
def lab(_able: None) -> Iterator[Lab]:
    with Lab() as lab:
        yield lab
