"""Engines and loads, none of which the scenarios of docs/control.md have."""

from __future__ import annotations

from typing import NamedTuple

from tests.benchmarks.over_http.engine import Kind
from tests.benchmarks.over_http.oracle import Target

SLOWER_AT_S, FACTOR = 60.0, 1.5


class Case(NamedTuple):
    """`shape` of the gamma distribution of lengths, which are means. `slows`: by `FACTOR` at `SLOWER_AT_S`."""

    name: str
    kind: Kind
    target: Target
    prompt: float
    output: float
    shape: float
    until_s: float = 130.0
    slows: bool = True
    proxies: int = 1
    engine: str = "openai"

    def per_seat_s(self) -> float:
        """What one more in flight adds to a step."""
        kind = self.kind
        held = self.prompt + self.output / 2
        return kind.per_sequence_s + kind.per_context_s * held + kind.per_prompt_s * self.prompt / self.output

    def seats(self, slower: float = 1.0) -> float:
        """About how many fit into target and cache."""
        in_time = (self.target.itl_s / slower - self.kind.base_s) / self.per_seat_s()
        in_cache = (
            0.9 * self.kind.cache_tokens / (self.prompt + self.output / 2)
        )  # lengths vary: some room is never used
        return max(1.0, min(in_time, in_cache))

    def rate(self) -> float:
        """Requests per second, one and a half times what so many get done."""
        return 1.5 * self.seats() / ((self.kind.base_s + self.per_seat_s() * self.seats()) * self.output)


SMALL = Kind(base_s=9e-3, per_sequence_s=6e-5, per_context_s=6e-8, per_prompt_s=2.5e-5)
MIDDLE = Kind(base_s=18e-3, per_sequence_s=9e-5, per_context_s=9e-8, per_prompt_s=5.5e-5, noise=0.1)
LARGE = Kind(base_s=31e-3, per_sequence_s=1.6e-4, per_context_s=1.2e-7, per_prompt_s=1.3e-4, noise=0.04)

CASES = (
    Case("small model, short answers", SMALL, Target(0.024, 0.5), 300, 120, 1.5),
    Case("middle model, answers of all lengths", MIDDLE, Target(0.050, 1.0), 700, 220, 1.0),
    Case("large model, long prompts", LARGE, Target(0.090, 2.0), 1400, 180, 3.0),
    Case("memory binds first", MIDDLE._replace(cache_tokens=40_000), Target(0.060, 1.0), 600, 260, 2.0,
         until_s=100.0, slows=False, engine="vllm"),
    Case("three proxies, one engine", MIDDLE, Target(0.050, 1.0), 500, 200, 2.0, until_s=100.0, slows=False, proxies=3),
)  # fmt: skip
