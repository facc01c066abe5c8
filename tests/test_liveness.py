"""What the kernel is told about a connection whose peer may die."""

import socket

from mcastsocks.liveness import detect_dead_peer


def test_kernel_probes_a_silent_peer_and_gives_up_in_time() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        detect_dead_peer(sock, 30)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_a_single_second_is_enough_to_ask_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        detect_dead_peer(sock, 1)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
