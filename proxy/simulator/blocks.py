"""Paged KV cache: a sequence that holds T tokens occupies ceil(T / block) blocks (Kwon et al., SOSP 2023).

Without prefix caching all blocks are alike, so the pool is a count and no table of which block is whose is kept.
"""

from __future__ import annotations


def blocks_for(tokens: int, block_tokens: int) -> int:
    return -(-tokens // block_tokens)


class BlockPool:
    """`used + free == total` at all times; taking more than is free, or giving back more than is used, is an error."""

    __slots__ = ("total", "used")

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0

    def __repr__(self) -> str:
        return f"BlockPool({self.used}/{self.total})"

    @property
    def free(self) -> int:
        return self.total - self.used

    def take(self, blocks: int) -> None:
        if blocks > self.free:
            raise ValueError(f"{blocks} blocks asked of {self!r}")
        self.used += blocks

    def give(self, blocks: int) -> None:
        if blocks > self.used:
            raise ValueError(f"{blocks} blocks given back to {self!r}")
        self.used -= blocks
