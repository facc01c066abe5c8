"""The descriptor limit is raised as far as it goes, and shared out below it."""

from __future__ import annotations

import resource

import pytest

from mcastsocks.errors import ConfigError
from mcastsocks.server.descriptors import Descriptors, claim
from mcastsocks.server.sections import Limits

INFINITE = resource.RLIM_INFINITY


RESERVED = 128 + 2 * 16
"""For this and that, and for the pipes that streams are spliced through."""


@pytest.mark.parametrize(
    ("soft", "hard", "limit", "connections", "udp_sockets"),
    [
        (1024, 1_048_576, 1560, 400, 600),  # raised to what is wanted
        (1024, INFINITE, 1560, 400, 600),
        (INFINITE, INFINITE, 1560, 400, 600),
        (2000, 2000, 2000, 400, 600),  # never lowered
        (1024, 1028, 1028, 217, 434),  # connections first, up to a half
        (256, 528, 528, 92, 184),
        (100, 192, 192, 8, 16),
    ],
)
def test_limit_is_raised_and_shared_out(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, limit: int, connections: int, udp_sockets: int
) -> None:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: made.append(limits))
    claimed = claim(Limits(connections=400, udp_sockets=600))
    assert claimed == Descriptors(limit, connections, udp_sockets)
    assert made == [(limit, hard)]
    assert 2 * claimed.connections + claimed.udp_sockets + RESERVED <= limit


def test_a_connection_counts_two_and_so_does_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, INFINITE))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    assert claim(Limits(connections=1, udp_sockets=32, splice_pipes=0)).limit == 128 + 2 + 32
    assert claim(Limits(connections=1, udp_sockets=32, splice_pipes=5)).limit == 128 + 2 + 32 + 2 * 5
    assert claim(Limits(connections=9, udp_sockets=32, splice_pipes=0)).limit == 128 + 2 * 9 + 32


def test_tiny_limit_is_refused_with_the_command_that_raises_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 191))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(ConfigError, match="the limit of 191 descriptors is too low: ulimit -n 192 or more"):
        claim(Limits())


def test_what_was_claimed_is_told() -> None:
    assert str(Descriptors(1024, 400, 496)) == "1024 descriptors: at most 400 connections and 496 UDP sockets"
