"""Every golden octet of spec/vectors, both ways; nothing here is compared with our own encoder alone."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, cast

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.errors import Truncated, WireError
from mcastsocks.wire.control import ControlReply, ControlRequest, Encapsulated, Flags, parse_message
from mcastsocks.wire.datagram import Datagram
from mcastsocks.wire.features import Feature, FeatureList
from mcastsocks.wire.options import Option
from mcastsocks.wire.socks4 import Socks4Reply, Socks4Request
from mcastsocks.wire.socks5 import (
    Credentials,
    CredentialsReply,
    Greeting,
    InterfaceData,
    MethodChoice,
    Reply,
    Request,
)
from mcastsocks.wire.socks_datagram import encode_header, parse_header
from tests.vectors import VECTORS, Vector, invalid, name, valid

LEFT_FOR_LATER = {"encapsulated-source", "datagram-protected"}

Means = dict[str, Any]


@dataclass(frozen=True)
class Codec:
    """How a layer's octets and its `means` become our values. `parse` says how many octets it took, too."""

    parse: Callable[[bytes], tuple[Any, int] | None]
    means: Callable[[Any], Means]
    build: Callable[[Means], Any]


def pair(endpoint: Endpoint | None) -> list[Any] | None:
    return None if endpoint is None else [str(endpoint.host), endpoint.port]


def endpoint(means: list[Any] | None) -> Endpoint | None:
    if means is None:
        return None
    try:
        return Endpoint(ip_address(means[0]), means[1])
    except ValueError:
        return Endpoint(means[0], means[1])


def needed(means: list[Any]) -> Endpoint:
    return cast(Endpoint, endpoint(means))


def means_of_control(message: ControlRequest | ControlReply) -> Means:
    match message:
        case ControlRequest():
            means: Means = {"packet": "request", "code": message.command, "rsvd": message.ttl}
        case ControlReply():
            means = {"packet": "reply", "code": message.code, "rsvd": 0}
    means |= {"flags": message.flags, "tid": message.tid, "aid": message.aid}
    means |= {"local": pair(message.local), "remote": pair(message.remote)}
    if message.flags & Flags.EXTENDED:
        means["options"] = [[option.kind, option.value.hex()] for option in message.options]
    return means


def build_control(means: Means) -> ControlRequest | ControlReply:
    local, remote = endpoint(means["local"]), endpoint(means["remote"])
    options = tuple(Option(kind, bytes.fromhex(value)) for kind, value in means.get("options", []))
    code, tid, aid, flags = means["code"], means["tid"], means["aid"], means["flags"]
    if means["packet"] == "request":
        return ControlRequest(code, tid, aid, flags, means["rsvd"], local, remote, options)
    return ControlReply(code, tid, aid, flags, local, remote, options)


def means_of_socks4(request: Socks4Request) -> Means:
    host, port = request.destination
    means = {"cmd": request.command, "port": port, "user": request.user.decode()}
    if isinstance(host, str):
        return means | {"address": "0.0.0.1", "host": host}
    return means | {"address": str(host), "host": None}


@dataclass(frozen=True)
class SocksDatagram:
    """A datagram of RFC 1928, as the functions for its header see it."""

    frag: int
    endpoint: Endpoint
    data: bytes

    @classmethod
    def parse(cls, octets: bytes) -> tuple["SocksDatagram", int]:
        frag, endpoint, end = parse_header(memoryview(octets))
        return cls(frag, endpoint, octets[end:]), len(octets)

    def encode(self) -> bytes:
        return encode_header(self.endpoint, self.frag) + self.data


