"""The programs in C: compiled here when they are first needed, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from benchmarks.errors import BenchmarkError

_SOURCES = Path(__file__).parent / "c"
_OPTIONS = ("-O2", "-std=c11", "-Wall", "-Wextra")


def compiler() -> str | None:
    """The one that CC names, else cc; None when there is none."""
    return shutil.which(os.environ.get("CC", "cc"))


@cache
def program(name: str) -> str:
    """The path of "generator", "sink" or "limit". Raises BenchmarkError without a compiler."""
    if (found := compiler()) is None:
        raise BenchmarkError("a C compiler is needed for the generator: apt install gcc libc6-dev, or set CC")
    source, common = _SOURCES / f"{name}.c", _SOURCES / "common.h"
    digest = hashlib.sha256(
        b"".join([source.read_bytes(), common.read_bytes(), found.encode(), *map(str.encode, _OPTIONS)])
    )
    target = _cache() / f"{name}-{digest.hexdigest()[:16]}"
    if not target.exists():
        beside = target.with_suffix(f".{os.getpid()}")  # another run may compile the same
        made = subprocess.run([found, *_OPTIONS, "-o", beside, source], capture_output=True, text=True, check=False)
        if made.returncode:
            raise BenchmarkError(f"{found} does not compile {source.name}: {made.stderr.strip()}")
        beside.rename(target)
    return str(target)


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root, "mcastsocks-benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
