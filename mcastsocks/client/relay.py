"""A connection to a relay: logs in, enters the enhanced mode, opens associations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from mcastsocks.address import Endpoint
from mcastsocks.client import names, terms
from mcastsocks.client.association import Association
from mcastsocks.client.associations import Associations
from mcastsocks.client.binds import Binds
from mcastsocks.client.channel import ControlChannel
from mcastsocks.client.config import ClientConfig
from mcastsocks.client.connection import DEAD_RELAY_S, Connection, in_time
from mcastsocks.client.endpoint import ClientEndpoint
from mcastsocks.client.terms import Terms
from mcastsocks.client.url import RelayUrl
from mcastsocks.errors import ConnectionLost, NotConfirmed, RelayError, WireError
from mcastsocks.wire.control import ControlRequest, Encapsulated, Flags, UdpCommand
from mcastsocks.wire.features import Extension, FeatureList

Confirm = Callable[[Endpoint, int], Awaitable[bool]]
"""Asked whether to send to a group with a TTL, before the relay is (mcast §6)."""

_FEATURES_SHARE = 1 / 3
"""Of the time to connect: a relay that leaves LIST-FEATURES unanswered still has to be entered without it."""


@asynccontextmanager
async def connect(
    url: str | RelayUrl | None = None,
    *,
    config: ClientConfig | None = None,
    timeout_s: float = 10.0,
    dead_relay_s: int = DEAD_RELAY_S,
    ask_features: bool = True,
    fragment_above: int | None = None,
) -> AsyncIterator[Relay]:
    """A relay to ask things of; leaving the block closes everything.

    `config` says for which groups and TTLs the relay is used, and which relay where there is no `url`.

    With `ask_features` it is asked first what it can do. One that does not know that question costs a second
    connection, unless it is known not to. Datagrams of more than `fragment_above` octets, header included, are sent in
    fragments; None: what UDP carries. The connection ends when a request is not answered within `timeout_s`, or when
    the relay's host is silent to everything for about `dead_relay_s`.

    Raises ConnectionLost, LoginRefused or RequestRefused when the relay cannot be had, ValueError for a bad URL.
    """
    config = config or ClientConfig()
    wanted = RelayUrl.parse(url) if isinstance(url, str) else url or config.relay
    if wanted is None:
        raise ValueError(f"no relay is named, neither here nor in the configuration ({config.place('relay')})")
    connection = Connection(wanted, dead_relay_s)
    relay = await Relay.open(connection, timeout_s, ask_features, fragment_above, config)
    try:
        yield relay
    finally:
        await relay.close()


async def list_features(url: str | RelayUrl, *, timeout_s: float = 10.0) -> FeatureList:
    """What a relay can do for this user, from this address; also where that is nothing.

    Raises RelayError when it does not answer that (RequestRefused, when it says so), or cannot be had.
    """
    connection = Connection(RelayUrl.parse(url) if isinstance(url, str) else url)
    try:
        async with in_time(connection.url, timeout_s):
            await connection.log_in()
            try:
                await connection.list_features()
            except (ConnectionLost, ConnectionError):
                raise RelayError("the relay lists no features: it closed the connection instead") from None
            except WireError as error:
                raise RelayError(f"the relay lists no features: {error}") from None
    finally:
        await connection.close()
    assert connection.features is not None
    return connection.features


class Relay:
    """A control channel and the UDP socket that goes with it. Use `connect`.

    `features` is what the relay listed, None when it was not asked or knows no such list.
    """

    def __init__(
        self,
        connection: Connection,
        endpoint: ClientEndpoint,
        timeout_s: float,
        fragment_above: int | None,
        config: ClientConfig,
    ) -> None:
        self.url = connection.url
        self.features = connection.features
        self.endpoint = endpoint
        self.config = config
        self._channel = ControlChannel(connection, timeout_s, self._deliver, self._end)
        self._associations = Associations(self, self._channel, endpoint, fragment_above)
        self._binds = Binds(self._channel, endpoint, self.extensions, self._associations.open)

    @classmethod
    async def open(
        cls,
        connection: Connection,
        timeout_s: float,
        ask_features: bool,
        fragment_above: int | None,
        config: ClientConfig,
    ) -> Relay:
        try:
            async with in_time(connection.url, timeout_s):
                await connection.enter(ask_features=ask_features, features_timeout_s=timeout_s * _FEATURES_SHARE)
                endpoint = await ClientEndpoint.open(connection.sockname)
                return cls(connection, endpoint, timeout_s, fragment_above, config)
        except BaseException:
            await connection.close()
            raise

    @property
    def extensions(self) -> frozenset[Extension]:
        """What the relay says it can do in the enhanced mode; empty when it says nothing."""
        return self.features.extensions if self.features is not None else frozenset()

    async def associate(
        self, host: str, port: int, *, receive: bool = True, send: bool = True, over_tcp: bool = False
    ) -> Association:
        """An association with one remote, by address or name. Raises RequestRefused.

        With `over_tcp` its datagrams go inside the control channel; so for groups.
        """
        return await self._binds.open(names.endpoint(host, port), terms.unicast(receive, send, over_tcp=over_tcp))

    async def join(
        self,
        group: str,
        port: int,
        *,
        sources: Sequence[str] = (),
        excluding: Sequence[str] = (),
        over_tcp: bool = False,
        mode: str | None = None,
    ) -> Association:
        """Receive what is sent to a group, from these sources only or from all but some.

        `mode` is a wish: "mu" for copies from the relay, "mm" for the group on our own network too, where the relay
        cannot name the original senders. Without one it is MU-mode where the relay can do that. Sources and
        `over_tcp` exclude MM-mode.

        Raises RequestRefused, ValueError for sources that are none, RelayError when the relay filters no sources,
        NotRelayed for a group that the configuration leaves out.
        """
        wanted, remote = terms.receiving(sources, excluding, over_tcp=over_tcp, mode=mode), names.endpoint(group, port)
        self.config.check(remote)
        return await self._binds.open(remote, wanted)

    async def sender(
        self,
        group: str,
        port: int,
        *,
        ttl: int = 1,
        over_tcp: bool = False,
        mode: str | None = None,
        confirm: Confirm | None = None,
    ) -> Association:
        """Send to a group, `ttl` hops far on the other side of the relay, if `confirm` agrees.

        `mode` as for `join`; in MM-mode those on our own network hear it directly. Without a wish the relay chooses.

        Raises RequestRefused, NotRelayed for a group or TTL that the configuration leaves out, NotConfirmed.
        """
        wanted, remote = terms.sending(ttl, over_tcp=over_tcp, mode=mode), names.endpoint(group, port)
        await self._may_send(remote, wanted, confirm)
        return await self._binds.open(remote, wanted)

    async def close(self) -> None:
        """Close the channel: the relay releases everything that was opened on it."""
        await self._channel.close()
        await self.endpoint.close()

    # What associations ask for

    async def rebind(self, association: Association, wanted: Terms, confirm: Confirm | None = None) -> None:
        """Ask for what is wanted on top of what an association has."""
        if wanted.is_group and wanted.flags & Flags.SEND_TO:
            await self._may_send(association.remote, wanted, confirm)
        await self._binds.change(association, wanted)

    async def release(self, association: Association, directions: int) -> None:
        request = self._channel.release(association.aid, directions)
        await self._channel.ask(request, lambda _: association.released(directions), f"releasing {association.remote}")

    async def set_ttl(self, association: Association, ttl: int) -> None:
        hops = terms.hops(ttl)
        if association.terms.is_group:
            self.config.check(association.remote, hops)
        request = ControlRequest(UdpCommand.SET_TTL, self._channel.tid(), association.aid, ttl=hops)
        await self._channel.ask(request, lambda _: None, f"TTL {ttl} for {association.remote}")

    def forget(self, association: Association) -> None:
        self._associations.forget(association)

    def _deliver(self, frame: Encapsulated) -> None:
        self._associations.deliver(frame)

    def _end(self, error: RelayError) -> None:
        self._associations.end(error)

    async def _may_send(self, group: Endpoint, wanted: Terms, confirm: Confirm | None) -> None:
        """Raises NotRelayed or NotConfirmed."""
        self.config.check(group, wanted.ttl)
        if confirm is not None:
            if not await confirm(group, wanted.ttl):
                raise NotConfirmed(f"sending to {group} was not confirmed")
        elif self.config.confirm_sending:
            place = self.config.place("confirm_sending")
            raise NotConfirmed(f"sending to {group} has to be confirmed ({place}), and there is nobody to ask")
