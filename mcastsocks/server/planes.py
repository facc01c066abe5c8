"""Which plane moves the datagrams."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from mcastsocks.errors import McastsocksError
from mcastsocks.planes.interface import Outside, Plane, PlaneOptions
from mcastsocks.planes.portable import PortablePlane


class CannotStart(McastsocksError):
    """With the reason, for the operator."""


def start(kind: str, loop: asyncio.AbstractEventLoop, outsides: Mapping[str, Outside], options: PlaneOptions) -> Plane:
    """The plane of that kind; for "auto" the first that this system has what it needs for. Raises CannotStart."""
    if kind == "portable":
        return PortablePlane(loop, outsides, options)
    try:
        from mcastsocks.planes.batch.plane import BatchPlane  # not everywhere: its structures are those of Linux

        return BatchPlane(loop, outsides, options)
    except (ImportError, OSError) as error:
        if kind == "auto":
            return PortablePlane(loop, outsides, options)
        raise CannotStart(f"the batch plane cannot start: {error}") from None
