"""Where it was measured: a figure without its machine says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mcastsocks

_PACKAGES = ("dante-server", "socat", "multicat")
_BUSY = 0.5


def machine() -> dict[str, str]:
    """What it is, what runs on it and how busy it is now."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ":unknown")
    return {
        "machine": f"{os.cpu_count()} x {model.partition(':')[2].strip()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "mcastsocks": mcastsocks.__version__,
        "numpy": _installed("numpy"),
        **{package: _debian(package) for package in _PACKAGES},
        "rmem_max": _sysctl("net/core/rmem_max"),
        "netdev_max_backlog": _sysctl("net/core/netdev_max_backlog"),
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def is_busy() -> bool:
    """Others compute here already."""
    return os.getloadavg()[0] > _BUSY


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _debian(package: str) -> str:
    try:
        asked = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return "unknown"
    return asked.stdout.strip() or "absent"


def _sysctl(name: str) -> str:
    return Path("/proc/sys", name).read_text().strip()
