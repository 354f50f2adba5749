from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket

import pytest

from proxy.adapters.sockets import adjust_upstream, all_taken, is_own_shortage, reserve, spare_files, watch_peer
from tests.e2e.scripted_upstream import drop_all


def options(one: socket.socket) -> tuple[int, ...]:
    tcp = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    alive = one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return (alive, *(one.getsockopt(socket.IPPROTO_TCP, option) for option in tcp))


@pytest.mark.parametrize(("give_up", "user_timeout_ms"), [(True, 60_000), (False, 0)])
def test_what_a_listening_socket_accepts_is_watched_too(give_up: bool, user_timeout_ms: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        watch_peer(server, give_up)
        with socket.create_connection(server.getsockname()), server.accept()[0] as accepted:
            assert options(accepted) == options(server) == (1, 15, 5, 3, user_timeout_ms)


def test_an_upstream_is_watched_and_acknowledged_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as one:
            assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1, "what Linux begins with"
            adjust_upstream(one)
            assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 0
            assert options(one) == (1, 15, 5, 3, 60_000)
        monkeypatch.delattr(socket, "TCP_QUICKACK")
        with socket.create_connection(server.getsockname()) as one:
            adjust_upstream(one)
            assert options(one) == (1, 15, 5, 3, 60_000), "a system without it does without it"


class Shown(asyncio.Transport):
    """What an event loop shows of a socket."""

    def __init__(self, one: socket.socket | None) -> None:
        super().__init__({"socket": one})


def test_what_the_peer_acknowledged_is_told_from_what_it_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as peer,
    ):
        client.sendall(b"taken")
        assert peer.recv(99) == b"taken"
        assert all_taken(Shown(client))
        drop_all(peer)
        client.sendall(b"lost")
        assert not all_taken(Shown(client))
        monkeypatch.setattr("proxy.adapters.sockets.TCP_INFO_BYTES", 1000)
        assert not all_taken(Shown(client)), "a kernel that tells less"
        monkeypatch.delattr(socket, "TCP_INFO")
        assert not all_taken(Shown(client)), "and one that tells nothing"
    assert not all_taken(None) and not all_taken(Shown(None))


def test_a_system_without_an_option_does_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    with socket.socket() as one:
        watch_peer(one, give_up_unacknowledged=True)
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.mark.parametrize(
    ("soft", "fd", "spare", "kept"),
    [(64, 40, 23, 8), (1024, 1023, 0, 128), (20_000, 3, 19_996, 256), (resource.RLIM_INFINITY, 5, 1 << 30, 256)],
)
def test_the_last_files_are_known_and_kept(
    monkeypatch: pytest.MonkeyPatch, soft: int, fd: int, spare: int, kept: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert (spare_files(fd), reserve()) == (spare, kept)


@pytest.mark.parametrize(
    ("number", "dup_fails", "own"),
    [
        pytest.param(errno.EMFILE, None, True, id="no file"),
        pytest.param(errno.EADDRNOTAVAIL, None, True, id="no port"),
        pytest.param(errno.ECONNREFUSED, None, False, id="refused"),
        pytest.param(socket.EAI_NONAME, None, False, id="no such name"),
        pytest.param(socket.EAI_AGAIN, errno.EMFILE, True, id="a resolver without a file"),
        pytest.param(socket.EAI_AGAIN, errno.EBADF, False, id="standard input is closed"),
    ],
)
def test_who_is_short_of_what(monkeypatch: pytest.MonkeyPatch, number: int, dup_fails: int | None, own: bool) -> None:
    def dup(_: int) -> int:
        raise OSError(dup_fails, "")

    if dup_fails is not None:
        monkeypatch.setattr(os, "dup", dup)
    else:
        monkeypatch.setattr(os, "dup", lambda _: os.open(os.devnull, os.O_RDONLY))
    assert is_own_shortage(OSError(number, "")) is own
