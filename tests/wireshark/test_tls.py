"""A conversation inside TLS, for a reader who has the session's secrets."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.wireshark import dialogues, tshark
from tests.wireshark.captures import Conversation, Segments, write
from tests.wireshark.naming import assert_shows

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, for a certificate")


class End:
    """One side of a TLS session that has no socket."""

    def __init__(self, side: str, context: ssl.SSLContext) -> None:
        self.side = side
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=side == "relay")


def handshake(ends: tuple[End, End]) -> Segments:
    said: Segments = []
    for _ in range(3):
        for end, other in (ends, ends[::-1]):
            with suppress(ssl.SSLWantReadError):
                end.tls.do_handshake()
            said += passed_on(end, other)
    return said


def passed_on(end: End, other: End) -> Segments:
    octets = end.outgoing.read()
    other.incoming.write(octets)
    return [(end.side, octets)] if octets else []


def sealed(plain: Segments, folder: Path, secrets: Path) -> Segments:
    """The records of a session in which that was said; its secrets go into a file."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=relay", "-days", "1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    of_relay, of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    of_relay.load_cert_chain(certificate, key)
    of_client.check_hostname, of_client.verify_mode = False, ssl.CERT_NONE
    of_client.keylog_filename = str(secrets)
    client, relay = End("client", of_client), End("relay", of_relay)
    said = handshake((client, relay))
    for side, octets in plain:
        end, other = (client, relay) if side == "client" else (relay, client)
        end.tls.write(octets)
        said += passed_on(end, other)
    return said


@pytest.mark.parametrize("passes", [(), ("-2",)], ids=["one pass", "two passes"])
def test_every_field_is_shown_to_whoever_has_the_secrets(tmp_path: Path, passes: tuple[str, ...]) -> None:
    secrets = tmp_path / "secrets"
    said = sealed(dialogues.segments(dialogues.REPORTING), tmp_path, secrets)
    path = write(tmp_path / "a.pcap", Conversation(41_000, said=said).tcp())
    messages = tshark.messages(path, "-o", f"tls.keylog_file:{secrets}", *passes)
    for message, each in zip(messages, dialogues.REPORTING, strict=True):
        assert_shows(message, each.dissected)
        assert not message.experts


def test_without_them_it_is_a_conversation_in_tls(tmp_path: Path) -> None:
    said = sealed(dialogues.segments(dialogues.REPORTING), tmp_path, tmp_path / "secrets")
    path = write(tmp_path / "a.pcap", Conversation(41_000, said=said).tcp())
    assert not tshark.messages(path)
    assert "Client Hello" in tshark.run(path)
