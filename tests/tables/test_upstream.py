"""A UDP BIND whose rule names an upstream: what the plane is told, and what cannot go through one."""

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.tables.changes import AddEntry
from mcastsocks.wire.control import ControlReply
from mcastsocks.wire.options import reason
from mcastsocks.wire.replies import ReplyCode
from tests.tables.desk import EXT, GROUP, HOST, MM, MU, NONE, Desk, M, R, S, U, binding, kinds, releasing

HUB: dict[int, str] = {R: "hub", S: "hub"}


def through_hub(**attributes: object) -> Desk:
    desk = Desk()
    desk.upstreams = dict(HUB)
    for name, value in attributes.items():
        setattr(desk, name, value)
    return desk


@pytest.mark.parametrize(("flags", "remote", "ttl"), [(R | S | U, HOST, 0), (R | S | M, GROUP, 1), (R | M, GROUP, 0)])
def test_plane_is_told_and_joins_nothing(flags: int, remote: Endpoint, ttl: int) -> None:
    desk = through_hub()
    association = desk.opened(binding(flags, remote, ttl=ttl))
    assert association.grant.upstream == "hub"
    [change] = desk.plane.changes
    assert isinstance(change, AddEntry)
    assert change.terms.upstream
    assert desk.plane.memberships == []
    assert desk.ask(releasing(association.aid)).code == 0x00


def test_without_one_the_plane_is_told_of_none() -> None:
    desk = Desk()
    assert desk.opened(binding()).grant.upstream == ""
    assert not next(iter(desk.plane.terms.values())).upstream


@pytest.mark.parametrize("upstreams", [{R: "hub"}, {S: "hub"}, {R: "hub", S: "other"}])
def test_directions_by_different_ways_are_refused(upstreams: dict[object, str]) -> None:
    desk = through_hub(upstreams=upstreams)
    reply = desk.ask(binding(R | S | M | EXT, ttl=1))
    assert (reply.code, reply.flags, len(desk.table)) == (0x01, R | M | EXT, 0)
    assert b"different ways" in reply.options[0].value


@pytest.mark.parametrize(("held", "asked"), [(R, S), (S, R)])
@pytest.mark.parametrize("first", ["", "hub"])
def test_an_added_direction_goes_the_way_of_the_one_held(held: int, asked: int, first: str) -> None:
    desk = through_hub(upstreams={R: first, S: first})
    association = desk.opened(binding(held | M, ttl=1))
    desk.upstreams = {R: "other", S: "other"}
    assert desk.ask(binding(asked | M, aid=association.aid, ttl=1)).code == 0x01
    assert (association.directions, association.grant.upstream) == (held, first)
    desk.upstreams = {R: first, S: first}
    assert desk.ask(binding(asked | M, aid=association.aid, ttl=1)).code == 0x00


@pytest.mark.parametrize("wish", [NONE, MU, MM])
def test_a_group_goes_in_mu_mode_alone(wish: int) -> None:
    desk = through_hub(modes=("mm", "mu"))
    assert desk.ask(binding(R | M | wish)).flags == R | M | MU
    desk.modes = ("mm",)
    assert desk.ask(binding(R | M | wish)) == ControlReply(0x01, 0x0102, 0, R | M)


def test_what_the_upstream_refuses_opens_nothing_and_says_what_could_be_had() -> None:
    desk = through_hub(refused_upstream=(ReplyCode.GROUP_SEND_NOT_ALLOWED, R))
    reply = desk.ask(binding(R | S | M | EXT, ttl=1))
    why = reason("multicast send not allowed by ruleset: the upstream says so")
    assert reply == ControlReply(0x12, 0x0102, 0, R | M | EXT, options=(why,))
    assert (len(desk.table), kinds(desk.plane.changes)) == (0, [])


def test_a_direction_that_the_upstream_refuses_leaves_the_others() -> None:
    desk = through_hub()
    association = desk.opened(binding(R | M))
    desk.refused_upstream = (ReplyCode.GROUP_SEND_NOT_ALLOWED, NONE)
    assert desk.ask(binding(S | M, aid=association.aid, ttl=1)) == ControlReply(0x12, 0x0102)
    assert (association.directions, len(desk.table)) == (R, 1)
    assert desk.ask(releasing(association.aid)).code == 0x00
