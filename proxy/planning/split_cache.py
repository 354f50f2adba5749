"""SGLang's cache of a hybrid model: a pool per kind, sized at start.

    sliding    full_tokens = pool / (F*n_full + r*S*n_sliding),  sliding_tokens = r * full_tokens       r = 0.8
    recurrent  state pool = pool * q / (1 + q),  slots = state pool / state bytes,  tokens from the rest q = 0.9
               max_running_requests = slots / 3, as each request may hold up to three states

so the slots, not the tokens, are often the ceiling of a recurrent hybrid.
Source: sglang model_runner_kv_cache_mixin.py, `--swa-full-tokens-ratio`, `--mamba-full-memory-ratio`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from proxy.planning.kv_cache import CacheOptions, ceil_div, layer_bytes, state_bytes
from proxy.planning.layers import Kind
from proxy.planning.shapes import ModelShape

SLIDING_RATIO = Fraction(8, 10)
STATE_RATIO = Fraction(9, 10)
STATES_PER_REQUEST = 3


@dataclass(frozen=True, slots=True)
class SplitCache:
    """Bytes per token of all full layers and of all sliding layers, and of one sequence's states, on one rank."""

    full_bytes: Fraction
    sliding_bytes: Fraction
    window_tokens: int
    sequence_bytes: int

    def _token_pool(self, kv_bytes: int) -> Fraction:
        return Fraction(kv_bytes) / (1 + STATE_RATIO) if self.sequence_bytes else Fraction(kv_bytes)

    def tokens(self, kv_bytes: int, longest: int) -> int:
        """Tokens of the full pool, the figure that the engine prints; without such layers, seats x `longest`."""
        cost = self.full_bytes + SLIDING_RATIO * self.sliding_bytes
        if not cost:
            return int(self.seats(kv_bytes, longest) * longest)
        return max(0, int(self._token_pool(kv_bytes) / cost))

    def seats(self, kv_bytes: int, length: int) -> float:
        """Requests of `length` tokens that every pool has room for (not rounded)."""
        bounds = []
        if self.full_bytes:
            bounds.append(self.tokens(kv_bytes, length) / length)
        if self.sliding_bytes:
            tokens = float(SLIDING_RATIO) * self.tokens(kv_bytes, length)
            bounds.append(tokens / min(length, self.window_tokens))
        if self.sequence_bytes:
            slots = kv_bytes * STATE_RATIO / (1 + STATE_RATIO) / self.sequence_bytes
            bounds.append(float(slots / STATES_PER_REQUEST))
        return max(0.0, min(bounds))

    def request_bytes(self, length: int) -> int:
        """Bytes that one request of `length` tokens holds on this rank."""
        kept = min(length, self.window_tokens)
        return int(self.full_bytes * length + self.sliding_bytes * kept) + self.sequence_bytes


def build_split_cache(shape: ModelShape, options: CacheOptions) -> SplitCache:
    """The pools of one rank."""
    full = sliding = Fraction(0)
    window = 1
    for group in shape.groups:
        cost = layer_bytes(group, options.kv_dtype, options.tp) * ceil_div(group.layers, options.pp)
        if group.kind is Kind.FULL or group.window_tokens is None:
            full += cost
        else:
            sliding += cost
            window = max(window, group.window_tokens + options.batched_tokens)
    state = shape.state
    states = state_bytes(state, options.tp) * ceil_div(state.layers, options.pp) if state else 0
    return SplitCache(full, sliding, window, states)
