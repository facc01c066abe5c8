"""What the rules say of a destination that a client asks for by address or name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcastsocks.address import Endpoint, IPAddress, unmapped
from mcastsocks.errors import McastsocksError
from mcastsocks.rules.decide import Query, Verdict
from mcastsocks.rules.model import Action
from mcastsocks.server.resolver import ResolveError
from mcastsocks.server.services import Services
from mcastsocks.wire.replies import ReplyCode


class Denied(McastsocksError):
    """With the reply that says so, the drop reason for a datagram, and the words for the record."""

    def __init__(self, code: ReplyCode, drop_reason: str, why: str) -> None:
        super().__init__(why)
        self.code, self.drop_reason, self.why = code, drop_reason, why


@dataclass(frozen=True, slots=True)
class Allowed:
    """Addresses that one verdict opens, best first; all of them are spoken to by the same outside."""

    addresses: tuple[IPAddress, ...]
    verdict: Verdict


class Judge:
    """Asks for one client. Names are judged on the addresses they resolve to."""

    def __init__(self, services: Services, user: str | None, client: IPAddress, account: str) -> None:
        self._services, self._user, self._client, self._account = services, user, client, account

    async def judge(self, action: Action, destination: Endpoint) -> Allowed:
        """Raises Denied."""
        if not isinstance(destination.host, str):
            return self.judge_addresses(action, destination, [unmapped(destination.host)])
        try:
            addresses = await self._services.resolver.resolve(destination.host, self._account)
        except ResolveError as error:
            raise Denied(ReplyCode.HOST_UNREACHABLE, "unresolved", str(error)) from None
        return self.judge_addresses(action, destination, addresses)

    def judge_addresses(self, action: Action, destination: Endpoint, addresses: Sequence[IPAddress]) -> Allowed:
        """The denied ones are dropped, and those that no outside speaks to. Raises Denied when none is left."""
        name = destination.host if isinstance(destination.host, str) else None
        is_nowhere = destination.port == 0 and action != Action.BIND  # there it means any port of that host
        if is_nowhere or any(address.is_unspecified for address in addresses):
            raise Denied(ReplyCode.INVALID_ADDRESS, "bad-address", f"{destination} is no destination")
        if any(address.is_multicast for address in addresses):
            raise Denied(
                ReplyCode.NOT_ALLOWED, "not-allowed", f"{destination} is a group: those need the enhanced mode"
            )
        services = self._services
        judged = [
            (address, services.rules.decide(Query(self._user, self._client, action, address, destination.port, name)))
            for address in addresses
        ]
        allowed = [each for each in judged if each[1].allowed]
        if not allowed:
            raise Denied(ReplyCode.NOT_ALLOWED, "not-allowed", judged[0][1].reason)
        verdict = next((verdict for address, verdict in allowed if services.speaks(address, verdict)), None)
        if verdict is None:
            raise Denied(
                ReplyCode.NETWORK_UNREACHABLE,
                "unreachable",
                f"{allowed[0][1].via} has no IPv{allowed[0][0].version} address",
            )
        if action is Action.UDP and verdict.require:
            why = f"rule {verdict.rule!r} looks into datagrams, which only the enhanced mode does"
            raise Denied(ReplyCode.NOT_ALLOWED, "not-allowed", why)
        return Allowed(
            tuple(address for address, other in allowed if other == verdict and services.speaks(address, other)),
            verdict,
        )
