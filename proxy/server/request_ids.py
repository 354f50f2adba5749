"""Names of requests that came without one."""

from __future__ import annotations

import os
from typing import Final

_IDS = "req-%s%06x"  # a variable: see `adapters/log_lines`
_LAST: Final = [f"{number:02x}" for number in range(256)]  # a format costs more than a concatenation


class RequestIds:
    """Unique over processes: a random prefix and a number."""

    __slots__ = ("_count", "_ids", "_prefix")

    def __init__(self) -> None:
        self._prefix = os.urandom(5).hex()
        self._count = 0
        self._ids = ""  # what 256 of them have alike

    def next(self) -> str:
        self._count += 1
        last = self._count & 255
        if not last or not self._ids:
            self._ids = _IDS % (self._prefix, self._count >> 8)
        return self._ids + _LAST[last]
