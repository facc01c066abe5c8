"""Namespaces, veth pairs, captures and processes: a firewall topology of one's own.

        client                          relay                          outside
    .2, .3 and .4 ── veth "in" ── .1  forwarding  .1 ── veth "out" ── .2 and .3
     10.77.1.0/24                      is off           10.77.2.0/24
     fd77:1::/64                                         fd77:2::/64

Only the relay crosses. Names are unique to the run; what a killed run left behind is removed by the next.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ctypes import addressof, c_char
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute, netns

_T = TypeVar("_T")

WAIT_S = 10.0
PREFIX = "mcs"
_CONFIGURATION = Path("/etc/netns")
_TCP_LINGERING = ("06",)  # TIME_WAIT: nobody's any more
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

CLIENT = {4: "10.77.1.2", 6: "fd77:1::2"}
SECOND = {4: "10.77.1.3", 6: "fd77:1::3"}
THIRD = {4: "10.77.1.4", 6: "fd77:1::4"}
INSIDE = {4: "10.77.1.1", 6: "fd77:1::1"}
BORDER = {4: "10.77.2.1", 6: "fd77:2::1"}
REMOTE = {4: "10.77.2.2", 6: "fd77:2::2"}
STRANGER = {4: "10.77.2.3", 6: "fd77:2::3"}
GROUP = {4: "239.77.1.2", 6: "ff15::77:1"}
ANNEX_BORDER = {4: "10.77.3.1", 6: "fd77:3::1"}
ANNEX = {4: "10.77.3.2", 6: "fd77:3::2"}
PORT = 1080


def wait_for(what: str, condition: Callable[[], _T], timeout_s: float = WAIT_S) -> _T:
    """The first true value of a condition; AssertionError naming it when there is none in time."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}")
        pause.wait(0.005)
    return value


