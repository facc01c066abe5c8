"""Every exception that crosses from one room to another, on one screen; the rest stay where they are raised.

McastsocksError
├── WireError            octets from a peer that break the protocol; carries the reply to answer with
│   └── Truncated        fewer octets than the layout needs: "not yet" on a stream, an error in a datagram
├── LocalError           this program used a machine or a table wrongly: a defect of ours, never a peer's
├── ConfigError          a configuration or users file that cannot be used; says where and what was expected
└── RelayError           what a client of a relay may meet
    ├── ConnectionLost   the control channel is gone
    ├── LoginRefused     no common method, or a wrong name or password
    ├── RequestRefused   the relay answered with a failure code; carries the code and its reason
    ├── NotRelayed       the client's configuration uses the relay for other groups or TTLs
    └── NotConfirmed     somebody was to be asked before sending to a group, and did not agree
"""

from __future__ import annotations


class McastsocksError(Exception):
    """Whatever goes wrong in this package."""


class WireError(McastsocksError):
    """A peer sent octets that break the protocol.

    `reply` is the reply code to answer with, None where there is nothing to say but to close or to drop.
    """

    def __init__(self, message: str, reply: int | None = None) -> None:
        super().__init__(message)
        self.reply = reply


class Truncated(WireError):
    """Fewer octets than the layout needs."""


class LocalError(McastsocksError):
    """An event in a state that does not know it: our own mistake."""


class ConfigError(McastsocksError):
    """A file that cannot be used; one line a problem, each with file, line and key."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class RelayError(McastsocksError):
    """A relay did not do what its client asked."""


class ConnectionLost(RelayError):
    """The control channel ended, or never came to be."""


class LoginRefused(RelayError):
    """The relay does not accept who we are."""


class RequestRefused(RelayError):
    """The relay answered a request with a failure code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class NotRelayed(RelayError):
    """The relay was not asked: this client is configured to use it for other groups or TTLs."""


class NotConfirmed(RelayError):
    """The relay was not asked: nobody agreed to sending to this group."""
