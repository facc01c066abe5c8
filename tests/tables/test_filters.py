"""Source filters, and what the kernel has to let in for several of them (RFC 3376 §3.2)."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.address import IPAddress
from mcastsocks.tables.filters import ANY_SOURCE, SourceFilter, union
from tests.wire.strategies import quick

A, B, C, D = (ip_address(f"198.51.100.{last}") for last in (1, 2, 3, 4))
ALL = (A, B, C, D)


def only(*sources: IPAddress) -> SourceFilter:
    return SourceFilter(True, frozenset(sources))


def all_but(*sources: IPAddress) -> SourceFilter:
    return SourceFilter(False, frozenset(sources))


any_filter = st.builds(SourceFilter, st.booleans(), st.frozensets(st.sampled_from(ALL)))


@pytest.mark.parametrize(
    ("wanted", "admitted"),
    [(ANY_SOURCE, ALL), (only(A, B), (A, B)), (all_but(A, B), (C, D)), (only(), ()), (all_but(), ALL)],
)
def test_filter_admits_its_sources_or_all_but_them(wanted: SourceFilter, admitted: tuple[IPAddress, ...]) -> None:
    assert tuple(source for source in ALL if wanted.admits(source)) == admitted


@pytest.mark.parametrize(
    ("filters", "kernel"),
    [
        ([], only()),
        ([ANY_SOURCE], ANY_SOURCE),
        ([only(A)], only(A)),
        ([only(A), only(B, C)], only(A, B, C)),
        ([all_but(A, B), all_but(B, C)], all_but(B)),
        ([all_but(A, B), ANY_SOURCE], ANY_SOURCE),
        # as in the RFC's example: two that exclude, and one that includes some of what both exclude
        ([all_but(A, B, C), all_but(B, C, D), only(C, D)], all_but(B)),
        ([only(A), all_but(A)], ANY_SOURCE),
    ],
)
def test_union_is_that_of_rfc_3376(filters: list[SourceFilter], kernel: SourceFilter) -> None:
    assert union(filters) == kernel
    assert union(reversed(filters)) == kernel


@quick
@given(st.lists(any_filter, max_size=5), st.sampled_from(ALL))
def test_union_admits_a_source_exactly_when_one_of_the_filters_does(
    filters: list[SourceFilter], source: IPAddress
) -> None:
    assert union(filters).admits(source) == any(wanted.admits(source) for wanted in filters)


@quick
@given(st.lists(any_filter, min_size=1, max_size=5))
def test_union_takes_filters_once_and_excludes_only_where_one_of_them_does(filters: list[SourceFilter]) -> None:
    assert union(iter(filters)) == union(filters) == union([*filters, union(filters)])
    assert union(filters).include == all(wanted.include for wanted in filters)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (ANY_SOURCE, "any source"),
        (only(B, A), "only 198.51.100.1,198.51.100.2"),
        (all_but(C), "all but 198.51.100.3"),
    ],
)
def test_filter_reads_as_words(wanted: SourceFilter, words: str) -> None:
    assert str(wanted) == words


def test_sources_are_told_in_the_order_of_addresses_and_not_of_their_text() -> None:
    assert str(SourceFilter(True, frozenset((ip_address("192.0.2.10"), ip_address("192.0.2.9"))))) == (
        "only 192.0.2.9,192.0.2.10"
    )
