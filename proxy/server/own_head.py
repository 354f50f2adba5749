"""Header lines of every answer that the proxy makes itself: JSON, for no cache, with its time (RFC 9110 6.6.1)."""

from __future__ import annotations

import time
from email.utils import formatdate

_made: tuple[int, bytes] = (-1, b"")


def own_lines() -> bytes:
    """The lines, made once a second. The wall clock decides nothing but the date that is shown."""
    global _made
    second = int(time.time())
    if second != _made[0]:
        date = formatdate(second, usegmt=True).encode("ascii")
        _made = second, b"content-type: application/json\r\ncache-control: no-store\r\ndate: %b\r\n" % date
    return _made[1]
