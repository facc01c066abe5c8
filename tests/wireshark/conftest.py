"""Skips by name where tshark is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netns.conftest import _leave_nothing_behind, lab, relay, start_relay
from tests.wireshark import tshark

__all__ = ["_leave_nothing_behind", "lab", "relay", "start_relay"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := tshark.missing():
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))
