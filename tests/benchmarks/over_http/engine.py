"""A batching engine of its own, with no line of the laboratory's: what one holds for true the other need not.

A step takes base + per_sequence * n + per_context * tokens held + per_prompt * prompt tokens, times noise; each
sequence whose prompt is in gets one token from it. A prompt comes in by pieces, first come first served, `budget`
tokens a step with the tokens made. Where the cache is full the youngest sequence loses its own and computes all of it
again.
"""

from __future__ import annotations

from collections import deque
from math import exp
from random import Random
from typing import NamedTuple


class Kind(NamedTuple):
    """Seconds and tokens. `noise`: of the logarithm of a step's time, its standard deviation."""

    base_s: float
    per_sequence_s: float
    per_context_s: float
    per_prompt_s: float
    noise: float = 0.06
    budget: int = 2048
    cache_tokens: int = 1 << 30


class Sequence:
    """One request in the engine, and when it came and gave its first and its last token."""

    __slots__ = ("came_s", "ended_s", "first_s", "made", "number", "output", "prompt", "since", "taken", "unread")

    def __init__(self, number: int, prompt: int, output: int, came_s: float) -> None:
        self.number, self.prompt, self.output, self.came_s = number, prompt, output, came_s
        self.taken = self.made = 0  # tokens in the cache, tokens given
        self.unread, self.since = prompt, 0  # tokens to read before the next one; given since these were read
        self.first_s = self.ended_s = 0.0


class Engine:
    """Advanced by whoever keeps the time: `begin` says how long the next step takes, `finish` what it has given."""

    def __init__(self, kind: Kind, rng: Random) -> None:
        self.kind, self.rng = kind, rng
        self.slower = 1.0
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.computed = self.recomputed = self.preemptions = 0
        self._pieces: list[tuple[Sequence, int]] = []
        self._held = 0  # tokens in the cache

    @property
    def present(self) -> int:
        return len(self.waiting) + len(self.running)

    @property
    def cache_use(self) -> float:
        return self._held / self.kind.cache_tokens

    def begin(self) -> float:
        """Seconds of the next step; 0 where there is nothing to do."""
        self._make_room()
        kind, rest, self._pieces = self.kind, self.kind.budget, []
        ready = sum(_is_ready(one) for one in self.running)
        rest -= ready
        for one in self.running:
            rest = self._give(one, rest)
        room = kind.cache_tokens - self._wanted()
        while self.waiting and rest > 0 and _needs(self.waiting[0]) < room:
            one = self.waiting.popleft()
            room -= _needs(one) + 1
            self.running.append(one)
            rest = self._give(one, rest)
        if not self.running:
            return 0.0
        read = sum(tokens for _, tokens in self._pieces)
        step_s = kind.base_s + kind.per_sequence_s * ready + kind.per_context_s * self._held + kind.per_prompt_s * read
        return step_s * self.slower * exp(self.rng.gauss(-(kind.noise**2) / 2, kind.noise))

    def _give(self, one: Sequence, rest: int) -> int:
        """A piece of what this sequence has still to compute, as far as the step's budget goes."""
        piece = min(_needs(one) - one.taken, rest)
        if piece <= 0:
            return rest
        self._pieces.append((one, piece))
        return rest - piece

    def finish(self, now: float) -> list[Sequence]:
        """The step is over: those that have got a token."""
        got = [one for one in self.running if _is_ready(one)]
        self.computed += len(got)
        for one in got:
            one.taken += 1
        self._held += len(got)
        pieces, self._pieces = self._pieces, []
        for one, piece in pieces:
            one.taken += piece
            self._held += piece
            self.computed += piece
            if _is_ready(one):
                got.append(one)  # the piece that ends a prompt gives a token as well
        for one in got:
            one.made += 1
            one.since += 1
            one.first_s = one.first_s or now
            if one.made == one.output:
                one.ended_s = now
                self.drop(one)
        return got

    def drop(self, one: Sequence) -> None:
        """It is over, or nobody waits for it any more."""
        if one in self.waiting:
            self.waiting.remove(one)
        elif one in self.running:
            self.running.remove(one)
            self._pieces = [(other, piece) for other, piece in self._pieces if other is not one]
            self._held -= one.taken
            one.taken = 0

    def _wanted(self) -> int:
        """Tokens of the cache that those who run need, with the next one of each."""
        return sum(map(_needs, self.running)) + len(self.running)

    def _make_room(self) -> None:
        while len(self.running) > 1 and self._wanted() > self.kind.cache_tokens:
            youngest = self.running.pop()
            self._held -= youngest.taken
            self.recomputed += youngest.taken
            self.preemptions += 1
            youngest.taken = youngest.since = 0
            youngest.unread = youngest.prompt + youngest.made
            self.waiting.appendleft(youngest)


def _needs(one: Sequence) -> int:
    """Tokens that the cache must hold before it gives one by itself: all but the one that it gave last."""
    return one.unread + max(0, one.since - 1)


def _is_ready(one: Sequence) -> bool:
    return one.taken >= _needs(one)


class Asked(NamedTuple):
    """One request of the load."""

    number: int
    at_s: float
    prompt: int
    output: int


def trace(rng: Random, rate: float, until_s: float, prompt: float, output: float, shape: float) -> list[Asked]:
    """Poisson arrivals; lengths of a gamma distribution, `shape` 1 / variation^2."""
    found, at_s = list[Asked](), rng.expovariate(rate)
    while at_s < until_s:
        lengths = [max(2, round(rng.gammavariate(shape, mean / shape))) for mean in (prompt, output)]
        found.append(Asked(len(found), at_s, *lengths))
        at_s += rng.expovariate(rate)
    return found
