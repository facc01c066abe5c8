"""No octet is lost between asyncio's streams and the plain socket."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mcastsocks.server.streams.handover import hand_over
from tests.server.streams.pairs import drop, pair, receive_all, reset, run, until

Streams = tuple[socket.socket, asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def session(buffer_octets: int | None = None) -> AsyncIterator[Streams]:
    """A client's socket and the streams of its session."""
    client, inside = pair(buffer_octets)
    reader, writer = await asyncio.open_connection(sock=inside)
    with client:
        yield client, reader, writer
        writer.close()


def test_octets_read_ahead_come_with_the_socket() -> None:
    async def test() -> None:
        async with session() as (client, reader, writer):
            client.send(b"request, early")
            assert await reader.readexactly(9) == b"request, "
            sock, early = await hand_over(reader, writer)
            with sock:
                client.send(b" and later")
                assert (early, sock.getblocking()) == (b"early", False)
                assert await asyncio.get_running_loop().sock_recv(sock, 100) == b" and later"

    run(test())


def test_octets_that_arrive_meanwhile_are_in_one_or_the_other() -> None:
    octets = random.Random(3).randbytes(1_000_000)

    async def test() -> None:
        async with session() as (client, reader, writer):
            sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, octets))
            begun = await reader.readexactly(1)
            sock, early = await hand_over(reader, writer)
            with sock:
                receiving = asyncio.create_task(receive_all(sock))
                await sending
                client.shutdown(socket.SHUT_WR)
                assert begun + early + await receiving == octets

    run(test())


def test_reply_reaches_a_slow_client_first() -> None:
    async def test() -> None:
        async with session(buffer_octets=20_000) as (client, reader, writer):
            writer.write(bytes(500_000))
            handing = asyncio.create_task(hand_over(reader, writer))
            await asyncio.sleep(0)
            assert not handing.done()
            await drop(client, 500_000)
            sock, _ = await handing
            with sock:
                await asyncio.get_running_loop().sock_sendall(sock, b"next")
                assert await asyncio.get_running_loop().sock_recv(client, 10) == b"next"

    run(test())


def test_end_of_stream_that_came_already_is_told_again() -> None:
    async def test() -> None:
        async with session() as (client, reader, writer):
            client.send(b"all")
            client.shutdown(socket.SHUT_WR)
            assert await reader.readexactly(3) == b"all"
            await until(reader.at_eof)
            sock, early = await hand_over(reader, writer)
            with sock:
                assert early == b""
                assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""
                await asyncio.get_running_loop().sock_sendall(sock, b"answer")
                assert await asyncio.get_running_loop().sock_recv(client, 10) == b"answer"

    run(test())


def test_lost_connection_is_an_error() -> None:
    async def test() -> None:
        async with session() as (client, reader, writer):
            reset(client)
            await until(writer.transport.is_closing)
            with pytest.raises(ConnectionResetError):
                await hand_over(reader, writer)

    run(test())
