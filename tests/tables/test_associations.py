"""Who holds which associations, and how many more there may be."""

from dataclasses import replace

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.tables.associations import Association, AssociationTable, Channel, Grant, TableLimits
from mcastsocks.tables.changes import Terms
from tests.tables.desk import GROUP, GROUP_V6, HOST, LOCAL, ROOMY, R, S, at, channel

ALICE, ALICES_OTHER, BOB = channel(1), channel(2), channel(3, "192.0.2.20", "bob")
SAME_ADDRESS_OTHER_PORT = at("239.1.2.3", 5005)


def opened(table: AssociationTable, by: Channel, *targets: Endpoint) -> list[Association]:
    return [table.open(by, LOCAL, target, target, now=1.0) for target in targets]


def test_association_is_found_by_its_own_channel_only() -> None:
    table = AssociationTable(ROOMY)
    (association,) = opened(table, ALICE, HOST)
    assert table.get(association.aid, ALICE) is association
    assert table.get(association.aid, ALICES_OTHER) is None
    assert table.get(association.aid, BOB) is None
    assert table.get(association.aid + 1, ALICE) is None


def test_new_association_holds_no_direction_yet() -> None:
    (association,) = opened(AssociationTable(ROOMY), ALICE, GROUP)
    assert (association.is_group, association.directions) == (True, 0)


@pytest.mark.parametrize("directions", [0, R, S, R | S])
def test_a_grant_keeps_what_it_is_told_to(directions: int) -> None:
    grant = Grant(Terms(sends=True, receives=True, ttl=3), ("rule",), 7, "hub")
    kept = grant.keeping(directions)
    assert kept.directions == directions
    assert kept.terms == grant.terms._replace(sends=bool(directions & S), receives=bool(directions & R))
    assert kept == grant._replace(terms=kept.terms)


def test_grants_that_agree_are_one() -> None:
    grants = [Grant(Terms(sends=True, ttl=1), ("rule",)).with_ttl(5) for _ in range(2)]
    assert grants[0] is grants[1]
    assert grants[0] == Grant(Terms(sends=True, ttl=5), ("rule",))


def test_association_is_a_group_by_where_its_datagrams_go() -> None:
    association = AssociationTable(ROOMY).open(ALICE, LOCAL, at("group.example", 5004), GROUP, now=1.0)
    assert association.is_group


def test_channel_lists_its_own_oldest_first_and_they_may_be_closed_on_the_way() -> None:
    table = AssociationTable(ROOMY)
    mine = opened(table, ALICE, HOST, GROUP, GROUP_V6, HOST)
    (other,) = opened(table, BOB, GROUP)
    seen = []
    for association in table.of_channel(ALICE):
        seen.append(association)
        table.close(association)
    assert seen == mine
    assert list(table.of_channel(ALICE)) == []
    assert (len(table), table.get(other.aid, BOB)) == (1, other)


def test_closed_association_is_unknown() -> None:
    table = AssociationTable(ROOMY)
    (association,) = opened(table, ALICE, HOST)
    table.close(association)
    assert (len(table), table.get(association.aid, ALICE)) == (0, None)
    with pytest.raises(KeyError):
        table.close(association)


# --- limits: what is held, what is asked for, and what stands in its way ---

FULL, PER_USER = "the relay is full", "alice "
LIMITS = [
    # one limit, held by alice, held by bob, asked by alice: the refusal's first words, None while there is room
    ("associations", 2, [HOST], [], HOST, None),
    ("associations", 2, [HOST], [HOST], HOST, FULL),
    ("associations", 2, [HOST, HOST], [], GROUP, FULL),
    ("associations_per_user", 2, [HOST], [HOST, HOST], HOST, None),
    ("associations_per_user", 2, [HOST, GROUP], [], HOST, PER_USER),
    ("groups", 2, [GROUP], [], GROUP_V6, None),
    ("groups", 2, [GROUP], [GROUP_V6], SAME_ADDRESS_OTHER_PORT, FULL),
    ("groups", 2, [GROUP], [GROUP_V6], GROUP_V6, None),  # a group in use is no further group
    ("groups", 2, [GROUP], [GROUP_V6], HOST, None),
    ("groups", 2, [GROUP, GROUP, GROUP], [], GROUP_V6, None),
    ("groups_per_user", 2, [GROUP], [GROUP_V6, SAME_ADDRESS_OTHER_PORT], GROUP_V6, None),
    ("groups_per_user", 2, [GROUP, GROUP_V6], [], SAME_ADDRESS_OTHER_PORT, PER_USER),
    ("groups_per_user", 2, [GROUP, GROUP_V6], [], GROUP, None),
    ("groups_per_user", 2, [GROUP, GROUP_V6], [], HOST, None),
    ("group_associations_per_user", 2, [GROUP], [GROUP, GROUP], GROUP, None),
    ("group_associations_per_user", 2, [GROUP, GROUP], [], GROUP, PER_USER),
    ("group_associations_per_user", 2, [GROUP, GROUP], [], SAME_ADDRESS_OTHER_PORT, None),
    ("group_associations_per_user", 2, [HOST, HOST], [], HOST, None),
]


