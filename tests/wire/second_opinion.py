"""From scapy's values to ours."""

from ipaddress import ip_address

from mcastsocks.address import Endpoint
from tests import scapy_layers


def endpoint_of(block: scapy_layers.Endpoint | None) -> Endpoint | None:
    """Addresses as values, because there are two ways to write ::ffff:0:0; None for a block absent or unused."""
    if block is None or block.ATYP == 0:
        return None
    return Endpoint(block.ADDR if block.ATYP == 3 else ip_address(block.ADDR), block.PORT)
