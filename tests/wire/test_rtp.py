"""What passes for RTP or RTCP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.wire.rtp import is_rtp

RTP = bytes.fromhex("80 60 1234 00000001 deadbeef")
RTCP = bytes.fromhex("80 c9 0001 deadbeef")


@pytest.mark.parametrize(
    "data",
    [
        RTP,
        RTP + b"payload",
        b"\x80\xe0" + RTP[2:],  # marker bit
        b"\xb0" + RTP[1:],  # padding and extension
        b"\x82" + RTP[1:] + bytes(8),  # two contributing sources
        RTCP,
        RTCP + b"\x81\xca\x00\x01\xde\xad\xbe\xef",  # a compound
    ],
)
def test_rtp_and_rtcp_pass(data: bytes) -> None:
    assert is_rtp(data)
    assert is_rtp(memoryview(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        RTP[:11],
        b"\x00" + RTP[1:],
        b"\x40" + RTP[1:],
        b"\xc0" + RTP[1:],
        b"\x82" + RTP[1:] + bytes(7),  # a contributing source cut short
        RTCP[:7],
        b"\x80\xc9\x00\x02" + RTCP[4:],  # longer than the datagram
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_cannot_be_either_does_not(data: bytes) -> None:
    assert not is_rtp(data)


@given(st.binary(max_size=64))
def test_anything_gets_an_answer(data: bytes) -> None:
    assert is_rtp(data) in (True, False)
