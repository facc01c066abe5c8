"""What LIST-FEATURES is answered with: what this relay serves, as far as the rules let this client use it (ext)."""

from __future__ import annotations

from collections.abc import Iterable

from mcastsocks.address import IPAddress
from mcastsocks.rules.decide import Ruleset
from mcastsocks.rules.model import Action
from mcastsocks.wire.block import AddressType
from mcastsocks.wire.features import (
    PERSISTENCE,
    SCOPE,
    Extension,
    Feature,
    FeatureList,
    FeatureTag,
    Scope,
    ServerInfo,
)
from mcastsocks.wire.socks4 import VERSION as SOCKS4_VERSION
from mcastsocks.wire.socks5 import VERSION, Command, Method

EXTENSIONS = (Extension.SOURCE_FILTERS, Extension.SOURCE_REPORTING, Extension.REASONS)
"""Those of ours that this release supports."""

MOST_LISTS = 8
"""So often may one connection ask; what a list depends on is known after the login and stays."""

_NEEDS = {Command.CONNECT: Action.CONNECT, Command.BIND: Action.BIND, Command.UDP_ASSOCIATE: Action.UDP}

_SOFTWARE = b"mcastsocks"

_RECEIVING = frozenset((Action.UDP, Action.RECEIVE_GROUP))
_DATAGRAMS = frozenset((Action.UDP, Action.RECEIVE_GROUP, Action.SEND_GROUP))
_OF_USE_FOR = {
    Extension.UNICAST: frozenset((Action.UDP,)),
    Extension.GROUPS: frozenset((Action.RECEIVE_GROUP, Action.SEND_GROUP)),
    Extension.SOURCE_FILTERS: frozenset((Action.RECEIVE_GROUP,)),
    Extension.SOURCE_REPORTING: _RECEIVING,
    Extension.PROTECTION: _DATAGRAMS,
    Extension.REASONS: _DATAGRAMS,
}


def list_for(
    user: str | None, client: IPAddress, rules: Ruleset, methods: Iterable[Method], *, socks4: bool
) -> FeatureList:
    """Everything for this user from this address; without ENHANCED_UDP_MODE when no rule could allow them any of it."""
    usable = bytes(each for each in Extension if _is_served(each) and rules.may_ever(user, client, _OF_USE_FOR[each]))
    return FeatureList(
        (
            Feature(FeatureTag.FDL, SCOPE, bytes((Scope.CLIENT_ADDRESS, Scope.AUTHENTICATION))),
            Feature(FeatureTag.SOCKS, VERSION),
            *((Feature(FeatureTag.SOCKS, SOCKS4_VERSION),) if socks4 else ()),
            *(Feature(FeatureTag.ADDR, each) for each in (AddressType.IPV4, AddressType.NAME, AddressType.IPV6)),
            *(Feature(FeatureTag.AUTH, method) for method in methods),
            *(Feature(FeatureTag.COMMAND, command) for command in _commands(user, client, rules)),
            *((Feature(FeatureTag.COMMAND, Command.ENHANCED_UDP_MODE, usable),) if usable else ()),
            Feature(FeatureTag.COMMAND, Command.LIST_FEATURES, PERSISTENCE),
            Feature(FeatureTag.SERVER, ServerInfo.OPAQUE, _SOFTWARE),
        )
    )


def _commands(user: str | None, client: IPAddress, rules: Ruleset) -> list[Command]:
    return [command for command, action in _NEEDS.items() if rules.may_ever(user, client, frozenset((action,)))]


def _is_served(extension: Extension) -> bool:
    return extension in (Extension.UNICAST, Extension.GROUPS, *EXTENSIONS)
