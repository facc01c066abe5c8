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
        parts = urlsplit(text if "://" in text else f"socks5://{text}")
        if parts.scheme not in ("socks5", "socks5h"):
            raise ValueError(f"{_EXPECTED}; scheme {parts.scheme!r} is not known")
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError(f"{_EXPECTED}; the port is a number from 1 to 65535") from None
        if not host or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(_EXPECTED)
        user = unquote(parts.username) if parts.username else None
        return cls(host, port or DEFAULT_PORT, user, unquote(parts.password or ""))

    @property
    def credentials(self) -> Credentials | None:
        return Credentials(self.user.encode(), self.password.encode()) if self.user is not None else None

    def __str__(self) -> str:
        """Without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"socks5://{self.user + '@' if self.user else ''}{host}:{self.port}"
