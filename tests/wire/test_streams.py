"""What holds for every message of a stream, whatever its values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcastsocks.errors import WireError
from mcastsocks.wire.block import Octets
from mcastsocks.wire.control import parse_message
from mcastsocks.wire.features import FeatureList
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
from tests.vectors import octets as golden
from tests.wire import strategies
from tests.wire.strategies import hostile, quick


@dataclass(frozen=True)
class Kind:
    name: str
    parse: Callable[[Octets], tuple[Any, int] | None]
    values: st.SearchStrategy[Any]


KINDS = [
    Kind("greeting", Greeting.parse, strategies.greetings),
    Kind("method choice", MethodChoice.parse, strategies.method_choices),
    Kind("credentials", Credentials.parse, strategies.credentials),
    Kind("credentials reply", CredentialsReply.parse, strategies.credentials_replies),
    Kind("request", Request.parse, strategies.requests),
    Kind("reply", Reply.parse, strategies.replies),
    Kind("interface data", InterfaceData.parse, strategies.interface_data),
    Kind("SOCKS 4 request", Socks4Request.parse, strategies.socks4_requests),
    Kind("SOCKS 4 reply", Socks4Reply.parse, strategies.socks4_replies),
    Kind("feature list", FeatureList.parse, strategies.feature_lists),
    Kind("control request", parse_message, strategies.control_requests),
    Kind("control reply", parse_message, strategies.control_replies),
    Kind("encapsulated datagram", parse_message, strategies.encapsulated),
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
# The last three have one parser
each_parser = pytest.mark.parametrize("kind", KINDS[:-2], ids=lambda kind: kind.name)


@each_kind
@quick
@given(data=st.data())
def test_parse_undoes_encode(kind: Kind, data: st.DataObject) -> None:
    message = data.draw(kind.values)
    octets = message.encode()
    assert kind.parse(octets) == (message, len(octets))


@each_kind
@quick
@given(data=st.data())
def test_a_part_of_a_message_is_not_yet(kind: Kind, data: st.DataObject) -> None:
    octets = data.draw(kind.values).encode()
    assert kind.parse(octets[: data.draw(st.integers(0, len(octets) - 1))]) is None


@each_kind
@quick
@given(data=st.data(), behind=st.binary(min_size=1, max_size=30))
def test_what_follows_a_message_stays(kind: Kind, data: st.DataObject, behind: bytes) -> None:
    message = data.draw(kind.values)
    octets = message.encode()
    assert kind.parse(octets + behind) == (message, len(octets))


def outcome(parse: Callable[[Octets], tuple[Any, int] | None], octets: Octets) -> tuple[Any, int] | WireError | None:
    try:
        return parse(octets)
    except WireError as error:
        return error


@each_parser
@quick
@given(octets=hostile)
@example(octets=b"")
def test_any_octets_are_a_message_or_not_yet_or_a_wire_error(kind: Kind, octets: bytes) -> None:
    outcomes = [outcome(kind.parse, spelled) for spelled in (octets, bytearray(octets), memoryview(octets))]
    assert len({repr(found) for found in outcomes}) == 1
    if isinstance(outcomes[0], tuple):
        assert 0 < outcomes[0][1] <= len(octets)


@each_parser
@quick
@given(octets=hostile)
@example(octets=golden("option overruns SIZE"))
@example(octets=golden("source list cut inside an address"))
@example(octets=golden("extension: reason of a refusal").replace(b"\x05\x00\x0c", b"\x05\x00\x0d"))
def test_buffer_can_shrink_while_its_message_or_error_lives(kind: Kind, octets: bytes) -> None:
    buffer = bytearray(octets)
    held = outcome(kind.parse, buffer)
    buffer.clear()  # BufferError, if a view on it was kept
    assert repr(held) == repr(outcome(kind.parse, octets))


@each_kind
@quick
@given(data=st.data())
def test_values_come_from_bytearray_and_memoryview_too(kind: Kind, data: st.DataObject) -> None:
    octets = data.draw(kind.values).encode()
    assert kind.parse(bytearray(octets)) == kind.parse(memoryview(octets)) == kind.parse(octets)
