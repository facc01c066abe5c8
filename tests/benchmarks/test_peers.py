"""Peers of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.errors import Absent
from benchmarks.lab import Lab
from benchmarks.paths import Case
from benchmarks.subjects.catalogue import Choice
from benchmarks.subjects.peers import PEERS, named


def test_known_peer_keeps_its_configuration() -> None:
    peer = named("hev", "/opt/hev/bin/hev-socks5-server")
    assert peer.command == ("/opt/hev/bin/hev-socks5-server", "{config}")
    assert peer.config == PEERS["hev"].config


def test_unknown_peer_is_its_command() -> None:
    assert named("other", "other -l {inside} -p {port}").command == ("other", "-l", "{inside}", "-p", "{port}")


def test_peer_of_the_command_line_takes_the_place_of_the_known_one() -> None:
    names = [subject.name for subject in Choice(["portable"], {"hev": "/opt/hev"}).socks_relays()]
    assert names.count("hev") == 1


def test_peer_that_is_not_installed_is_absent(lab: Lab, tmp_path: Path) -> None:
    with (
        pytest.raises(Absent, match="no-such-relay is not installed"),
        named("other", "no-such-relay").serving(lab, Case(), tmp_path),
    ):
        pass


def test_peer_that_ends_at_once_is_absent_with_its_last_words(lab: Lab, tmp_path: Path) -> None:
    with (
        pytest.raises(Absent, match="no licence"),
        named("other", "sh -c 'echo no licence; exit 1'").serving(lab, Case(), tmp_path),
    ):
        pass