class Host:
    """One namespace."""

    def __init__(self, name: str) -> None:
        self.name = name

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the namespace; sockets made here stay in it."""
        netns.pushns(self.name)
        try:
            yield
        finally:
            netns.popns()

    def open_socket(self, version: int, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        with self.entered():
            sock = socket.socket(FAMILY[version], kind)
        sock.settimeout(WAIT_S)
        return sock

    def udp(self, address: str, port: int = 0) -> socket.socket:
        """A bound UDP socket."""
        version = 6 if ":" in address else 4
        sock = self.open_socket(version)
        sock.bind((address, port))
        return sock

    def call(self, function: Callable[[], _T]) -> _T:
        """Run a function in a thread of its own inside the namespace."""
        results: list[_T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                with self.entered():
                    results.append(function())
            except BaseException as error:  # handed on below
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["ip", "netns", "exec", self.name, *arguments], **options)

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        command = ["ip", "netns", "exec", self.name, *arguments]
        return subprocess.run(command, check=True, capture_output=True, timeout=60, **options)

    def read(self, path: str) -> str:
        """A file of /proc as this namespace sees it."""
        return self.call(Path(path.replace("/proc/", "/proc/thread-self/", 1)).read_text)

    def write(self, path: str, value: str) -> None:
        """The same for writing, a sysctl say."""
        with self.entered():
            Path(path).write_text(value)

    @contextmanager
    def asking(self, nameserver: str) -> Iterator[None]:
        """Programs that are started meanwhile resolve names there, and nowhere else (ip-netns(8))."""
        folder = _CONFIGURATION / self.name
        folder.mkdir(parents=True)
        (folder / "resolv.conf").write_text(f"nameserver {nameserver}\n")
        (folder / "nsswitch.conf").write_text("hosts: files dns\n")
        try:
            yield
        finally:
            _remove_configuration(self.name)

    @contextmanager
    def filtering(self, rule: str, hook: str = "input") -> Iterator[None]:
        """A rule of nftables for what comes in, or goes out."""
        chain = f"chain filtering {{\ntype filter hook {hook} priority 0\n{rule}\n}}"
        self.run("nft", "-f", "-", input=f"table inet filtering {{\n{chain}\n}}\n".encode())
        try:
            yield
        finally:
            self.run("nft", "delete table inet filtering")

    def sockets(self, protocol: str, address: str, port: int) -> int:
        """How many sockets, "udp" or "tcp", have this local address and port; a port of 0 is any."""
        version = 6 if ":" in address else 4
        packed = socket.inet_pton(FAMILY[version], address)
        words = "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))
        lines = self.read(f"/proc/net/{protocol}{'6' if version == 6 else ''}").splitlines()[1:]
        found = [line.split()[1].split(":") for line in lines if line.split()[3] not in _TCP_LINGERING]
        return sum(host == words and port in (0, int(number, 16)) for host, number in found)

    def memberships(self, version: int, interface: str) -> dict[str, int]:
        """Groups that the kernel holds on an interface, with the number of sockets that joined each."""
        held: dict[str, int] = {}
        if version == 6:
            for line in self.read("/proc/net/igmp6").splitlines():
                _, name, group, users, *_ = line.split()
                if name == interface:
                    held[socket.inet_ntop(socket.AF_INET6, bytes.fromhex(group))] = int(users)
            return held
        current = ""
        for line in self.read("/proc/net/igmp").splitlines()[1:]:
            fields = line.split()
            if not line.startswith("\t"):
                current = fields[1]
            elif current == interface:
                group = socket.inet_ntoa(struct.pack("=I", int(fields[0], 16)))
                held[group] = int(fields[1])
        return held


class Capture:
    """Every frame on an interface, both ways, as scapy layers, from the moment of its making."""

    def __init__(self, host: Host, interface: str) -> None:
        with host.entered():
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
            self._sock.bind((interface, 0))
        self._sock.settimeout(0.2)
        self._frames: list[bytes] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sock.close()

    def packets(self, wanted: Callable[[Any], bool]) -> list[Any]:
        from scapy.layers.l2 import Ether

        return [packet for packet in map(Ether, list(self._frames)) if wanted(packet)]

    def wait_for(self, what: str, wanted: Callable[[Any], bool], count: int = 1) -> list[Any]:
        """At least `count` wanted packets."""

        def enough() -> list[Any]:
            found = self.packets(wanted)
            return found if len(found) >= count else []

        return wait_for(f"{what} on the wire", enough)

    def _read(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                self._frames.append(self._sock.recv(1 << 17))


class Lab:
    """The three hosts."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        run = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(3)}"
        self.client, self.relay, self.outside = (self._host(f"{run}-{name}") for name in ("client", "relay", "outside"))

    def __enter__(self) -> Lab:
        try:
            self._wire(self.client, self.relay, "in", (CLIENT, SECOND, THIRD), (INSIDE,))
            self._wire(self.outside, self.relay, "out", (REMOTE, STRANGER), (BORDER,))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def unplug_outside(self) -> None:
        """The relay's outside interface is gone, with all that it had joined."""
        with self.outside.entered(), IPRoute() as route:
            route.link("del", index=route.link_lookup(ifname="out")[0])

    def plug_outside(self) -> None:
        """It is there again, with the same addresses and another index."""
        self._wire(self.outside, self.relay, "out", (REMOTE, STRANGER), (BORDER,))

    def replug_inside(self) -> None:
        """The relay's inside interface goes and comes back, with the same addresses and another index."""
        with self.client.entered(), IPRoute() as route:
            route.link("del", index=route.link_lookup(ifname="in")[0])
        self._wire(self.client, self.relay, "in", (CLIENT, SECOND, THIRD), (INSIDE,))

    @contextmanager
    def annex(self) -> Iterator[Host]:
        """A second outside, behind the relay's interface "out2"; its host also has the address of the first one's."""
        host = self._host(f"{self.relay.name}-annex")
        self.plug_annex(host)
        try:
            yield host
        finally:
            with self.relay.entered(), IPRoute() as route:  # at once: what a namespace takes with it goes when it likes
                for index in route.link_lookup(ifname="out2"):
                    route.link("del", index=index)
            _remove(host.name)

    def plug_annex(self, host: Host) -> None:
        self._wire(host, self.relay, "out2", (ANNEX, REMOTE), (ANNEX_BORDER,))

    def restore_client_link(self) -> None:
        """After a test took it down; IPv6 addresses went with it."""
        _bring_up(self.client, "in", (CLIENT, SECOND, THIRD))

    @contextmanager
    def client_cut(self) -> Iterator[None]:
        """The client's end of the link is down; the relay's keeps its addresses."""
        _take_down(self.client, "in")
        try:
            yield
        finally:
            self.restore_client_link()

    @contextmanager
    def outside_cut(self) -> Iterator[None]:
        """The same for the outside's."""
        _take_down(self.outside, "out")
        try:
            yield
        finally:
            _bring_up(self.outside, "out", (REMOTE, STRANGER))

    def _host(self, name: str) -> Host:
        netns.create(name)
        self._stack.callback(_remove, name)
        host = Host(name)
        with host.entered():
            _set("net/ipv4/ip_forward", 0)
            _set("net/ipv6/conf/all/forwarding", 0)
            _set("net/ipv6/conf/default/accept_dad", 0)
        with host.entered(), IPRoute() as route:
            route.link("set", index=route.link_lookup(ifname="lo")[0], state="up")
        return host

    def _wire(
        self,
        near: Host,
        far: Host,
        link: str,
        near_addresses: tuple[dict[int, str], ...],
        far_addresses: tuple[dict[int, str], ...],
    ) -> None:
        """A veth pair with the same name at both ends, checksums done by the stack and not put off."""
        with near.entered(), IPRoute() as route:
            route.link("add", ifname=link, kind="veth", peer={"ifname": link, "net_ns_fd": far.name})
        for host, addresses in ((near, near_addresses), (far, far_addresses)):
            with host.entered(), IPRoute() as route:
                # The kernel repeats its reports within this time: short, so that tests need not wait.
                _set(f"net/ipv4/conf/{link}/igmpv3_unsolicited_report_interval", 50)
                _set(f"net/ipv6/conf/{link}/mldv2_unsolicited_report_interval", 50)
                _checksum_in_software(link)
                index = route.link_lookup(ifname=link)[0]
                for address in addresses:
                    route.addr("add", index=index, address=address[4], prefixlen=24)
                    route.addr("add", index=index, address=address[6], prefixlen=64)
                route.link("set", index=index, state="up")


