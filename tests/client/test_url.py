"""How people name a relay; and no error repeats the password in it."""

from __future__ import annotations

import pytest

from mcastsocks.client import RelayUrl
from mcastsocks.wire.socks5 import Credentials

EXPECTED = r"expected socks5://\[user:password@\]host\[:port\]"


@pytest.mark.parametrize(
    ("text", "host", "port", "user", "password"),
    [
        ("socks5://fw.example", "fw.example", 1080, None, ""),
        ("socks5h://fw.example:1081/", "fw.example", 1081, None, ""),
        ("fw.example:1081", "fw.example", 1081, None, ""),
        ("192.0.2.1", "192.0.2.1", 1080, None, ""),
        ("socks5://[2001:db8::1]:1081", "2001:db8::1", 1081, None, ""),
        ("socks5://[fe80::1%Eth0]", "fe80::1%Eth0", 1080, None, ""),
        ("socks5://[fe80::1%25eth0]:1081", "fe80::1%eth0", 1081, None, ""),
        ("alice:secret@fw.example", "fw.example", 1080, "alice", "secret"),
        ("socks5://alice@fw.example", "fw.example", 1080, "alice", ""),
        ("socks5://al%40ice:%3A%2F%40%25@fw.example", "fw.example", 1080, "al@ice", ":/@%"),
        ("socks5://alice:a:b@c@fw.example", "fw.example", 1080, "alice", "a:b@c"),
        ("socks5://exämple.org", "exämple.org", 1080, None, ""),
    ],
)
def test_url_is_read(text: str, host: str, port: int, user: str | None, password: str) -> None:
    assert RelayUrl.parse(text) == RelayUrl(host, port, user, password)


def test_credentials_are_there_when_a_user_is() -> None:
    assert RelayUrl.parse("alice:sécret@h").credentials == Credentials(b"alice", "sécret".encode())
    assert RelayUrl.parse("socks5://h").credentials is None


def test_user_and_password_may_be_any_octets() -> None:
    url = RelayUrl.parse("socks5://%fe%00:%ff%2F%C3%A9@h")
    assert url.credentials == Credentials(b"\xfe\x00", b"\xff/\xc3\xa9")
    assert str(url) == "socks5://%FE%00@h:1080"


@pytest.mark.parametrize("character", "/#?")
def test_url_cut_short_by_its_password_hints_at_percent_encoding(character: str) -> None:
    for text in (f"socks5://alice:sec{character}ret@h", f"socks5://alice:123{character}ret@h"):
        with pytest.raises(ValueError, match="are written as %2F, %23, %3F"):
            RelayUrl.parse(text)


@pytest.mark.parametrize("text", ["socks5://al:secret@h:1", "socks5://al:secret@[2001:db8::1]"])
def test_url_is_shown_without_its_password(text: str) -> None:
    url = RelayUrl.parse(text)
    assert "secret" not in f"{url} {url!r} {url.credentials!r}"
    assert RelayUrl.parse(str(url)).host == url.host


WRONG = {
    "nothing": "",
    "no host": "socks5://",
    "port only": "socks5://:1080",
    "another scheme": "http://alice:secret@fw.example",
    "path": "socks5://alice:secret@fw.example/x",
    "query": "socks5://alice:secret@fw.example?x",
    "fragment": "socks5://alice:secret@fw.example#x",
    "port that is none": "socks5://alice:secret@fw.example:http",
    "port out of range": "socks5://alice:secret@fw.example:65536",
    "slash in the password": "socks5://alice:secret/@fw.example",
    "hash in the password": "socks5://alice:secret#@fw.example",
    "question in the password": "socks5://alice:secret?@fw.example",
    "port 0": "socks5://alice:secret@fw.example:0",
    "password of nobody": "socks5://:secret@fw.example",
    "user too long": f"socks5://{'a' * 256}:secret@fw.example",
    "password too long": f"socks5://alice:secret{'a' * 256}@fw.example",
    "empty label": "socks5://alice:secret@a..b:1080",
    "host too long": f"socks5://alice:secret@{'abc.' * 75}",
    "at sign and slash in the password": "socks5://alice:a@secret../b@fw.example",
    "half an IPv6 address": "socks5://alice:secret@[2001:db8::1",
    "character that is a hash to some": "socks5://alice:secret\uff03@fw.example",
}


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, id=name) for name, text in WRONG.items()],
)
def test_wrong_url_says_what_was_expected_and_not_the_password(text: str) -> None:
    with pytest.raises(ValueError, match=EXPECTED) as caught:
        RelayUrl.parse(text)
    assert "secret" not in str(caught.value)
