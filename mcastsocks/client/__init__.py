"""The library that a program imports to use a relay.

async with connect("socks5://alice:secret@fw.example") as relay:
    group = await relay.join("239.1.2.3", 5004)
    async for datagram in group:
        ...
"""

from mcastsocks.client.association import Association, Datagram
from mcastsocks.client.config import ClientConfig
from mcastsocks.client.relay import Relay, connect, list_features
from mcastsocks.client.terms import Mode
from mcastsocks.client.url import RelayUrl
from mcastsocks.errors import ConnectionLost, LoginRefused, NotConfirmed, NotRelayed, RelayError, RequestRefused

__all__ = [
    "Association",
    "ClientConfig",
    "ConnectionLost",
    "Datagram",
    "LoginRefused",
    "Mode",
    "NotConfirmed",
    "NotRelayed",
    "Relay",
    "RelayError",
    "RelayUrl",
    "RequestRefused",
    "connect",
    "list_features",
]