def remove_leftovers() -> None:
    """Namespaces of runs whose process is gone."""
    for name in netns.listnetns():
        prefix, _, rest = name.partition("-")
        process = rest.partition("-")[0]
        if prefix == PREFIX and process.isdigit() and not Path("/proc", process).exists():
            _remove(name)


def missing_packages() -> str | None:
    """Why namespace tests cannot run here; None when they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, for network namespaces"
    packages = {"ip": "iproute2", "nft": "nftables", "tcpdump": "tcpdump", "tshark": "tshark"}
    missing = [package for program, package in packages.items() if shutil.which(program) is None]
    return f"needs the Debian packages: apt install {' '.join(missing)}" if missing else None


def _remove(name: str) -> None:
    _remove_configuration(name)
    with suppress(OSError):
        netns.remove(name)


def _remove_configuration(name: str) -> None:
    shutil.rmtree(_CONFIGURATION / name, ignore_errors=True)
    with suppress(OSError):  # others have theirs there
        _CONFIGURATION.rmdir()


def _take_down(host: Host, link: str) -> None:
    with host.entered(), IPRoute() as route:
        route.link("set", index=route.link_lookup(ifname=link)[0], state="down")


def _bring_up(host: Host, link: str, addresses: tuple[dict[int, str], ...]) -> None:
    with host.entered(), IPRoute() as route:
        index = route.link_lookup(ifname=link)[0]
        route.link("set", index=index, state="up")
        for address in addresses:
            route.addr("replace", index=index, address=address[6], prefixlen=64)


def _set(name: str, value: int) -> None:
    Path("/proc/sys", name).write_text(str(value))


def _checksum_in_software(interface: str) -> None:
    """Otherwise a capture shows checksums that nobody has computed yet (ethtool -K INTERFACE tx off)."""
    siocethtool, ethtool_stxcsum = 0x8946, 0x17
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        value = bytearray(struct.pack("=II", ethtool_stxcsum, 0))
        buffer = (c_char * len(value)).from_buffer(value)
        request = struct.pack("@16sP16x", interface.encode(), addressof(buffer))
        fcntl.ioctl(sock.fileno(), siocethtool, request)
