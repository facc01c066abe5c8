"""A BitTorrent peer by libtorrent that speaks uTP alone, so that all its data are datagrams. Run as a program.

`seed FOLDER ADDRESS` offers FOLDER/file, described by FOLDER/torrent, and says where it listens.
`fetch FOLDER ADDRESS SEED-ADDRESS RELAY PORT USER PASSWORD` gets it through a SOCKS relay and says "complete".
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

PEER_PORT = 6881
PATIENCE_S = 12

lt: Any = import_module("libtorrent")  # it has no types

ALONE = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_tcp": False,
    "enable_outgoing_tcp": False,
    "alert_mask": lt.alert.category_t.all_categories,
}


def make_torrent(file: str, torrent: str) -> None:
    """Describe a file; no tracker, as the peers are told of each other."""
    described = lt.create_torrent(lt.list_files(file))
    lt.set_piece_hashes(described, file.rpartition("/")[0])
    with open(torrent, "wb") as output:
        output.write(lt.bencode(described.generate()))


def start(folder: str, address: str, **settings: Any) -> tuple[Any, Any]:
    session = lt.session({**ALONE, "listen_interfaces": f"{address}:{PEER_PORT}", **settings})
    described = lt.load_torrent_file(f"{folder}/torrent")
    described.save_path = folder
    return session, session.add_torrent(described)


def wait(session: Any, done: Any) -> None:
    """Until it is done; what libtorrent said meanwhile goes to standard error when it is not in time."""
    deadline, said = time.monotonic() + PATIENCE_S, []
    while not done():
        session.wait_for_alert(100)
        said += [alert.message() for alert in session.pop_alerts()]
        if time.monotonic() > deadline:
            sys.exit("\n".join(said[-50:]))


def seed(folder: str, address: str) -> None:
    session, torrent = start(folder, address)
    wait(session, lambda: torrent.status().is_seeding)
    print("seeding", flush=True)
    signal.pause()  # until whoever started it ends it


def fetch(folder: str, address: str, seed_address: str, relay: str, port: str, user: str, password: str) -> None:
    session, torrent = start(
        folder,
        address,
        proxy_type=lt.proxy_type_t.socks5_pw,
        proxy_hostname=relay,
        proxy_port=int(port),
        proxy_username=user,
        proxy_password=password,
        proxy_peer_connections=True,
    )
    torrent.connect_peer((seed_address, PEER_PORT))
    wait(session, lambda: torrent.status().is_seeding)
    print("complete", flush=True)


if __name__ == "__main__":
    peers: dict[str, Callable[..., None]] = {"seed": seed, "fetch": fetch}
    peers[sys.argv[1]](*sys.argv[2:])
