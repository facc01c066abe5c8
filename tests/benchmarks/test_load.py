"""The generator and the sink against each other, without a relay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path as File

import pytest

from benchmarks.lab import Lab
from benchmarks.load import load
from benchmarks.paths import Case
from benchmarks.subjects.limits import CLoop, Direct


@pytest.mark.parametrize(
    "case",
    [
        Case(associations=3),
        Case(associations=3, run=16),
        Case(associations=3, run=16, coalesced=True),
        Case(associations=5, thin=True, version=6),
        Case(associations=2, inward=True, payload_octets=1316),
        Case(associations=1, receivers=4),
    ],
    ids=str,
)
def test_everything_sent_is_counted(lab: Lab, tmp_path: File, case: Case) -> None:
    with Direct().serving(lab, case, tmp_path) as path:
        outcome = load(path, case, 5_000, 0.1)
    assert 0 < outcome.sent == outcome.received
    assert outcome.sent % case.run == 0
    assert not outcome.disordered
    assert 0 < outcome.p50_us <= outcome.p99_us


def test_pace_is_kept_from_below(lab: Lab, tmp_path: File) -> None:
    with Direct().serving(lab, Case(), tmp_path) as path:
        assert load(path, Case(), 2_000, 0.2).sent <= 2_000 * 0.2 + 1


def test_loss_is_seen(lab: Lab, tmp_path: File) -> None:
    case = Case(associations=2)
    with Direct().serving(lab, case, tmp_path) as path:
        outcome = load(replace(path, listeners=path.listeners[:1]), case, 5_000, 0.1)
    assert abs(outcome.lost - outcome.sent / 2) <= 1


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("version", [4, 6])
def test_loop_in_c_relays(lab: Lab, tmp_path: File, checked: bool, version: int) -> None:
    case = Case(associations=1, run=4, version=version)
    with CLoop(checked=checked).serving(lab, case, tmp_path) as path:
        outcome = load(path, case, 5_000, 0.1)
    assert 0 < outcome.sent == outcome.received
    assert outcome.cpu_ns > 0


def test_loop_in_c_drops_what_it_checks(lab: Lab, tmp_path: File) -> None:
    case = Case(associations=1)
    with CLoop(checked=True).serving(lab, case, tmp_path) as path:
        flow = path.flows[0]
        strangers = [
            replace(flow, header=flow.header[:-1] + bytes([flow.header[-1] ^ 0x40])),
            replace(flow, header=b"\x80" + flow.header[1:]),
            replace(flow, header=b"\x00\x81" + flow.header[2:]),
            replace(flow, source=(flow.source[0], flow.source[1] + 1)),
        ]
        outcome = load(replace(path, flows=[*strangers, flow]), case, 5_000, 0.1)
    assert 0 < outcome.received <= outcome.sent / 5 + 1
    said = (tmp_path / "limit.log").read_text()
    assert "unknown AID" in said
    for word in ("reserved bits 0", "fragment 0", "unknown AID 0", "wrong source 0"):
        assert word not in said
