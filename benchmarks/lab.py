"""Three namespaces and two veth pairs, the topology of every question.

        client                     relay                     remote
          .2 ──── veth "in" ──── .1     .1 ──── veth "out" ──── .2
              10.78.1.0/24                   10.78.2.0/24
              fd78:1::/64                    fd78:2::/64

The relay has a core of its own; what loads it and what counts behind it share the other one. Names are unique to the
run; what a killed run left behind is removed by the next.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pyroute2 import IPRoute, netns

from benchmarks.errors import BenchmarkError

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
CLIENT = {4: "10.78.1.2", 6: "fd78:1::2"}
INSIDE = {4: "10.78.1.1", 6: "fd78:1::1"}
BORDER = {4: "10.78.2.1", 6: "fd78:2::1"}
REMOTE = {4: "10.78.2.2", 6: "fd78:2::2"}
GROUP = "239.78.1.2"

_PAUSE_S, _TRIES = 0.05, 100
_PREFIX = "mcbench"
_PREFIX_LENGTH = {4: 24, 6: 64}


class Host:
    """One namespace, and the core that its programs run on."""

    def __init__(self, name: str, core: int) -> None:
        self.name, self.core = name, core

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the namespace; sockets made here stay in it."""
        netns.pushns(self.name)
        try:
            yield
        finally:
            netns.popns()

    def socket(self, version: int, kind: int = socket.SOCK_DGRAM, timeout_s: float = 10) -> socket.socket:
        with self.entered():
            sock = socket.socket(FAMILY[version], kind)
        sock.settimeout(timeout_s)
        return sock


class Lab:
    """The three hosts. Raises BenchmarkError without root, or with a single core."""

    def __init__(self) -> None:
        if reason := missing():
            raise BenchmarkError(reason)
        _remove_leftovers()
        run = f"{_PREFIX}-{os.getpid()}-{secrets.token_hex(3)}"
        ends, relay, *_ = sorted(os.sched_getaffinity(0))
        self.client, self.remote = Host(f"{run}-client", ends), Host(f"{run}-remote", ends)
        self.relay = Host(f"{run}-relay", relay)
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        try:
            for host in (self.client, self.relay, self.remote):
                self._add(host)
            _wire(self.client, CLIENT, self.relay, INSIDE, "in")
            _wire(self.remote, REMOTE, self.relay, BORDER, "out")
            _wait_for_link(self.client, CLIENT, self.relay, INSIDE)
            _wait_for_link(self.remote, REMOTE, self.relay, BORDER)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _add(self, host: Host) -> None:
        netns.create(host.name)
        self._stack.callback(_remove, host.name)
        with host.entered(), IPRoute() as route:
            Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
            route.link("set", index=route.link_lookup(ifname="lo")[0], state="up")


def missing() -> str | None:
    """Why no lab can be built here; None when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "root on Linux is needed, for network namespaces"
    if shutil.which("ip") is None:
        return "ip is needed: apt install iproute2"
    if len(os.sched_getaffinity(0)) < 2:
        return "two cores are needed: one for the relay, one for what loads it"
    return None


def _wire(near: Host, near_address: dict[int, str], far: Host, far_address: dict[int, str], link: str) -> None:
    with near.entered(), IPRoute() as route:
        route.link("add", ifname=link, kind="veth", peer={"ifname": link, "net_ns_fd": far.name})
    for host, addresses in ((near, near_address), (far, far_address)):
        with host.entered(), IPRoute() as route:
            index = route.link_lookup(ifname=link)[0]
            for version, address in addresses.items():
                route.addr("add", index=index, address=address, prefixlen=_PREFIX_LENGTH[version])
            route.link("set", index=index, state="up")


def _wait_for_link(near: Host, near_address: dict[int, str], far: Host, far_address: dict[int, str]) -> None:
    """A link that is up carries IPv6 only a moment later."""
    for version in FAMILY:
        with near.socket(version) as sender, far.socket(version, timeout_s=_PAUSE_S) as receiver:
            sender.bind((near_address[version], 0))
            receiver.bind((far_address[version], 0))
            for _ in range(_TRIES):
                with suppress(OSError):
                    sender.sendto(b"", receiver.getsockname())
                    receiver.recv(1)
                    break
            else:
                raise BenchmarkError(f"the link carries no IPv{version}")


def _remove_leftovers() -> None:
    for name in netns.listnetns():
        prefix, _, rest = name.partition("-")
        process = rest.partition("-")[0]
        if prefix == _PREFIX and process.isdigit() and not Path("/proc", process).exists():
            _remove(name)


def _remove(name: str) -> None:
    with suppress(OSError):
        netns.remove(name)
