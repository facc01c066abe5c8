"""Reply codes, their words, and what a failed system call becomes."""

import errno

import pytest

from mcastsocks.wire.replies import MEANING, ReplyCode, meaning, of_errno
from tests import scapy_layers


def test_codes_have_the_words_of_the_drafts() -> None:
    assert {int(code): words for code, words in MEANING.items()} == scapy_layers.CONTROL_REPLIES
    assert set(ReplyCode) == MEANING.keys()


def test_a_code_without_words_is_named_by_its_number() -> None:
    assert meaning(0x12) == "multicast send not allowed by ruleset"
    assert meaning(0x99) == "reply code X'99'"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENETUNREACH, 0x03),
        (errno.EHOSTUNREACH, 0x04),
        (errno.ECONNREFUSED, 0x05),
        (errno.EAFNOSUPPORT, 0x08),
        (errno.ENOBUFS, 0x01),
        (errno.EMFILE, 0x01),
        (0, 0x01),
        (None, 0x01),
    ],
)
def test_errno_becomes_a_reply(number: int | None, code: int) -> None:
    assert of_errno(number) == code
