"""The second dissector against the golden bytes; spec/vectors/ is the reference, never one of our encoders."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scapy.packet import Packet, Padding, Raw

from tests import scapy_layers as layers
from tests.scapy_layers import Datagram, Endpoint, datagram, split_control_stream

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "spec" / "vectors" / "vectors.json").read_text()
)
VALID = [v for v in VECTORS if "invalid" not in v]
SEALED = [v for v in VALID if v["layer"] == "datagram-protected"]
PLAIN = [v for v in VALID if v not in SEALED]
CANONICAL = [v for v in PLAIN if v.get("canonical", True)]
INVALID = {v["name"]: bytes.fromhex(v["hex"]) for v in VECTORS if "invalid" in v}

Means = dict[str, Any]


def name(vector: dict[str, Any]) -> str:
    return str(vector["name"])


# --- `means` of a vector <-> a layer, one pair a layer ---


def pair(endpoint: Endpoint | None) -> list[Any] | None:
    """As `means` writes an endpoint: a list, or null for a block that is absent or unused."""
    return None if endpoint is None or endpoint.ATYP == 0 else list(endpoint.pair)


def block(means: list[Any] | None) -> Endpoint:
    return Endpoint(ATYP=0) if means is None else Endpoint(ADDR=means[0], PORT=means[1])


def read_control(m: Packet) -> Means:
    means = {
        "packet": {1: "request", 2: "reply"}[m.PKT_TYPE],
        "code": m.UDPCMD if m.PKT_TYPE == 1 else m.REPLY,
        "flags": int(m.FLAGS),
        "rsvd": m.RSVD,
        "tid": m.TID,
        "aid": m.AID,
        "local": pair(m.LOCAL),
        "remote": pair(m.REMOTE),
    }
    if m.FLAGS.EXTENDED:
        means["options"] = [[o.TYPE, o.VALUE.hex()] for o in m.OPTIONS]
    return means


def craft_control(means: Means) -> Packet:
    fields = {
        "FLAGS": means["flags"],
        "RSVD": means["rsvd"],
        "TID": means["tid"],
        "AID": means["aid"],
        "LOCAL": block(means["local"]),
        "REMOTE": block(means["remote"]),
        "OPTIONS": [layers.Option(TYPE=t, VALUE=bytes.fromhex(v)) for t, v in means.get("options", [])],
    }
    if means["packet"] == "request":
        return layers.ControlRequest(UDPCMD=means["code"], **fields)
    return layers.ControlReply(REPLY=means["code"], **fields)


def read_datagram(d: Packet) -> Means:
    return {
        "rsv": int(d.RSV),
        "frag": d.FRAG,
        "dgid": d.DGID,
        "aid": d.AID,
        "source": pair(d.SOURCE),
        "data": d.DATA.hex(),
    }


def craft_datagram(means: Means) -> Packet:
    return Datagram(
        RSV=means["rsv"],
        FRAG=means["frag"],
        DGID=means["dgid"],
        AID=means["aid"],
        SOURCE=block(means["source"]),
        DATA=bytes.fromhex(means["data"]),
    )


def craft_features(means: Means) -> Packet:
    return layers.FeatureList(
        ENTRIES=[
            layers.Feature(TAG=tag, SUBTAG=subtag, VALUE=bytes.fromhex(value))
            for tag, subtag, value in means["entries"]
        ]
    )


SPELLINGS: dict[str, tuple[type[Packet], Callable[[Packet], Means], Callable[[Means], Packet]]] = {
    "greeting": (
        layers.Greeting,
        lambda m: {"methods": m.METHODS},
        lambda means: layers.Greeting(METHODS=means["methods"]),
    ),
    "method": (
        layers.MethodChoice,
        lambda m: {"method": m.METHOD},
        lambda means: layers.MethodChoice(METHOD=means["method"]),
    ),
    "userpass": (
        layers.UserpassRequest,
        lambda m: {"user": m.UNAME.decode(), "password": m.PASSWD.decode()},
        lambda means: layers.UserpassRequest(UNAME=means["user"], PASSWD=means["password"]),
    ),
    "userpass-reply": (
        layers.UserpassReply,
        lambda m: {"status": m.STATUS},
        lambda means: layers.UserpassReply(STATUS=means["status"]),
    ),
    "request": (
        layers.Request,
        lambda m: {"cmd": m.CMD, "flag": m.FLAG, "dst": list(m.DST.pair)},
        lambda means: layers.Request(CMD=means["cmd"], FLAG=means["flag"], DST=tuple(means["dst"])),
    ),
    "reply": (
        layers.Reply,
        lambda m: {"ver": m.VER, "rep": m.REP, "flag": m.FLAG, "bnd": list(m.BND.pair)},
        lambda means: layers.Reply(VER=means["ver"], REP=means["rep"], FLAG=means["flag"], BND=tuple(means["bnd"])),
    ),
    "features": (
        layers.FeatureList,
        lambda m: {"entries": [[e.TAG, e.SUBTAG, e.VALUE.hex()] for e in m.ENTRIES]},
        craft_features,
    ),
    "interface-data": (
        layers.InterfaceData,
        lambda m: {"sub": m.SUB, "flag": m.FLAG, "dst": list(m.DST.pair)},
        lambda means: layers.InterfaceData(SUB=means["sub"], FLAG=means["flag"], DST=tuple(means["dst"])),
    ),
    "socks4": (
        layers.Socks4Request,
        lambda m: {
            "cmd": m.CD,
            "port": m.DSTPORT,
            "address": m.DSTIP,
            "user": m.USERID.decode(),
            "host": None if m.HOST is None else m.HOST.decode(),
        },
        lambda means: layers.Socks4Request(
            CD=means["cmd"],
            DSTPORT=means["port"],
            DSTIP=means["address"],
            USERID=means["user"],
            HOST=means["host"],
        ),
    ),
    "socks4-reply": (
        layers.Socks4Reply,
        lambda m: {"code": m.CD},
        lambda means: layers.Socks4Reply(CD=means["code"]),
    ),
    "control": (layers.ControlRequest, read_control, craft_control),
    "encapsulated": (
        layers.EncapsulatedDatagram,
        lambda m: {"aid": m.AID, "data": m.DATA.hex()},
        lambda means: layers.EncapsulatedDatagram(AID=means["aid"], DATA=bytes.fromhex(means["data"])),
    ),
    "encapsulated-source": (
        layers.EncapsulatedWithSource,
        lambda m: {"aid": m.AID, "source": pair(m.SOURCE), "data": m.DATA.hex()},
        lambda means: layers.EncapsulatedWithSource(
            AID=means["aid"], SOURCE=tuple(means["source"]), DATA=bytes.fromhex(means["data"])
        ),
    ),
    "datagram": (Datagram, read_datagram, craft_datagram),
    "datagram-1928": (
        layers.Rfc1928Datagram,
        lambda m: {"frag": m.FRAG, "dst": list(m.DST.pair), "data": m.DATA.hex()},
        lambda means: layers.Rfc1928Datagram(
            FRAG=means["frag"], DST=tuple(means["dst"]), DATA=bytes.fromhex(means["data"])
        ),
    ),
}


def dissect(layer: str, octets: bytes) -> Packet:
    if layer == "control" and octets[0] == 2:
        return layers.ControlReply(octets)
    if layer == "datagram-protected":
        return Datagram(octets)
    return SPELLINGS[layer][0](octets)


def rebuilt(message: Packet) -> bytes:
    """Built from the fields: scapy would otherwise hand back the octets it has read."""
    message.clear_cache()
    return bytes(message)


# --- golden bytes ---


@pytest.mark.parametrize("vector", PLAIN, ids=name)
def test_octets_say_what_the_vector_means(vector: dict[str, Any]) -> None:
    message = dissect(vector["layer"], bytes.fromhex(vector["hex"]))
    assert SPELLINGS[vector["layer"]][1](message) == vector["means"]
    assert not message.payload


@pytest.mark.parametrize("vector", CANONICAL, ids=name)
def test_what_the_vector_means_builds_its_octets(vector: dict[str, Any]) -> None:
    assert bytes(SPELLINGS[vector["layer"]][2](vector["means"])).hex() == vector["hex"]


@pytest.mark.parametrize("vector", VALID, ids=name)
def test_fields_hold_every_octet(vector: dict[str, Any]) -> None:
    assert rebuilt(dissect(vector["layer"], bytes.fromhex(vector["hex"]))).hex() == vector["hex"]


@pytest.mark.parametrize("vector", VALID, ids=name)
def test_a_cut_message_fails_or_keeps_what_it_was_given(vector: dict[str, Any]) -> None:
    octets = bytes.fromhex(vector["hex"])
    for end in range(1, len(octets)):
        try:
            message = dissect(vector["layer"], octets[:end])
        except struct.error:
            continue
        assert rebuilt(message) == octets[:end]


@pytest.mark.parametrize("layer", SPELLINGS)
def test_random_octets_fail_or_are_kept(layer: str) -> None:
    source = random.Random(layer)
    first = bytes.fromhex(next(v["hex"] for v in VALID if v["layer"] == layer))
    for _ in range(200):
        octets = first[: source.randrange(len(first))] + source.randbytes(source.randrange(1, 60))
        try:
            message = dissect(layer, octets)
        except struct.error:
            continue
        assert rebuilt(message) == octets


def test_every_layer_of_the_vectors_is_dissected() -> None:
    assert {v["layer"] for v in VECTORS} == set(SPELLINGS) | {"datagram-protected"}


# --- protected datagrams ---


@pytest.mark.parametrize("vector", SEALED, ids=name)
def test_header_of_a_protected_datagram_is_readable(vector: dict[str, Any]) -> None:
    octets, means = bytes.fromhex(vector["hex"]), vector["means"]
    sealed = Datagram(octets)
    assert (sealed.PN, sealed.AID) == (means["number"], means["aid"])
    assert sealed.RSV.PROTECTED
    assert sealed.SOURCE is None  # it is inside the ciphertext
    assert sealed.DATA == octets[16:]
    assert sealed.associated_data() == octets[:16]
    assert sealed.nonce(bytes.fromhex(means["salt"])).hex() == f"{means['salt']}{means['number']:016x}"


@pytest.mark.parametrize("vector", SEALED, ids=name)
def test_opened_datagram_says_what_was_sealed(vector: dict[str, Any]) -> None:
    aead = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead")
    means, sealed = vector["means"], Datagram(bytes.fromhex(vector["hex"]))
    cipher = {1: aead.AESGCM, 2: aead.ChaCha20Poly1305}[means["aead"]](bytes.fromhex(means["key"]))
    body = cipher.decrypt(sealed.nonce(bytes.fromhex(means["salt"])), sealed.DATA, sealed.associated_data())
    plain = read_datagram(sealed.opened(body))
    assert (plain["source"], plain["data"]) == (means["source"], means["data"])


def test_body_behind_the_seal_starts_with_the_source_block() -> None:
    sealed = Datagram(RSV="SOURCE+PROTECTED", AID=5, PN=1, DATA=b"ciphertext and tag")
    plain = datagram(5, b"payload", source=("198.51.100.9", 4000))
    assert rebuilt(sealed.opened(bytes(plain)[8:])) == bytes(plain)


# --- defects show ---


@pytest.mark.parametrize(
    "vector",
    [
        "SIZE 20 ends after LOCAL",
        "SIZE below 13",
        "SIZE cuts the remote address",
        "unknown packet type",
        "encapsulated SIZE below 7",
    ],
)
def test_broken_framing_is_not_split(vector: str) -> None:
    with pytest.raises(ValueError, match="message 0: "):
        split_control_stream(INVALID[vector])


def test_unknown_atyp_keeps_the_frame_whole() -> None:
    (message,) = split_control_stream(INVALID["ATYP 07 in REMOTE: a reply, not a broken frame"])
    assert message.LOCAL.pair == ("192.0.2.1", 1)
    assert (message.REMOTE.ATYP, message.REMOTE.ADDR, message.REMOTE.PORT) == (7, bytes(6), None)


def test_unknown_atyp_in_local_hides_remote() -> None:
    crafted = bytes(layers.ControlRequest(LOCAL=Endpoint(ATYP=7, ADDR=bytes(20)), REMOTE=("192.0.2.1", 1)))
    (message,) = split_control_stream(crafted)
    assert (message.SIZE, message.LOCAL.readable, message.REMOTE) == (41, False, None)


def test_empty_name_in_remote_shows() -> None:
    (message,) = split_control_stream(INVALID["empty name in REMOTE"])
    assert message.REMOTE.pair == ("", 53)


def test_option_beyond_size_stays_raw() -> None:
    (message,) = split_control_stream(INVALID["option overruns SIZE"])
    assert message.OPTIONS == [Raw(bytes.fromhex("01004001"))]


def test_source_list_cut_inside_an_address_fails() -> None:
    (message,) = split_control_stream(INVALID["source list cut inside an address"])
    with pytest.raises(struct.error):
        layers.SourceList(message.OPTIONS[0].VALUE)


def test_fragment_without_a_position_shows() -> None:
    assert Datagram(INVALID["fragment X'80'"]).FRAG == 0x80


def test_unknown_rsv_bit_shows() -> None:
    assert Datagram(INVALID["RSV bit 04"]).RSV == 0x04


def test_empty_user_name_shows() -> None:
    message = layers.UserpassRequest(INVALID["userpass with an empty name"])
    assert (message.ULEN, message.UNAME) == (0, b"")


@pytest.mark.parametrize(
    ("layer", "vector"),
    [
        ("datagram", "datagram shorter than its header"),
        ("datagram-1928", "1928 datagram, name runs past the end"),
    ],
)
def test_truncated_datagram_fails(layer: str, vector: str) -> None:
    with pytest.raises(struct.error):
        dissect(layer, INVALID[vector])


# --- the control channel ---

CHANNEL = [v for v in VALID if v["layer"] in ("control", "encapsulated")]


def test_stream_is_cut_by_size() -> None:
    stream = bytes.fromhex("".join(v["hex"] for v in CHANNEL))
    means = [SPELLINGS[v["layer"]][1](m) for v, m in zip(CHANNEL, split_control_stream(stream), strict=True)]
    assert means == [v["means"] for v in CHANNEL]


def test_incomplete_message_comes_last_as_raw() -> None:
    whole, cut = bytes.fromhex(CHANNEL[0]["hex"]), bytes.fromhex(CHANNEL[1]["hex"])
    for end in range(1, len(cut)):
        assert split_control_stream(whole + cut[:end])[1:] == [Raw(cut[:end])]


def test_source_block_is_read_for_the_aids_that_report() -> None:
    frame = bytes(layers.EncapsulatedWithSource(AID=5, SOURCE=("198.51.100.9", 4000), DATA=b"hi"))
    (reported,) = split_control_stream(frame, reporting={5})
    (plain,) = split_control_stream(frame, reporting={6})
    assert (reported.SOURCE.pair, reported.DATA) == (("198.51.100.9", 4000), b"hi")
    assert plain.DATA == frame[7:]


def test_size_13_has_no_blocks() -> None:
    short = layers.ControlRequest(UDPCMD="UDP RELEASE", SIZE=13, FLAGS="SEND-TO", AID=1)
    assert bytes(short).hex() == "01000d06000200000000000001"
    (message,) = split_control_stream(bytes(short))
    assert (message.LOCAL, message.REMOTE) == (None, None)


def test_octets_behind_remote_are_kept_apart() -> None:
    (message,) = split_control_stream(bytes(layers.ControlRequest(REMOTE=("192.0.2.1", 9), REST=b"more")))
    assert (message.SIZE, message.OPTIONS, message.REST) == (31, None, b"more")


def test_octets_behind_size_are_the_next_message() -> None:
    message = layers.ControlReply(bytes(layers.ControlReply(TID=1)) + b"\x03")
    assert message[Padding].load == b"\x03"
    assert message.REST == b""


def test_a_given_size_may_lie() -> None:
    assert bytes(layers.EncapsulatedDatagram(SIZE=6, AID=1, DATA=b"x")).hex() == "0300060000000178"


def test_flags_carry_the_names_of_the_draft() -> None:
    named = layers.ControlRequest(FLAGS="RECEIVE-FROM+UDP-MULTICAST+MU-MODE+REPORT-SOURCE+EXTENDED")
    assert named.FLAGS == 0x8131
    assert str(layers.ControlRequest(FLAGS=0x005E).FLAGS) == (
        "SEND-TO+UDP-UNICAST+TCP-ENCAPSULATED+UDP-MULTICAST+MM-MODE"
    )


# --- option values, and layers without vectors ---


def test_source_filter_lists_its_addresses() -> None:
    vector = next(v for v in VALID if v["name"] == "extension: exclude two IPv6 sources")
    (option,) = layers.ControlRequest(bytes.fromhex(vector["hex"])).OPTIONS
    sources = layers.SourceList(option.VALUE)
    assert sources.ADDRS == ["2001:db8::a", "2001:db8::b"]
    assert bytes(layers.SourceList(ATYP=4, ADDRS=["2001:db8::a", "2001:db8::b"])) == option.VALUE


def test_protection_grant_holds_two_keys_and_two_salts() -> None:
    vector = next(v for v in VALID if v["name"].startswith("extension: protection granted"))
    grant = layers.ProtectionGrant(layers.ControlReply(bytes.fromhex(vector["hex"])).OPTIONS[0].VALUE)
    assert (grant.AEAD, grant.KEY_C2R + grant.KEY_R2C) == (2, bytes(range(64)))
    assert (grant.SALT_C2R.hex(), grant.SALT_R2C.hex()) == ("a0a1a2a3", "b0b1b2b3")
    with pytest.raises(struct.error):
        layers.ProtectionGrant(bytes(grant)[:-1])


def test_resolved_name_is_an_address_without_a_port() -> None:
    assert layers.Resolved(bytes.fromhex("01c6336407")).ADDR == "198.51.100.7"
    assert bytes(layers.Resolved(ADDR="2001:db8::1")).hex() == "0420010db8000000000000000000000001"


def test_gss_api_frames_count_their_token_and_abort_in_two_octets() -> None:
    assert bytes(layers.GssFrame(MTYP="data", TOKEN=b"abc")).hex() == "01030003616263"
    assert layers.GssFrame(bytes.fromhex("01010002beef")).TOKEN == b"\xbe\xef"
    assert bytes(layers.GssFrame(MTYP="abort")).hex() == "01ff"


def test_feature_list_may_end_right_after_ff() -> None:
    assert rebuilt(layers.FeatureList(bytes.fromhex("020100ff"))).hex() == "020100ff"


def test_datagram_helper_sets_rsv_for_a_source() -> None:
    assert bytes(datagram(0xDEADBEEF, b"hello")).hex() == "00000000deadbeef68656c6c6f"
    reported = datagram(5, source=("192.0.2.1", 1), frag=0x81, dgid=2)
    assert bytes(reported).hex() == "018100020000000501c00002010001"
