"""What the kernel is asked to do for a connection: to notice a peer that vanished, to acknowledge events two at a
time, and to say how near its bound it is.

A host that is lost sends neither FIN nor RST. Keep-alive probes (tcp(7)) find that out while nothing is in flight: the
first after 15 s of silence, then every 5 s, given up after three, so within 30 s. Data that nobody acknowledges is
given up after `UNACKNOWLEDGED_S`, the cap on silence inside a stream, instead of after 15 minutes of retransmissions.

Descriptors are given out lowest first: a new one numbered n says that n others are open.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import struct
from typing import Final, Protocol

KEEP_ALIVE_IDLE_S, KEEP_ALIVE_EVERY_S, KEEP_ALIVE_PROBES = 15, 5, 3
UNACKNOWLEDGED_S: Final = 60
TCP_INFO_BYTES = 148  # as far as it is read

# A connection cannot be opened for want of something of this machine: its peer has no part in it.
OWN_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class Adjustable(Protocol):
    """A socket, or what an event loop shows of one."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


class Readable(Protocol):
    """A socket, or what an event loop shows of one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def watch_peer(one: Adjustable, give_up_unacknowledged: bool) -> None:
    """Have the kernel notice when the peer's host is gone. A listening socket hands this on to what it accepts.

    `give_up_unacknowledged` also ends a peer that takes nothing for so long; where own deadlines judge that, leave it.
    """
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": KEEP_ALIVE_IDLE_S, "TCP_KEEPINTVL": KEEP_ALIVE_EVERY_S, "TCP_KEEPCNT": KEEP_ALIVE_PROBES}
    if give_up_unacknowledged:
        options["TCP_USER_TIMEOUT"] = UNACKNOWLEDGED_S * 1000
    for name, value in options.items():
        number = getattr(socket, name, None)
        if number is not None:  # Linux has them all
            one.setsockopt(socket.IPPROTO_TCP, number, value)


def adjust_upstream(one: Adjustable) -> None:
    """For a new connection to an upstream: have the kernel watch the peer, and acknowledge late (RFC 9293, 3.8.6.3).

    By itself Linux does that only once a request has followed an answer at once; else it sends a segment back for each
    event that is read. Late, that of every second event is sent, and one that has waited for 40 ms, after which it is
    at once again. A peer that holds small segments back meanwhile (RFC 896: no TCP_NODELAY) loses that time once.
    """
    watch_peer(one, give_up_unacknowledged=True)
    number = getattr(socket, "TCP_QUICKACK", None)
    if number is not None:  # Linux has it
        one.setsockopt(socket.IPPROTO_TCP, number, 0)


def all_taken(transport: asyncio.Transport | None) -> bool:
    """Whether the peer's kernel has acknowledged all that was sent; False where that is not told.

    A peer that had closed before a request came acknowledges nothing of it; one that took it may have begun with it.
    `tcpi_unacked` and `tcpi_notsent_bytes` of struct tcp_info (linux/tcp.h), at bytes 24 and 144.
    """
    one: Readable | None = transport.get_extra_info("socket") if transport is not None else None
    number = getattr(socket, "TCP_INFO", None)
    if one is None or number is None:
        return False
    told = one.getsockopt(socket.IPPROTO_TCP, number, TCP_INFO_BYTES)
    if len(told) < TCP_INFO_BYTES:
        return False
    (unacknowledged,), (unsent,) = (struct.unpack_from("=I", told, at) for at in (24, 144))
    return not unacknowledged and not unsent


def spare_files(fd: int) -> int:
    """How many descriptors beyond `fd`, one just opened, are still allowed."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft - 1 - fd


def reserve() -> int:
    """Descriptors that no further client may take, so that those who are in can be served: an eighth, 8 to 256."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 256 if soft == resource.RLIM_INFINITY else min(max(soft // 8, 8), 256)


def is_own_shortage(error: OSError) -> bool:
    """Whether this machine lacked what a connection needs. A resolver that finds no file says only that it failed."""
    if error.errno in OWN_SHORTAGES:
        return True
    try:
        os.close(os.dup(0))
    except OSError as found:
        return found.errno in OWN_SHORTAGES
    return False
