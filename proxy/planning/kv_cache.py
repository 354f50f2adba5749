"""Bytes that a request's cache takes, and how many requests a pool of bytes holds.

Per rank, token and layer: `ceil(kv_heads / tp) * (k_dim + v_dim) * e` (heads replicate below tp), latent attention
`(kv_lora_rank + qk_rope_head_dim) * e` on every rank, the DeepSeek sparse indexer `+ d + d/128*4`, and with an fp8
latent cache `rank + rank/128*4 + rope*2`. A request of L tokens takes `sum over entries of blocks(L) * block_bytes`,

    full     ceil(L / block)
    sliding  ceil(min(window - 1 + batched, L) / block) + 1
    chunked  ceil(min(chunk + batched, L) / block)
    state    1 block, or 2 where prefix caching keeps an aligned copy (vLLM 0.20 on)

vLLM draws all kinds from one pool of equal pages: layers are cut into groups of `min layers of a kind` (the most, if
that is below 1.5 times the least), and the attention block grows until its page holds a recurrent state.
Other engines keep a pool per kind (see split_cache for SGLang's).
Source: vllm/v1/core/kv_cache_utils.py, vllm/v1/kv_cache_interface.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction

from proxy.planning.geometry import LayerGroup, StateGroup
from proxy.planning.layers import Kind
from proxy.planning.precision import KV_BYTES
from proxy.planning.shapes import ModelShape

CONV_BYTES = 2  # convolution states stay at 16 bit
STATE_BLOCK_STEP = 16
GROUP_RATIO = Fraction(3, 2)
SCALE_GROUP = 128


def ceil_div(amount: int, by: int) -> int:
    return -(-amount // by)


def layer_bytes(group: LayerGroup, kv_dtype: str, tp: int) -> Fraction:
    """Bytes per token of one layer on one rank."""
    size = KV_BYTES[kv_dtype]
    if group.latent_dim:
        index = group.index_dim + Fraction(group.index_dim, SCALE_GROUP) * 4
        rank = group.latent_dim - group.rope_dim
        if group.index_dim and kv_dtype == "fp8":
            return rank + Fraction(rank, SCALE_GROUP) * 4 + group.rope_dim * 2 + index
        return group.latent_dim * size + index
    return ceil_div(group.kv_heads, tp) * (group.k_dim + group.v_dim) * size


def token_bytes(shape: ModelShape, kv_dtype: str, tp: int, pp: int = 1) -> int:
    """Bytes per token per rank while every layer still grows (cross attention, which never grows, left out)."""
    growing = (group for group in shape.groups if group.kind is not Kind.CROSS)
    return int(sum(ceil_div(group.layers, pp) * layer_bytes(group, kv_dtype, tp) for group in growing))


def without_windows(shape: ModelShape) -> ModelShape:
    """The shape as an engine sees it that keeps every token of every layer (vLLM before its hybrid manager)."""
    merged: Counter[LayerGroup] = Counter()
    for group in shape.groups:
        merged[replace(group, kind=Kind.FULL, window_tokens=None, layers=0)] += group.layers
    return replace(shape, groups=tuple(replace(group, layers=count) for group, count in merged.items()))


def state_bytes(state: StateGroup, tp: int) -> int:
    """Bytes of one recurrent layer's state of one sequence on one rank."""
    return int(Fraction(state.conv_elements * CONV_BYTES, tp) + state.ssm_elements * state.ssm_bytes / tp)