def limited(which: str, limit: int) -> TableLimits:
    return replace(ROOMY, **{which: limit})


@pytest.mark.parametrize(("which", "limit", "alices", "bobs", "asked", "refusal"), LIMITS)
def test_limit_counts_what_is_held(
    which: str, limit: int, alices: list[Endpoint], bobs: list[Endpoint], asked: Endpoint, refusal: str | None
) -> None:
    table = AssociationTable(limited(which, limit))
    opened(table, ALICE, *alices)
    opened(table, BOB, *bobs)
    full = table.full_for(ALICE, LOCAL, asked)
    assert (full and full[: len(refusal or "")]) == refusal
    assert full == table.full_for(ALICES_OTHER, LOCAL, asked), "an account is limited over all its channels"


@pytest.mark.parametrize("which", ["associations", "associations_per_user", "groups", "groups_per_user"])
def test_every_count_returns_to_zero(which: str) -> None:
    table = AssociationTable(limited(which, 2))
    for _ in range(3):
        held = [*opened(table, ALICE, GROUP), *opened(table, ALICES_OTHER, GROUP_V6)]
        assert table.full_for(ALICE, LOCAL, SAME_ADDRESS_OTHER_PORT) is not None
        for association in held:
            table.close(association)
            assert table.full_for(ALICE, LOCAL, SAME_ADDRESS_OTHER_PORT) is None
        assert len(table) == 0


def test_group_counts_until_its_last_association_goes() -> None:
    table = AssociationTable(limited("groups", 1))
    first, second = opened(table, ALICE, GROUP, GROUP)
    table.close(first)
    assert table.full_for(BOB, LOCAL, GROUP_V6) is not None
    table.close(second)
    assert table.full_for(BOB, LOCAL, GROUP_V6) is None


@pytest.mark.parametrize(
    ("by", "local", "has_room"),
    [
        (ALICE, LOCAL, True),  # in use already
        (ALICE, None, True),
        (ALICE, at("192.0.2.10", 5005), False),
        (ALICES_OTHER, LOCAL, False),  # of another connection, hence another socket
        (BOB, LOCAL, True),
    ],
)
def test_user_has_a_number_of_local_endpoints_over_all_channels(
    by: Channel, local: Endpoint | None, has_room: bool
) -> None:
    table = AssociationTable(limited("local_endpoints_per_user", 2))
    for endpoint in (LOCAL, None, LOCAL):
        table.open(ALICE, endpoint, HOST, HOST, now=1.0)
    assert (table.full_for(by, local, HOST) is None) == has_room


def test_local_endpoint_counts_until_its_last_association_goes() -> None:
    table = AssociationTable(limited("local_endpoints_per_user", 1))
    first, second = opened(table, ALICE, HOST, GROUP)
    table.close(first)
    assert table.full_for(ALICE, None, HOST) is not None
    table.close(second)
    assert table.full_for(ALICE, None, HOST) is None


def test_association_of_a_group_counts_until_it_goes() -> None:
    table = AssociationTable(limited("group_associations_per_user", 1))
    (association,) = opened(table, ALICE, GROUP)
    assert table.full_for(ALICES_OTHER, LOCAL, GROUP) is not None
    table.close(association)
    assert table.full_for(ALICES_OTHER, LOCAL, GROUP) is None
