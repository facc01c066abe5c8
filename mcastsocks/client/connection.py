"""TCP to a relay, and the machine that speaks on it, up to and in the control channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from mcastsocks.address import SockAddr
from mcastsocks.client.dial import dial, reason
from mcastsocks.client.url import RelayUrl
from mcastsocks.errors import ConnectionLost, RequestRefused, WireError
from mcastsocks.liveness import detect_dead_peer
from mcastsocks.protocol.client import ClientConnection, EnhancedEntered, Event, FeaturesListed, LoggedIn
from mcastsocks.wire.control import ControlRequest, Encapsulated
from mcastsocks.wire.features import FeatureList

DEAD_RELAY_S = 30
_READ_OCTETS = 65_536
_LAST_WRITE_S = 1.0
_E = TypeVar("_E", bound=Event)


@asynccontextmanager
async def in_time(url: RelayUrl, timeout_s: float) -> AsyncIterator[None]:
    """What a relay does not do, or not in time, is a ConnectionLost that names it."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise ConnectionLost(f"{url} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise ConnectionLost(f"cannot reach {url}: {reason(error)}") from None
    except WireError as error:
        raise ConnectionLost(f"{url} does not speak this protocol: {error}") from None


class Connection:
    """Not connected until `log_in` or `enter`. Whoever made it closes it, whatever those raised."""

    def __init__(self, url: RelayUrl, dead_relay_s: int = DEAD_RELAY_S) -> None:
        self.url = url
        self._dead_relay_s = dead_relay_s
        self.features: FeatureList | None = None
        self._machine = ClientConnection(url.credentials)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def sockname(self) -> SockAddr:
        """The address and port that the relay knows us by, unless a NAT is between."""
        assert self._writer is not None
        name: SockAddr = self._writer.get_extra_info("sockname")
        return name

    async def enter(self, *, ask_features: bool, features_timeout_s: float) -> None:
        """Become a control channel, on a second connection when the relay did not survive the question for features."""
        if ask_features and await self._enter_after_list(features_timeout_s):
            return
        await self.log_in()
        await self._enter_enhanced()

    async def log_in(self) -> None:
        """Connect, again if need be, and say who we are."""
        await self.close()
        self._machine = ClientConnection(self.url.credentials)
        self._reader, self._writer = await asyncio.open_connection(sock=await dial(self.url.host, self.url.port))
        detect_dead_peer(self._writer.get_extra_info("socket"), self._dead_relay_s)
        self._machine.greet()
        await self._expect(LoggedIn)

    async def list_features(self) -> bool:
        """Ask what the relay can do; True when the connection is good for another command."""
        self._machine.request_features()
        listed = await self._expect(FeaturesListed)
        self.features = listed.features
        return listed.persistent

    async def close(self) -> None:
        """What was written still goes out, if the relay takes it soon."""
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):  # a TimeoutError is one
                async with asyncio.timeout(_LAST_WRITE_S):
                    await self._writer.wait_closed()
            self.abort()

    def abort(self) -> None:
        """Close at once, whatever was written."""
        if self._writer is not None:
            self._writer.transport.abort()

    # As a control channel

    def write(self, message: ControlRequest | Encapsulated) -> None:
        self._machine.send(message)
        self._write()

    async def drain(self) -> None:
        """Wait while the relay is slower than we are. Raises ConnectionLost."""
        assert self._writer is not None
        try:
            await self._writer.drain()
        except OSError as error:
            raise ConnectionLost(f"the control channel to {self.url} broke: {reason(error)}") from None

    async def events(self) -> AsyncIterator[Event]:
        """What the relay says, until it closes. Raises WireError, OSError."""
        while True:
            while (event := self._machine.next_event()) is not None:
                yield event
            if not await self._read():
                return

    async def _enter_after_list(self, features_timeout_s: float) -> bool:
        """Whatever becomes of the question, only a refused enhanced mode is a refusal."""
        await self.log_in()
        try:
            async with asyncio.timeout(features_timeout_s):
                if not await self.list_features():
                    return False
            await self._enter_enhanced()
        except RequestRefused:
            if self.features is not None:
                raise
        except (ConnectionLost, WireError, OSError):
            pass
        else:
            return True
        return False

    async def _enter_enhanced(self) -> None:
        self._machine.request_enhanced()
        await self._expect(EnhancedEntered)

    async def _expect(self, kind: type[_E]) -> _E:
        ended = False
        while True:
            event = self._machine.next_event()
            self._write()
            if isinstance(event, kind):
                return event
            if ended:
                raise ConnectionLost(f"{self.url} closed the connection")
            if event is None and not await self._read():
                self._machine.receive_end()
                ended = True

    async def _read(self) -> bool:
        assert self._reader is not None
        octets = await self._reader.read(_READ_OCTETS)
        self._machine.receive(octets)
        return bool(octets)

    def _write(self) -> None:
        assert self._writer is not None
        self._writer.write(self._machine.octets_to_send())
