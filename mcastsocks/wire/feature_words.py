"""The words for what a feature list says."""

from __future__ import annotations

from mcastsocks.wire.block import AddressType
from mcastsocks.wire.features import PERSISTENCE, SCOPE, Extension, Feature, FeatureTag, Scope, ServerInfo
from mcastsocks.wire.socks5 import Command, Method

_ABOUT: dict[int, str] = {
    FeatureTag.FDL: "list depends on",
    FeatureTag.SOCKS: "SOCKS versions",
    FeatureTag.ADDR: "address types",
    FeatureTag.AUTH: "authentication",
    FeatureTag.COMMAND: "commands",
    FeatureTag.SERVER: "server",
}
_SCOPES: dict[int, str] = {
    Scope.CLIENT_ADDRESS: "client address",
    Scope.AUTHENTICATION: "authentication method",
    Scope.DESTINATION: "destination host",
}
_SUBTAGS: dict[int, dict[int, str]] = {
    FeatureTag.SOCKS: {5: "5", 4: "4"},
    FeatureTag.ADDR: {AddressType.IPV4: "IPv4", AddressType.NAME: "names", AddressType.IPV6: "IPv6"},
    FeatureTag.AUTH: {Method.NONE: "none", Method.GSSAPI: "GSS-API", Method.USERPASS: "username/password"},
    FeatureTag.COMMAND: {
        Command.CONNECT: "CONNECT",
        Command.BIND: "BIND",
        Command.UDP_ASSOCIATE: "UDP ASSOCIATE",
        Command.ENHANCED_UDP_MODE: "ENHANCED_UDP_MODE",
        Command.LIST_FEATURES: "LIST-FEATURES",
    },
    FeatureTag.SERVER: {
        ServerInfo.HOSTNAME: "host name",
        ServerInfo.URL: "URL",
        ServerInfo.OPAQUE: "says",
        ServerInfo.LOAD: "load",
    },
}
_EXTENSIONS: dict[int, str] = {
    Extension.UNICAST: "unicast",
    Extension.GROUPS: "groups",
    Extension.SOURCE_FILTERS: "source filters",
    Extension.SOURCE_REPORTING: "source reporting",
    Extension.PROTECTION: "datagram protection",
    Extension.REASONS: "reasons",
}


def about(feature: Feature) -> str:
    """What a feature is about: its tag."""
    return _word(_ABOUT, feature.tag)


def words(feature: Feature) -> str:
    """What is said about that: subtag and value on one line, numbers where there are no words."""
    if (feature.tag, feature.subtag) == (FeatureTag.FDL, SCOPE):
        return _each(_SCOPES, feature.value)
    subtag = _word(_SUBTAGS.get(feature.tag, {}), feature.subtag)
    return f"{subtag}: {_value(feature)}" if feature.value else subtag


def _value(feature: Feature) -> str:
    match feature.tag, feature.subtag:
        case FeatureTag.COMMAND, Command.ENHANCED_UDP_MODE:
            return _each(_EXTENSIONS, feature.value)
        case FeatureTag.COMMAND, Command.LIST_FEATURES:
            return _each({PERSISTENCE[0]: "the connection can be kept"}, feature.value)
        case FeatureTag.SERVER, _:
            return _shown(feature.value)
    return f"X'{feature.value.hex()}'"


def _word(known: dict[int, str], number: int) -> str:
    return known.get(number, f"X'{number:02x}'")


def _each(known: dict[int, str], value: bytes) -> str:
    return ", ".join(_word(known, number) for number in value)


def _shown(text: bytes) -> str:
    """A relay's own words, harmless on a terminal."""
    return "".join(
        each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text.decode("utf-8", "replace")
    )
