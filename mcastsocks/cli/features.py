"""features: what a relay can do for whoever asks."""

from __future__ import annotations

import asyncio
import json
from enum import StrEnum
from itertools import groupby
from pathlib import Path

import typer

from mcastsocks.cli import targets
from mcastsocks.client import RelayUrl, list_features
from mcastsocks.wire.feature_words import about, words
from mcastsocks.wire.features import Feature, FeatureList

_COLUMN = 18


class Format(StrEnum):
    text = "text"
    json = "json"


def features(relay: str | None, config_file: Path | None, form: Format) -> None:
    url = targets.relay_url(relay, targets.client_config(config_file))
    listed = asyncio.run(list_features(url))
    typer.echo(_json(url, listed) if form is Format.json else _text(url, listed))


def _json(url: RelayUrl, listed: FeatureList) -> str:
    entries = [
        {"tag": each.tag, "subtag": each.subtag, "value": each.value.hex(), "about": about(each), "words": words(each)}
        for each in listed.features
    ]
    return json.dumps({"relay": str(url), "features": entries})


def _text(url: RelayUrl, listed: FeatureList) -> str:
    """A line for each thing that the list speaks about; one more for each that has a value."""
    lines = [str(url)]
    for heading, entries in groupby(listed.features, about):
        said = _said(list(entries))
        lines.append(f"  {heading:<{_COLUMN}}{said[0]}")
        lines += [f"  {'':<{_COLUMN}}{each}" for each in said[1:]]
    return "\n".join(lines)


def _said(entries: list[Feature]) -> list[str]:
    said = [words(each) for each in entries]
    return said if any(each.value for each in entries) else [", ".join(said)]
