"""OpenSSH by way of netcat, which knows SOCKS where ssh does not: `ProxyCommand nc -X 5`."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.program import needs, program
from tests.interop.socks import NAME, SILENT_PORT, SocksRelay, crossed
from tests.netns.lab import INSIDE, PORT, REMOTE, Host, Lab

SSHD = "/usr/sbin/sshd"  # it wants to be started by its whole name

pytestmark = needs(ssh="openssh-client", **{SSHD: "openssh-server", "nc.openbsd": "netcat-openbsd"})

SSH_PORT = 2222

_CONFIG = f"""
ListenAddress {REMOTE[4]}:{SSH_PORT}
HostKey {{folder}}/host
AuthorizedKeysFile {{folder}}/user.pub
AuthenticationMethods publickey
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
"""

_PRIVATE_RUN = 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$0" "$@"'
"""sshd insists on that folder; here it is in the mount namespace that `ip netns exec` made for it alone."""


def make_key(host: Host, file: Path) -> str:
    """A key pair without a passphrase; the public key."""
    host.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(file))
    return file.with_suffix(".pub").read_text()


@contextmanager
def sshd(lab: Lab, folder: Path) -> Iterator[None]:
    """A server outside that knows one user's key; files of its own only."""
    make_key(lab.outside, folder / "user")
    host_key = make_key(lab.outside, folder / "host")
    (folder / "known").write_text(f"[{NAME}]:{SSH_PORT} {host_key}")
    config = folder / "sshd_config"
    config.write_text(_CONFIG.format(folder=folder))
    with program(lab.outside, "sh", "-c", _PRIVATE_RUN, SSHD, "-D", "-e", "-f", str(config)) as server:
        server.wait_for("Server listening")
        yield


def ssh(lab: Lab, folder: Path, port: int, command: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return lab.client.run(
        *("timeout", "12", "ssh", "-F", "none", "-i", str(folder / "user"), "-o", "BatchMode=yes"),
        *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={folder / 'known'}"),
        *("-o", f"ProxyCommand=nc.openbsd -X 5 -x {INSIDE[4]}:{PORT} %h %p"),
        *("-p", str(port), f"root@{NAME}", command),
        input=data,
    )


def test_a_shell_outside_gives_back_all_that_is_written_to_it(
    lab: Lab, socks_relay: SocksRelay, tmp_path: Path
) -> None:
    data = random.Random(22).randbytes(3 << 20)
    with sshd(lab, tmp_path):
        assert ssh(lab, tmp_path, SSH_PORT, "cat", data).stdout == data
        record = socks_relay.ended("connect")
    assert record["remote"] == f"{NAME}:{SSH_PORT}", "netcat left the name to the relay"
    assert all(octets > len(data) for octets in crossed(record))


def test_an_exit_code_comes_back(lab: Lab, socks_relay: SocksRelay, tmp_path: Path) -> None:
    with sshd(lab, tmp_path):
        assert ssh(lab, tmp_path, SSH_PORT, "test -e /nowhere || exit 0").returncode == 0


def test_netcat_says_what_the_relay_refused(lab: Lab, socks_relay: SocksRelay) -> None:
    command = ("nc.openbsd", "-X", "5", "-x", f"{INSIDE[4]}:{PORT}", NAME, str(SILENT_PORT))
    with program(lab.client, *command) as netcat:
        assert netcat.finish() == 1
        assert "connection failed, SOCKSv5 error: Connection refused" in netcat.said
