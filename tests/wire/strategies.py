"""Values and octets for hypothesis: all that our ends may write, and what hostile ones might."""

from hypothesis import settings
from hypothesis import strategies as st

from mcastsocks.address import Endpoint
from mcastsocks.wire.control import ControlReply, ControlRequest, Encapsulated, Flags
from mcastsocks.wire.datagram import LAST_FRAGMENT, RSV_SOURCE, Datagram
from mcastsocks.wire.features import Feature, FeatureList, FeatureTag
from mcastsocks.wire.options import MAX_SOURCES, Option, OptionType
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
from tests.vectors import VECTORS

quick = settings(max_examples=25, deadline=None)

u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6)
names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)
address_endpoints = st.builds(Endpoint, addresses, u16)
endpoints = st.builds(Endpoint, addresses | names, u16)

greetings = st.builds(Greeting, st.lists(u8, max_size=255).map(tuple))
method_choices = st.builds(MethodChoice, u8)
credentials = st.builds(Credentials, st.binary(min_size=1, max_size=255), st.binary(max_size=255))
credentials_replies = st.builds(CredentialsReply, u8)
requests = st.builds(Request, u8, endpoints, u8)
features = st.builds(Feature, u8.filter(lambda tag: tag != FeatureTag.END), u8, st.binary(max_size=255))
feature_lists = st.builds(FeatureList, st.lists(features, max_size=12).map(tuple))
replies = st.builds(Reply, u8, endpoints, u8, st.sampled_from((0x05, 0x01)))
interface_data = st.builds(InterfaceData, endpoints, u8)

ipv4_endpoints = st.builds(Endpoint, st.ip_addresses(v=4), u16)
means_a_name = st.ip_addresses(v=4, network="0.0.0.0/24").filter(int)
socks4_hosts = st.ip_addresses(v=4).filter(lambda address: not 0 < int(address) < 256) | names
user_ids = st.binary(max_size=255).map(lambda user: user.replace(b"\0", b"0"))
socks4_requests = st.builds(Socks4Request, st.sampled_from((1, 2)), st.builds(Endpoint, socks4_hosts, u16), user_ids)
socks4_replies = st.builds(Socks4Reply, u8, ipv4_endpoints)


def _source_list(kind: OptionType) -> st.SearchStrategy[Option]:
    """ATYP once, then addresses of that width."""
    lists = st.sampled_from(((1, 4), (4, 16))).flatmap(
        lambda shape: st.integers(1, MAX_SOURCES).flatmap(
            lambda count: st.binary(min_size=count * shape[1], max_size=count * shape[1]).map(
                lambda addresses: bytes((shape[0],)) + addresses
            )
        )
    )
    return lists.map(lambda value: Option(kind, value))


def _opaque(kind: OptionType) -> st.SearchStrategy[Option]:
    return st.binary(max_size=40).map(lambda value: Option(kind, value))


options = st.lists(
    _source_list(OptionType.SOURCE_INCLUDE)
    | _source_list(OptionType.SOURCE_EXCLUDE)
    | _opaque(OptionType.PROTECTION)
    | _opaque(OptionType.REASON)
    | _opaque(OptionType.RESOLVED),
    max_size=3,
    unique_by=lambda option: option.kind,
).map(tuple)

plain_flags = u16.map(lambda flags: flags & ~Flags.EXTENDED)
flags_and_options = st.tuples(plain_flags, st.just(())) | st.tuples(
    plain_flags.map(lambda f: f | Flags.EXTENDED), options
)
control_requests = flags_and_options.flatmap(
    lambda pair: st.builds(
        ControlRequest,
        command=u8,
        tid=u16,
        aid=u32,
        flags=st.just(pair[0]),
        ttl=u8,
        local=st.none() | address_endpoints,
        remote=st.none() | endpoints,
        options=st.just(pair[1]),
    )
)
control_replies = flags_and_options.flatmap(
    lambda pair: st.builds(
        ControlReply,
        code=u8,
        tid=u16,
        aid=u32,
        flags=st.just(pair[0]),
        local=st.none() | address_endpoints,
        remote=st.none() | endpoints,
        options=st.just(pair[1]),
    )
)
encapsulated = st.builds(Encapsulated, u32, st.binary(max_size=200))

first_pieces = st.sampled_from((0x00, 0x01, LAST_FRAGMENT | 0x01))
datagrams = st.builds(
    Datagram, u32, st.binary(max_size=200), u8.filter(lambda frag: frag != LAST_FRAGMENT), u16
) | st.builds(Datagram, u32, st.binary(max_size=200), first_pieces, u16, st.just(RSV_SOURCE), address_endpoints)

MUTABLE = [bytes.fromhex(vector["hex"]) for vector in VECTORS]


@st.composite
def near_misses(draw: st.DrawFn) -> bytes:
    """A vector with some octets changed, cut or followed by others."""
    octets = bytearray(draw(st.sampled_from(MUTABLE)))
    for _ in range(draw(st.integers(0, 4))):
        octets[draw(st.integers(0, len(octets) - 1))] = draw(u8)
    return bytes(octets[: draw(st.integers(0, len(octets)))]) + draw(st.binary(max_size=20))


@st.composite
def sized(draw: st.DrawFn) -> bytes:
    """A control message whose SIZE is right and whose content is anything."""
    rest = draw(st.binary(max_size=80))
    return bytes((draw(st.sampled_from((1, 2, 3))),)) + (3 + len(rest)).to_bytes(2, "big") + rest


hostile = st.binary(max_size=80) | near_misses() | sized()
