"""Whether data look like RTP or RTCP (RFC 3550): what mcast §6 would have a firewall look at in media groups."""

from __future__ import annotations

from mcastsocks.wire.block import Octets

_VERSION = 2
_RTP_OCTETS, _CSRC_OCTETS, _RTCP_OCTETS = 12, 4, 8
_RTCP_TYPES = range(192, 224)  # RFC 5761 §4: RTP has none of these payload types, marker bit included


def is_rtp(data: Octets) -> bool:
    """By version, type and lengths; what is behind the header is not looked at.

    RTP has its contributing sources within the data, RTCP the first of its packets.
    """
    if len(data) < _RTCP_OCTETS or data[0] >> 6 != _VERSION:
        return False
    if data[1] in _RTCP_TYPES:
        words = int.from_bytes(data[2:4])
        return (words + 1) * 4 <= len(data)
    return len(data) >= _RTP_OCTETS + (data[0] & 0x0F) * _CSRC_OCTETS
