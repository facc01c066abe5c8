"""Other people's programs, unmodified, on both sides of the relay; the hosts are those of tests/netns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.socks import SocksRelay
from tests.netns.conftest import _leave_nothing_behind, lab, relay, start_relay
from tests.netns.lab import Lab, missing_packages

__all__ = ["_leave_nothing_behind", "lab", "relay", "start_relay"]

TEST_S = 15


@pytest.fixture
def socks_relay(lab: Lab, tmp_path: Path) -> Iterator[SocksRelay]:
    relay = SocksRelay(lab, tmp_path)
    yield relay
    relay.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here, reason = Path(__file__).parent, missing_packages()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_S))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