@dataclass(frozen=True, slots=True)
class Entry:
    """One consumer of blocks: `window_tokens` caps what it keeps, `fixed_blocks` replaces counting by length."""

    block_tokens: int
    block_bytes: Fraction
    window_tokens: int | None = None
    spare_blocks: int = 0
    fixed_blocks: int | None = None

    def blocks(self, length: int) -> int:
        if self.fixed_blocks is not None:
            return self.fixed_blocks
        if self.window_tokens is None:
            return ceil_div(length, self.block_tokens)
        kept = min(length, self.window_tokens)
        return ceil_div(kept, self.block_tokens) + (self.spare_blocks if kept else 0)


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache of one rank as its engine lays it out.

    `unified`: all entries draw equal blocks from one pool. `label`: how the engine counts the tokens it prints:
    `blocks` (blocks x block size), `groups` (blocks // groups x smallest block) or `lengths` (seats x longest request).
    """

    entries: tuple[Entry, ...]
    unified: bool
    label: str = "blocks"
    parallel_contexts: int = 1  # decode-context parallelism spreads one request over that many ranks

    def request_bytes(self, length: int) -> int:
        """Bytes that one request of `length` tokens holds on this rank."""
        return int(sum(entry.blocks(length) * entry.block_bytes for entry in self.entries))

    def seats(self, kv_bytes: int, length: int) -> float:
        """Requests of `length` tokens that fit (not rounded)."""
        if kv_bytes <= 0:
            return 0.0
        if self.unified:
            blocks = int(kv_bytes // self.entries[0].block_bytes)
            return blocks * self.parallel_contexts / sum(entry.blocks(length) for entry in self.entries)
        return kv_bytes * self.parallel_contexts / self.request_bytes(length)

    def tokens(self, kv_bytes: int, longest: int) -> int:
        """Capacity in tokens, counted as the engine prints it."""
        if kv_bytes <= 0:
            return 0
        growing = [entry for entry in self.entries if entry.fixed_blocks is None]
        if not growing or (self.label == "lengths" and len(self.entries) > 1):
            return int(self.seats(kv_bytes, longest) * longest)
        blocks = int(kv_bytes // growing[0].block_bytes)
        if self.label == "groups":
            blocks //= len(self.entries)
        return blocks * min(entry.block_tokens for entry in growing) * self.parallel_contexts


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """What an engine and its flags fix about the layout. `batched_tokens`: prefill tokens of one step."""

    kv_dtype: str
    tp: int = 1
    pp: int = 1
    block_tokens: int = 16
    batched_tokens: int = 8192
    unified: bool = True  # vLLM's one pool of equal pages
    label: str = "blocks"
    state_blocks: int = 1
    parallel_contexts: int = 1


def build_cache(shape: ModelShape, options: CacheOptions) -> Cache:
    """The cache layout of one rank."""
    if options.unified and not (len(shape.groups) == 1 and shape.state is None):
        return _pooled(shape, options)
    entries = [_entry(group, options) for group in shape.groups]
    if shape.state is not None:
        size = Fraction(state_bytes(shape.state, options.tp) * ceil_div(shape.state.layers, options.pp))
        entries.append(Entry(1, size, fixed_blocks=1))
    return Cache(tuple(entries), len(entries) == 1, options.label, parallel_contexts=options.parallel_contexts)


def _entry(group: LayerGroup, options: CacheOptions) -> Entry:
    per_token = layer_bytes(group, options.kv_dtype, options.tp) * ceil_div(group.layers, options.pp)
    block = options.block_tokens
    if group.kind is Kind.CROSS:
        return Entry(block, per_token * block, fixed_blocks=ceil_div(group.window_tokens or 1, block))
    return Entry(block, per_token * block, _kept(group, options), int(group.kind is Kind.SLIDING))


def _kept(group: LayerGroup, options: CacheOptions) -> int | None:
    """The most tokens that a windowed layer holds while a prefill step of `batched_tokens` passes through."""
    if group.window_tokens is None:
        return None
    return group.window_tokens - int(group.kind is Kind.SLIDING) + options.batched_tokens


def _pooled(shape: ModelShape, options: CacheOptions) -> Cache:
    """vLLM's hybrid manager: one pool, equal pages, each group of `size` layers an entry of its own."""
    counts = [ceil_div(group.layers, options.pp) for group in shape.groups]
    if shape.state is not None:
        counts.append(ceil_div(shape.state.layers, options.pp))
    size = max(counts) if max(counts) < GROUP_RATIO * min(counts) else min(counts)
    per_token = [layer_bytes(group, options.kv_dtype, options.tp) for group in shape.groups]
    block = options.block_tokens
    if shape.state is not None:
        block = _state_block(state_bytes(shape.state, options.tp), max(per_token, default=Fraction(1)), block)
    page = max(per_token, default=Fraction(1)) * block
    entries: list[Entry] = []
    for group, cost, count in zip(shape.groups, per_token, counts, strict=False):
        tokens = block * int(page // (cost * block))
        fixed = ceil_div(group.window_tokens or 1, tokens) if group.kind is Kind.CROSS else None
        entry = Entry(tokens, page * size, _kept(group, options), int(group.kind is Kind.SLIDING), fixed)
        entries.extend([entry] * ceil_div(count, size))
    if shape.state is not None:
        entries.extend([Entry(block, page * size, fixed_blocks=options.state_blocks)] * ceil_div(counts[-1], size))
    return Cache(tuple(entries), True, options.label, parallel_contexts=options.parallel_contexts)


def _state_block(state: int, per_token: Fraction, block: int) -> int:
    """The attention block, in steps of 16 tokens, whose page holds one recurrent state."""
    return max(block, ceil_div(ceil_div(state, max(1, int(per_token))), STATE_BLOCK_STEP) * STATE_BLOCK_STEP)
