"""How join and send connect again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from mcastsocks.cli import datagrams
from mcastsocks.client import ConnectionLost, RelayUrl
from mcastsocks.wire.features import FeatureList


@pytest.mark.parametrize(("features", "again"), [(None, False), (FeatureList(()), True)])
def test_relay_that_knows_no_features_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, features: FeatureList | None, again: bool
) -> None:
    asked: list[bool] = []

    @asynccontextmanager
    async def connected(url: RelayUrl, *, ask_features: bool) -> AsyncIterator[Any]:
        asked.append(ask_features)
        yield SimpleNamespace(features=features)

    async def work(relay: Any) -> None:
        if len(asked) < 3:
            raise ConnectionLost("the relay was restarted")

    monkeypatch.setattr(datagrams, "connect", connected)
    monkeypatch.setattr(datagrams, "_RETRY_FIRST_S", 0)
    asyncio.run(datagrams._reconnecting(RelayUrl("fw.example"), work))
    assert asked == [True, again, again]
