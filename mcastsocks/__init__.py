"""A SOCKS relay that makes UDP and IP multicast cross a firewall under control."""

__version__ = "0.1.0"
