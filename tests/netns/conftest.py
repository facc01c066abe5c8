"""Fixtures of the namespace tests: skipped by name without root or the packages they need."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.netns.lab import Lab, missing_packages, remove_leftovers
from tests.netns.relay import RelayProcess


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := missing_packages():
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def _leave_nothing_behind() -> Iterator[None]:
    """SIGTERM unwinds fixtures like ctrl-c does."""

    def terminate(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    remove_leftovers()
    before = signal.signal(signal.SIGTERM, terminate)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def lab(_leave_nothing_behind: None) -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def start_relay(lab: Lab, tmp_path: Path) -> Iterator[Callable[..., RelayProcess]]:
    """A function that starts a relay with more or other configuration; ended with the test."""
    started: list[RelayProcess] = []

    def start(**options: str) -> RelayProcess:
        started.append(RelayProcess(lab, tmp_path, **options))
        return started[-1]

    yield start
    for relay in started:
        relay.close()


@pytest.fixture
def relay(start_relay: Callable[..., RelayProcess]) -> RelayProcess:
    return start_relay()
