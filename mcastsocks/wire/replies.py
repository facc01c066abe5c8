"""Reply codes, common to requests (RFC 1928 §6) and control messages (mcast §4.3)."""

from __future__ import annotations

import errno
from enum import IntEnum


class ReplyCode(IntEnum):
    """REP of a reply, REPLY of a control reply."""

    SUCCEEDED = 0x00
    GENERAL_FAILURE = 0x01
    NOT_ALLOWED = 0x02
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    CONNECTION_REFUSED = 0x05
    TTL_EXPIRED = 0x06
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_TYPE_NOT_SUPPORTED = 0x08
    INVALID_ADDRESS = 0x09  # pro-v5 §6
    BAD_ASSOCIATION = 0x10  # from here on mcast §4.3
    GROUP_RECEIVE_NOT_ALLOWED = 0x11
    GROUP_SEND_NOT_ALLOWED = 0x12
    BAD_CONTEXT = 0x13
    BAD_GROUP = 0x14
    TTL_NOT_ALLOWED = 0x15


MEANING = {
    ReplyCode.SUCCEEDED: "succeeded",
    ReplyCode.GENERAL_FAILURE: "general failure",
    ReplyCode.NOT_ALLOWED: "not allowed by ruleset",
    ReplyCode.NETWORK_UNREACHABLE: "network unreachable",
    ReplyCode.HOST_UNREACHABLE: "host unreachable",
    ReplyCode.CONNECTION_REFUSED: "connection refused",
    ReplyCode.TTL_EXPIRED: "TTL expired",
    ReplyCode.COMMAND_NOT_SUPPORTED: "command not supported",
    ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED: "address type not supported",
    ReplyCode.INVALID_ADDRESS: "invalid address",
    ReplyCode.BAD_ASSOCIATION: "bad association id",
    ReplyCode.GROUP_RECEIVE_NOT_ALLOWED: "multicast receive not allowed by ruleset",
    ReplyCode.GROUP_SEND_NOT_ALLOWED: "multicast send not allowed by ruleset",
    ReplyCode.BAD_CONTEXT: "bad association context",
    ReplyCode.BAD_GROUP: "bad multicast address",
    ReplyCode.TTL_NOT_ALLOWED: "TTL not allowed by ruleset",
}

_OF_ERRNO = {
    errno.ENETUNREACH: ReplyCode.NETWORK_UNREACHABLE,
    errno.ENETDOWN: ReplyCode.NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: ReplyCode.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: ReplyCode.HOST_UNREACHABLE,
    errno.EHOSTDOWN: ReplyCode.HOST_UNREACHABLE,
    errno.ECONNREFUSED: ReplyCode.CONNECTION_REFUSED,
    errno.ECONNRESET: ReplyCode.CONNECTION_REFUSED,
    errno.ETIMEDOUT: ReplyCode.TTL_EXPIRED,  # what other relays say of it
    errno.EACCES: ReplyCode.NOT_ALLOWED,  # by this host's own packet filter
    errno.EPERM: ReplyCode.NOT_ALLOWED,
    errno.EAFNOSUPPORT: ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED,
}


def meaning(code: int) -> str:
    """The words for a reply code, its number where it has none."""
    try:
        return MEANING[ReplyCode(code)]
    except ValueError:
        return f"reply code X'{code:02x}'"


def of_errno(number: int | None) -> ReplyCode:
    """The reply that tells a client of a failed system call."""
    return _OF_ERRNO.get(number or 0, ReplyCode.GENERAL_FAILURE)
