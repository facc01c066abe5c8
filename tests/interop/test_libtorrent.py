"""Two BitTorrent peers by libtorrent, one outside and one behind the relay, exchange a file by uTP."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import pytest

from tests.interop.program import program
from tests.interop.socks import PASSWORD, USER, SocksRelay
from tests.netns.lab import CLIENT, INSIDE, PORT, REMOTE, Lab

PEER = "tests.interop.torrent_peer"
OCTETS = 1 << 20


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_crosses_by_utp_in_datagrams_alone(lab: Lab, socks_relay: SocksRelay, tmp_path: Path) -> None:
    pytest.importorskip("libtorrent", reason="needs libtorrent from PyPI")
    from tests.interop.torrent_peer import make_torrent

    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside):
        folder.mkdir()
    (outside / "file").write_bytes(random.Random(1).randbytes(OCTETS))
    for folder in (outside, inside):
        make_torrent(str(outside / "file"), str(folder / "torrent"))
    fetch = (str(inside), CLIENT[4], REMOTE[4], INSIDE[4], str(PORT), USER, PASSWORD)
    with program(lab.outside, sys.executable, "-m", PEER, "seed", str(outside), REMOTE[4]) as seed:
        seed.wait_for("^seeding")
        with program(lab.client, sys.executable, "-m", PEER, "fetch", *fetch) as peer:
            assert peer.finish() == 0, peer.said
    assert sha256(inside / "file") == sha256(outside / "file")

    record = socks_relay.wait_for_record("udp-associate-end", user=USER)
    assert record["to_client_octets"] > OCTETS, "the file, and what uTP puts around it"
    assert record["to_remote_datagrams"] > 10, "and its acknowledgements"
    assert record["dropped_datagrams"] == 0
    assert not [each for each in socks_relay.records if each["event"] == "connect-start"], "nothing of it by TCP"
