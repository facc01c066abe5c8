"""Which association a datagram from outside belongs to (mcast §4.5)."""

import pytest

from mcastsocks.tables.remotes import RemoteIndex

HOST, OTHER = "198.51.100.7", "198.51.100.8"


def index(*ports: int) -> RemoteIndex:
    """Remotes at one host, AIDs 1, 2, ... from the oldest."""
    remotes = RemoteIndex()
    for aid, port in enumerate(ports, 1):
        remotes.add((HOST, port), aid)
    return remotes


@pytest.mark.parametrize(
    ("ports", "source", "aid"),
    [
        ([53], 53, 1),
        ([53], 54, 1),  # only the address has to fit
        ([53, 54], 54, 2),
        ([53, 54], 55, 1),
        ([0, 53], 53, 2),  # the exact port wins over any port
        ([53, 0], 54, 2),  # any port wins over another port
        ([53, 0, 0], 54, 2),
        ([53, 53], 53, 1),
        ([54, 53, 53], 53, 2),
    ],
)
def test_exact_port_then_any_port_then_the_oldest_of_the_address(ports: list[int], source: int, aid: int) -> None:
    assert index(*ports).match(HOST, source) == aid


def test_another_address_is_expected_by_nobody() -> None:
    assert index(53, 0).match(OTHER, 53) is None
    assert RemoteIndex().match(HOST, 53) is None


def test_the_next_oldest_takes_over_when_one_goes() -> None:
    remotes = index(53, 53, 0)
    for expected in (1, 2, 3):
        assert remotes.match(HOST, 53) == expected
        remotes.remove((HOST, 0 if expected == 3 else 53), expected)
    assert remotes.match(HOST, 53) is None
    assert not remotes


def test_index_is_true_while_it_expects_anybody() -> None:
    remotes = index(53)
    assert remotes
    remotes.remove((HOST, 53), 1)
    assert not remotes


@pytest.mark.parametrize(("host", "port", "aid"), [(OTHER, 53, 1), (HOST, 54, 1), (HOST, 53, 2)])
def test_what_was_never_added_cannot_be_removed_and_nothing_changes(host: str, port: int, aid: int) -> None:
    remotes = index(53)
    with pytest.raises(ValueError, match="is not at"):
        remotes.remove((host, port), aid)
    assert remotes.match(HOST, 53) == remotes.match(HOST, 99) == 1
