"""The relay's configuration: one TOML file, or the embedded default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from mcastsocks import settings
from mcastsocks.address import IPAddress
from mcastsocks.client.url import RelayUrl
from mcastsocks.errors import ConfigError
from mcastsocks.rules.model import Rule
from mcastsocks.rules.users import Users, load_users, read_secret
from mcastsocks.server.sections import (
    Auth,
    Inside,
    Limits,
    Log,
    OutsideSettings,
    PlaneSettings,
    Socks,
    UpstreamSettings,
)
from mcastsocks.settings import Location, Places, Settings, problems

DEFAULT_PORT = 1080

EMBEDDED_DEFAULT = f"""\
[inside]
listen = ["127.0.0.1:{DEFAULT_PORT}"]
[outside]
interface = "lo"
[auth]
methods = ["none"]
[[rules]]
name = "not the relay itself"
allow = false
do = ["udp", "connect", "bind"]
to = ["127.0.0.0/8", "::1"]
ports = "{DEFAULT_PORT}-{DEFAULT_PORT + 100}"
[[rules]]
name = "loopback to loopback"
allow = true
do = ["udp", "connect", "bind"]
clients = ["127.0.0.0/8", "::1"]
to = ["127.0.0.0/8", "::1"]
[[rules]]
name = "groups of this organisation, on this host"
allow = true
do = ["receive-group", "send-group"]
clients = ["127.0.0.0/8", "::1"]
groups = ["239.0.0.0/8"]
max_ttl = 1
"""


def _as_list(value: Any) -> Any:
    """One table may stand for a list of one."""
    return [value] if isinstance(value, dict) else value


class Config(Settings):
    inside: Inside
    outside: Annotated[list[OutsideSettings], Field(min_length=1), BeforeValidator(_as_list)]
    upstream: Annotated[list[UpstreamSettings], BeforeValidator(_as_list)] = []
    auth: Auth
    socks: Socks = Socks()
    plane: PlaneSettings = PlaneSettings()
    limits: Limits = Limits()
    log: Log = Log()
    rules: list[Rule] = []

    @model_validator(mode="after")
    def _tables_agree(self) -> Config:
        outsides = [outside.called for outside in self.outside]
        upstreams = [upstream.name for upstream in self.upstream]
        found = [
            *_again("outside", outsides, "rules name outsides"),
            *_again("upstream", upstreams, "rules name upstreams"),
            *_again("rules", [rule.name for rule in self.rules], "records name rules"),
        ]
        for index, rule in enumerate(self.rules):
            if rule.via is not None and rule.via not in outsides:
                found.append(
                    (("rules", index, "via"), f"no outside is called {rule.via!r}; known are {_list(outsides)}")
                )
            if rule.upstream is not None and rule.upstream not in upstreams:
                known = f"known are {_list(upstreams)}" if upstreams else "there is no [[upstream]]"
                found.append((("rules", index, "upstream"), f"no upstream is called {rule.upstream!r}; {known}"))
            if "mm" in rule.modes and self.inside.interface is None and self.inside.listen[0].address.is_unspecified:
                found.append(
                    (("rules", index, "modes"), 'MM-mode needs [inside] interface = "NAME": where to multicast')
                )
        found += self._problems_of_ports()
        if found:
            raise problems(*found)
        return self

    def _problems_of_ports(self) -> list[tuple[Location, str]]:
        workers, listen = self.plane.workers, self.inside.listen
        found: list[tuple[Location, str]] = []
        for index, endpoint in enumerate(listen):
            if endpoint.port + workers > 65_536:
                why = f"{workers} workers take UDP ports from {endpoint.port} on, and there are not so many"
                found.append((("inside", "listen", index), why))
            for before, other in enumerate(listen[:index]):
                if _meet(endpoint.address, other.address) and 0 < abs(other.port - endpoint.port) < workers:
                    why = f"its {workers} workers' UDP ports overlap with those of inside.listen[{before}]"
                    found.append((("inside", "listen", index), why))
        if not self.udp_ports:
            why = "no ports are left above the one listened on: name some for UDP ASSOCIATE"
            found.append((("socks", "udp_ports"), why))
        elif len(self.udp_ports) < workers:
            why = f"{len(self.udp_ports)} ports for {workers} workers: each needs one at least for UDP ASSOCIATE"
            found.append((("socks", "udp_ports"), why))
        taken = {port for endpoint in listen for port in self.worker_ports(endpoint.port)}
        if taken := taken.intersection(self.udp_ports):
            why = f"port {min(taken)} carries the enhanced mode's datagrams: [inside] listen"
            found.append((("socks", "udp_ports"), why))
        return found

    @property
    def udp_ports(self) -> range:
        """The relay's own ports for UDP ASSOCIATE."""
        above = max(endpoint.port for endpoint in self.inside.listen) + self.plane.workers
        return self.socks.udp_ports or range(above, min(above + 100, 65_536))

    def udp_ports_of(self, worker: int) -> range:
        """The part of them that one worker has for itself; none is larger than another by more than a port."""
        ports, workers = self.udp_ports, self.plane.workers
        return ports[len(ports) * worker // workers : len(ports) * (worker + 1) // workers]

    def worker_ports(self, listen: int) -> range:
        """The UDP ports of all workers for the enhanced mode, where this TCP port is listened on."""
        return range(listen, listen + self.plane.workers)

    def is_own_port(self, port: int) -> bool:
        """Whether a worker takes datagrams on this UDP port, now or when it is started again."""
        return port in self.udp_ports or any(port in self.worker_ports(each.port) for each in self.inside.listen)


def _meet(one: IPAddress, other: IPAddress) -> bool:
    """Whether what listens on both has an address in common."""
    return one == other or (one.version == other.version and (one.is_unspecified or other.is_unspecified))


def _again(table: str, names: list[str], why: str) -> list[tuple[Location, str]]:
    """The names in a list of tables that an earlier one has."""
    return [
        ((table, index, "name"), f"{table}[{names.index(name)}] is called {name!r} too; {why}")
        for index, name in enumerate(names)
        if names.index(name) != index
    ]


def _list(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, the users it names, and where it came from."""

    config: Config
    users: Users
    source: str
    text: str = ""
    upstreams: Mapping[str, RelayUrl] = field(default_factory=dict)

    def error(self, *problems: tuple[Location, str]) -> ConfigError:
        """For problems that show only on this host or beside another file."""
        places = Places(self.text, self.source)
        return ConfigError(*(f"{places[location]}: {why}" for location, why in problems))


def load_config(path: Path | None) -> Loaded:
    """Read a file, or the embedded default for None. Raises ConfigError with a line for each problem."""
    text = EMBEDDED_DEFAULT if path is None else settings.read(path)
    source = "embedded default" if path is None else str(path)
    loaded = Loaded(settings.parse(text, Config, source), Users(), source, text)
    if path is not None and loaded.config.auth.users is not None:
        file = path.parent / loaded.config.auth.users
        if not file.exists():
            raise loaded.error((("auth", "users"), f"no file {file}; 'mcastsocks user add NAME -f {file}' writes it"))
        loaded = replace(loaded, users=load_users(file))
    loaded = replace(loaded, upstreams=_upstreams(loaded, path))
    _check_rule_users(loaded)
    return loaded


def _upstreams(loaded: Loaded, path: Path | None) -> dict[str, RelayUrl]:
    """With their passwords. Raises ConfigError for a file that is not there, or that others may read."""
    urls = {}
    for index, upstream in enumerate(loaded.config.upstream):
        url = upstream.relay
        if upstream.password_file is not None and path is not None:
            place = ("upstream", index, "password_file")
            try:
                password = read_secret(path.parent / upstream.password_file)
            except ConfigError as error:
                raise loaded.error((place, str(error))) from None
            if url.user is None:
                raise loaded.error((place, "a password and no user: expected relay = socks5://user@host"))
            if len(password.encode()) > 255:
                raise loaded.error((place, "the password in that file has more than 255 octets (RFC 1929)"))
            url = replace(url, password=password)
        urls[upstream.name] = url
    return urls


def _check_rule_users(loaded: Loaded) -> None:
    strangers = [
        (("rules", number, "users", index), f"{user!r} is not in the users file")
        for number, rule in enumerate(loaded.config.rules)
        for index, user in enumerate(rule.users or ())
        if user not in loaded.users.users and user[1:] not in (loaded.users.teams if user.startswith("@") else ())
    ]
    if strangers:
        raise loaded.error(*strangers)
