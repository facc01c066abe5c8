"""How people name a relay: socks5://user:password@host:port."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from mcastsocks.wire.socks5 import Credentials

DEFAULT_PORT = 1080
_EXPECTED = "expected socks5://[user:password@]host[:port]"


@dataclass(frozen=True, slots=True)
class RelayUrl:
    host: str
    port: int = DEFAULT_PORT
    user: str | None = None
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> RelayUrl:
        """Raises ValueError saying what was expected, without repeating what may be a password."""
        try:
            parts = urlsplit(text if "://" in text else f"socks5://{text}")
            host, port = parts.hostname, parts.port
        except ValueError:  # its words may hold the password
            raise ValueError(f"{_EXPECTED}; the port is a number from 1 to 65535, an IPv6 address stands in brackets") from None
        if parts.scheme not in ("socks5", "socks5h"):
            raise ValueError(f"{_EXPECTED}; scheme {parts.scheme!r} is not known")
        if not host or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"{_EXPECTED}; other characters of a password are written as %2F and so on")
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password or "")
        if password and user is None:
            raise ValueError(f"{_EXPECTED}; there is a password and no user")
        if any(len((part or "").encode()) > 255 for part in (user, password)):
            raise ValueError(f"{_EXPECTED}; a user name and a password have at most 255 octets")
        return cls(host, port or DEFAULT_PORT, user, password)

    @property
    def credentials(self) -> Credentials | None:
        return Credentials(self.user.encode(), self.password.encode()) if self.user is not None else None

    def __str__(self) -> str:
        """Without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"socks5://{self.user + '@' if self.user else ''}{host}:{self.port}"
