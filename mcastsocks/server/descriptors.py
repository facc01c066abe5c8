"""The process's descriptor limit, and how it is shared out, so that nothing ever meets EMFILE."""

from __future__ import annotations

import resource
from dataclasses import dataclass

from mcastsocks.errors import ConfigError
from mcastsocks.server.sections import Limits

_RESERVE = 128
"""For listeners, client-facing sockets, threads, files, and connections that are told the relay is full."""

_OF_A_CONNECTION = 2
"""The client's, and the remote's of a CONNECT or BIND. A control channel has two at each upstream, TCP and UDP."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    limit: int
    connections: int
    udp_sockets: int

    def __str__(self) -> str:
        return f"{self.limit} descriptors: at most {self.connections} connections and {self.udp_sockets} UDP sockets"


def claim(limits: Limits, upstreams: int = 0) -> Descriptors:
    """Raise the soft limit as far as the hard one allows, and divide it. Raises ConfigError when it is tiny."""
    each = _OF_A_CONNECTION + max(0, 2 * upstreams - 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserve = _RESERVE + 2 * limits.splice_pipes
    wanted = limits.connections * each + limits.udp_sockets + reserve
    ceiling = wanted if hard == resource.RLIM_INFINITY else hard
    limit = max(soft, min(wanted, ceiling))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    usable = limit - reserve
    if usable < 32:
        raise ConfigError(f"the limit of {limit} descriptors is too low: ulimit -n {reserve + 32} or more")
    room = max(usable // 2, usable - limits.udp_sockets)
    connections = min(limits.connections, room // each)
    return Descriptors(limit, connections, min(limits.udp_sockets, usable - connections * each))
