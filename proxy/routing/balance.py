"""Where a request goes when several upstreams may take it: one small function per policy, in a table.

load = (in flight + 1) / (weight * seats): the share of capacity in use after this request, so that an upstream whose
limit shrinks gets less.

    least_loaded     lowest load, the given order breaks ties
    power_of_two     the less loaded of two drawn at random (Mitzenmacher 2001): little herding on stale data
    round_robin      in turn
    prefix_affinity  rendezvous hashing of the caller's prefix hash (Thaler and Ravishankar 1998), unless that upstream
                     is loaded 1.25 times as much as the average (bounded loads, Mirrokni et al. 2018)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Literal, NamedTuple
from zlib import crc32

Policy = Literal["least_loaded", "power_of_two", "round_robin", "prefix_affinity"]
BOUNDED_LOAD: Final = 1.25


class Candidate(NamedTuple):
    """An upstream that may take the request; `load` >= 0, see above."""

    name: str
    load: float


class Balancer:
    """Applies one policy; remembers whose turn it is."""

    def __init__(self, policy: Policy, rng: Random) -> None:
        self.policy = policy
        self._rng = rng
        self._last = ""

    def order(self, candidates: Sequence[Candidate], prefix_hash: int) -> list[Candidate]:
        """The candidates, best first; `prefix_hash` 0 means that the caller knows no prefix."""
        if len(candidates) < 2:
            return list(candidates)
        return _ORDERS[self.policy](self, candidates, prefix_hash)

    def took(self, name: str) -> None:
        """This upstream got the request."""
        self._last = name

    def _least_loaded(self, candidates: Sequence[Candidate], prefix_hash: int) -> list[Candidate]:
        return sorted(candidates, key=lambda candidate: candidate.load)

    def _power_of_two(self, candidates: Sequence[Candidate], prefix_hash: int) -> list[Candidate]:
        drawn = self._rng.sample(range(len(candidates)), len(candidates))
        shuffled = [candidates[index] for index in drawn]
        return self._least_loaded(shuffled[:2], prefix_hash) + shuffled[2:]

    def _round_robin(self, candidates: Sequence[Candidate], prefix_hash: int) -> list[Candidate]:
        names = sorted(candidates)
        return [one for one in names if one.name > self._last] + [one for one in names if one.name <= self._last]

    def _prefix_affinity(self, candidates: Sequence[Candidate], prefix_hash: int) -> list[Candidate]:
        if not prefix_hash:
            return self._least_loaded(candidates, prefix_hash)
        bound = BOUNDED_LOAD * sum([candidate.load for candidate in candidates]) / len(candidates)
        return sorted(candidates, key=lambda one: (one.load > bound, -crc32(f"{prefix_hash}:{one.name}".encode())))


_ORDERS: Final[dict[Policy, Callable[[Balancer, Sequence[Candidate], int], list[Candidate]]]] = {
    "least_loaded": Balancer._least_loaded,
    "power_of_two": Balancer._power_of_two,
    "round_robin": Balancer._round_robin,
    "prefix_affinity": Balancer._prefix_affinity,
}
