"""How people name a relay: socks5://user:password@host:port."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes, urlsplit

from mcastsocks.client.names import ascii_name
from mcastsocks.wire.socks5 import Credentials

DEFAULT_PORT = 1080
_EXPECTED = "expected socks5://[user:password@]host[:port]"
_HINT = "/, #, ? and @ in a user name or password are written as %2F, %23, %3F and %40"


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
            wrong = "the port is a number from 1 to 65535, IPv6 stands in brackets"
            raise ValueError(f"{_EXPECTED}; {wrong}; {_HINT}") from None
        if parts.scheme not in ("socks5", "socks5h"):
            raise ValueError(f"{_EXPECTED}; scheme {parts.scheme!r} is not known")
        if not host or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"{_EXPECTED}; {_HINT}")
        try:
            ascii_name(host)
        except ValueError:  # a badly written password may have ended up in the host
            raise ValueError(f"{_EXPECTED}; the host is no name that could be looked up; {_HINT}") from None
        host = host.replace("%25", "%")  # before a zone (RFC 6874 §2)
        user = _unquoted(parts.username) if parts.username else None
        password = _unquoted(parts.password or "")
        if password and user is None:
            raise ValueError(f"{_EXPECTED}; there is a password and no user")
        if any(len(_octets(part or "")) > 255 for part in (user, password)):
            raise ValueError(f"{_EXPECTED}; a user name and a password have at most 255 octets")
        return cls(host, port or DEFAULT_PORT, user, password)

    @property
    def credentials(self) -> Credentials | None:
        return Credentials(_octets(self.user), _octets(self.password)) if self.user is not None else None

    def __str__(self) -> str:
        """Without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = quote(_octets(self.user), safe="") + "@" if self.user else ""
        return f"socks5://{user}{host}:{self.port}"


def _unquoted(part: str) -> str:
    """Text for any octets, because RFC 1929 allows any; those that are no UTF-8 as Python holds them in file names."""
    return unquote_to_bytes(_octets(part)).decode("utf-8", "surrogateescape")


def _octets(part: str) -> bytes:
    return part.encode("utf-8", "surrogateescape")
