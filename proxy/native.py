"""What the compiler is told about a class, where that is more than its source says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr  # read by mypyc alone
else:

    def mypyc_attr(**attributes):
        return lambda found: found


__all__ = ["mypyc_attr"]