CODECS = {
    "greeting": Codec(
        Greeting.parse,
        lambda m: {"methods": list(m.methods)},
        lambda means: Greeting(tuple(means["methods"])),
    ),
    "method": Codec(
        MethodChoice.parse,
        lambda m: {"method": m.method},
        lambda means: MethodChoice(means["method"]),
    ),
    "userpass": Codec(
        Credentials.parse,
        lambda m: {"user": m.user.decode(), "password": m.password.decode()},
        lambda means: Credentials(means["user"].encode(), means["password"].encode()),
    ),
    "userpass-reply": Codec(
        CredentialsReply.parse,
        lambda m: {"status": m.status},
        lambda means: CredentialsReply(means["status"]),
    ),
    "request": Codec(
        Request.parse,
        lambda m: {"cmd": m.command, "flag": m.flag, "dst": pair(m.destination)},
        lambda means: Request(means["cmd"], needed(means["dst"]), means["flag"]),
    ),
    "reply": Codec(
        Reply.parse,
        lambda m: {"ver": m.version, "rep": m.code, "flag": m.flag, "bnd": pair(m.bound)},
        lambda means: Reply(means["rep"], needed(means["bnd"]), means["flag"], means["ver"]),
    ),
    "interface-data": Codec(
        InterfaceData.parse,
        lambda m: {"sub": 1, "flag": m.flag, "dst": pair(m.destination)},
        lambda means: InterfaceData(needed(means["dst"]), means["flag"]),
    ),
    "socks4": Codec(
        Socks4Request.parse,
        means_of_socks4,
        lambda means: Socks4Request(
            means["cmd"], needed([means["host"] or means["address"], means["port"]]), means["user"].encode()
        ),
    ),
    "socks4-reply": Codec(
        Socks4Reply.parse,
        lambda m: {"code": m.code},
        lambda means: Socks4Reply(means["code"]),
    ),
    "datagram-1928": Codec(
        SocksDatagram.parse,
        lambda d: {"frag": d.frag, "dst": pair(d.endpoint), "data": d.data.hex()},
        lambda means: SocksDatagram(means["frag"], needed(means["dst"]), bytes.fromhex(means["data"])),
    ),
    "features": Codec(
        FeatureList.parse,
        lambda m: {"entries": [[each.tag, each.subtag, each.value.hex()] for each in m.features]},
        lambda means: FeatureList(
            tuple(Feature(tag, subtag, bytes.fromhex(value)) for tag, subtag, value in means["entries"])
        ),
    ),
    "control": Codec(parse_message, means_of_control, build_control),
    "encapsulated": Codec(
        parse_message,
        lambda m: {"aid": m.aid, "data": m.data.hex()},
        lambda means: Encapsulated(means["aid"], bytes.fromhex(means["data"])),
    ),
    "datagram": Codec(
        lambda octets: (Datagram.parse(octets), len(octets)),
        lambda d: {
            "rsv": d.rsv,
            "frag": d.frag,
            "dgid": d.dgid,
            "aid": d.aid,
            "source": pair(d.source),
            "data": d.data.hex(),
        },
        lambda means: Datagram(
            means["aid"],
            bytes.fromhex(means["data"]),
            means["frag"],
            means["dgid"],
            means["rsv"],
            endpoint(means["source"]),
        ),
    ),
}

VALID = valid(*CODECS)
STREAMED = [vector for vector in VALID if not vector["layer"].startswith("datagram")]
CANONICAL = [vector for vector in VALID if vector.get("canonical", True)]
ACCEPTED_ONLY = [vector for vector in VALID if not vector.get("canonical", True)]


def parsed(vector: Vector) -> tuple[Any, int]:
    found = CODECS[vector["layer"]].parse(bytes.fromhex(vector["hex"]))
    assert found is not None, "a whole message is never too short"
    return found


def test_every_layer_of_the_vectors_is_tested_or_left_for_later() -> None:
    assert {vector["layer"] for vector in VECTORS} == CODECS.keys() | LEFT_FOR_LATER
    assert not CODECS.keys() & LEFT_FOR_LATER


@pytest.mark.parametrize("vector", VALID, ids=name)
def test_octets_mean_what_the_vector_says(vector: Vector) -> None:
    message, size = parsed(vector)
    assert CODECS[vector["layer"]].means(message) == vector["means"]
    assert size == len(vector["hex"]) // 2
    assert getattr(message, "fault", None) is None


@pytest.mark.parametrize("vector", CANONICAL, ids=name)
def test_what_the_vector_means_is_written_in_its_octets(vector: Vector) -> None:
    assert CODECS[vector["layer"]].build(vector["means"]).encode().hex() == vector["hex"]


@pytest.mark.parametrize("vector", ACCEPTED_ONLY, ids=name)
def test_a_form_that_is_only_accepted_is_written_in_another(vector: Vector) -> None:
    codec = CODECS[vector["layer"]]
    written = codec.build(vector["means"]).encode()
    assert written.hex() != vector["hex"]
    assert codec.parse(written) == (parsed(vector)[0], len(written))


@pytest.mark.parametrize("vector", STREAMED, ids=name)
def test_every_truncation_is_not_yet(vector: Vector) -> None:
    octets = bytes.fromhex(vector["hex"])
    assert [CODECS[vector["layer"]].parse(octets[:end]) for end in range(len(octets))] == [None] * len(octets)


@pytest.mark.parametrize("vector", STREAMED, ids=name)
def test_octet_behind_a_message_is_left_alone(vector: Vector) -> None:
    octets = bytes.fromhex(vector["hex"])
    for behind in (b"\x00", b"\xff", octets):
        assert CODECS[vector["layer"]].parse(octets + behind) == (parsed(vector)[0], len(octets))


def react_framing(vector: Vector) -> None:
    with pytest.raises(WireError) as caught:
        parse_message(bytes.fromhex(vector["hex"]))
    assert caught.value.reply is None


def react_reply(vector: Vector) -> None:
    message, size = parsed(vector)
    assert size == len(vector["hex"]) // 2  # framed: whatever follows is the next message
    assert isinstance(message, ControlRequest)
    assert message.fault is not None
    assert message.fault.reply == int(vector["invalid"].removeprefix("reply "), 16)


def react_error(vector: Vector) -> None:
    with pytest.raises(WireError) as caught:
        parsed(vector)
    assert isinstance(caught.value, Truncated) == (vector["invalid"] == "truncated")


REACTIONS = {
    "framing": react_framing,
    "reply": react_reply,
    "drop": react_error,
    "truncated": react_error,
    "refuse": react_error,
}


@pytest.mark.parametrize("vector", invalid(*CODECS), ids=name)
def test_malformed_octets_get_the_reaction_that_the_vector_names(vector: Vector) -> None:
    REACTIONS[vector["invalid"].split()[0]](vector)
