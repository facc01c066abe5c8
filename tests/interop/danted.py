"""Dante's server in the relay's namespace, on another port than ours, with rules like ours."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.program import Program, program
from tests.interop.socks import FORBIDDEN_PORT
from tests.netns.lab import INSIDE, Lab

DANTED = "/usr/sbin/danted"
DANTE_PORT = 1980

_CONFIG = f"""
logoutput: stderr
internal: {INSIDE[4]} port = {DANTE_PORT}
external: out
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks block {{ from: 0.0.0.0/0 to: 0.0.0.0/0 port = {FORBIDDEN_PORT} command: connect }}
socks pass {{
    from: 0.0.0.0/0 to: 0.0.0.0/0
    command: bind connect udpassociate bindreply udpreply
}}
"""

_ALONE = 'mount -t tmpfs none /run && exec unshare --pid --fork "$0" "$@"'
"""Its process id file is in the mount namespace that `ip netns exec` made for it alone; its many processes are in a
namespace too, which ends with the first of them."""


@contextmanager
def danted(lab: Lab, folder: Path) -> Iterator[Program]:
    config = folder / "danted.conf"
    config.write_text(_CONFIG)
    with program(lab.relay, "sh", "-c", _ALONE, DANTED, "-f", str(config)) as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        try:
            server.wait_for("running")
            yield server
        finally:
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGTERM)
            server.finish()
