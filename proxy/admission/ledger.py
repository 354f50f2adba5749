"""KV tokens promised to live requests: will the future peak fit?

Request i holds h_i = prompt + generated so far and is expected to add R_i more, at one token per step like all others,
then frees everything. Sorted by R descending, the memory in use when the k-th is about to end is

    peak = max_k ( h_1 + ... + h_k + k R_k )

and a candidate may start while peak with it <= factor * capacity (LightLLM Past-Future, arXiv 2507.10150; the same
test as `_can_add_new_req` of the VTC artifact). R_i are grouped into geometric bands of 9 %, each with its count and
sums, so that reserve, progress and release cost O(1) and the test walks the bands, never the requests.
"""

from __future__ import annotations

from math import log
from typing import Final, NamedTuple

from proxy.admission.prediction import PRIOR, DriftingMean, LengthPredictor, PromptCorrection
from proxy.types import Usage, new_tuple

BAND_RATIO: Final = 1.09
BANDS: Final = 140  # 1.09^139 > 131072 tokens
CALIBRATION_S: Final = 30.0
CALIBRATION_BAND: Final = 0.15


class Size(NamedTuple):
    """Expected tokens of a request: its prompt, the part of it that needs a prefill, its output."""

    prompt: int
    uncached: int
    output: int


class _Entry:
    """One booked request. `estimate`: prompt tokens before correction."""

    __slots__ = ("band", "estimate", "generated", "mix", "output_cap", "prompt", "remaining", "tenant")

    def __init__(
        self, tenant: str, estimate: int, prompt: int, output_cap: int | None, remaining: int, mix: int
    ) -> None:
        self.tenant, self.estimate, self.prompt, self.output_cap = tenant, estimate, prompt, output_cap
        self.generated, self.remaining, self.mix = 0, remaining, mix
        self.band = _band_of(remaining)


def _band(remaining: int) -> int:
    """0 holds the longest."""
    return BANDS - 1 - min(int(log(remaining + 1) / log(BAND_RATIO)), BANDS - 1)


_LONG: Final = 16_384
_BANDS: Final = bytes(map(_band, range(_LONG)))  # a logarithm for each request would cost more than all other booking


def _band_of(remaining: int) -> int:
    return _BANDS[remaining] if remaining < _LONG else _band(remaining)


class Ledger:
    """Reservations at one upstream. `capacity_tokens` None: memory is unknown and everything fits."""

    def __init__(self, capacity_tokens: int | None) -> None:
        self.capacity_tokens = capacity_tokens
        self._factor = 0.9
        self.lengths = LengthPredictor()
        self.prompts = PromptCorrection()
        self._entries: dict[int, _Entry] = {}
        self._count = [0] * BANDS
        self._held = [0] * BANDS
        self._remaining = [0] * BANDS
        self._held_tokens = 0
        self._remaining_tokens = 0
        self._peak_tokens: int | None = 0
        self._growth = 1.0  # share of the expected growth that counts
        self._scale = 1.0
        self._apart_since_s: float | None = None
        self._mean_prompt = DriftingMean(float(PRIOR), 0.01)
        self._shifts = 0
        self._sized = False  # the size of what was asked last is known, until something is learnt
        self._asked_tenant = ""
        self._asked_prompt = 0
        self._asked_cap: int | None = None
        self.lessons = 0  # how often something was learnt that changes sizes
        self._size = Size(0, 0, 0)

    def __repr__(self) -> str:
        return f"Ledger({len(self._entries)} live, {self.reserved_tokens}/{self.capacity_tokens} tokens)"

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def factor(self) -> float:
        """phi; the dispatcher copies the sizer's `kv_factor` here. Up to 1 it is the usable share of the capacity;
        above 1 all of it is usable and 2 (phi - 1) of the expected growth is taken not to come at the same time."""
        return self._factor

    @factor.setter
    def factor(self, factor: float) -> None:
        self._factor = factor
        self._growth = max(1 - 2 * max(factor - 1, 0.0), 0.0)
        self._peak_tokens = None

    @property
    def held_tokens(self) -> int:
        """Prompt and generated tokens of all live requests."""
        return self._held_tokens

    @property
    def reserved_tokens(self) -> int:
        """The future peak: what the live requests will hold at once at the worst moment. 0 when none lives."""
        if self._peak_tokens is None:
            self._peak_tokens = self._peak()
        return round(self._peak_tokens * self._scale)

    @property
    def mean_prompt_tokens(self) -> float:
        """Mean corrected prompt of the requests reserved lately."""
        return self._mean_prompt.mean

    @property
    def mean_uncached_tokens(self) -> float:
        """The part of `mean_prompt_tokens` that needs a prefill."""
        return self._mean_prompt.mean * (1 - self.prompts.cached_share)

    @property
    def mix(self) -> int:
        """Number of the present mix of requests."""
        return self.lengths.mix

    @property
    def mean_output_tokens(self) -> float:
        """Mean output of the present mix, the tokens of live requests counted (censored mean)."""
        mix = self.mix
        return self.lengths.mean_tokens([entry.generated for entry in self._entries.values() if entry.mix == mix])

    @property
    def output_variation(self) -> float:
        """Coefficient of variation of the output length."""
        return self.lengths.variation

    def tick(self) -> None:
        """Now and then: a new mix begins when prompts have changed by half or more."""
        if self._mean_prompt.mean and self._mean_prompt.shifts != self._shifts:
            self._shifts = self._mean_prompt.shifts
            self.lengths.shifted()

    def size(self, tenant: str, prompt_tokens: int, output_cap: int | None) -> Size:
        """Expected tokens of a request. One decision asks several times, so the last answer is kept."""
        same = prompt_tokens == self._asked_prompt and output_cap == self._asked_cap and tenant == self._asked_tenant
        if not (same and self._sized):
            prompts = self.prompts
            prompt = round(prompt_tokens * prompts.ratio)
            cached_share = prompts.cached_share
            uncached = round(prompt * (1 - cached_share)) if cached_share else prompt
            self._size = new_tuple(Size, (prompt, uncached, self.lengths.remaining(tenant, 0, output_cap)))
            self._asked_tenant, self._asked_prompt, self._asked_cap = tenant, prompt_tokens, output_cap
            self._sized = True
        return self._size

    def fits(self, tenant: str, prompt_tokens: int, output_cap: int | None) -> bool:
        """Would the future peak with this request fit? One request alone always does."""
        capacity = self.capacity_tokens
        if capacity is None or not self._entries:
            return True
        prompt, _, remaining = self.size(tenant, prompt_tokens, output_cap)
        if prompt + remaining > capacity:
            prompt, remaining = self._clamped(prompt, remaining)
        room = (self._factor if self._factor < 1.0 else 1.0) * capacity
        most = self._held_tokens + prompt + self._growth * (self._remaining_tokens + remaining)  # k R_k <= sum of R
        if most * self._scale <= room:
            return True
        candidate = _Entry(tenant, prompt_tokens, prompt, output_cap, remaining, 0)
        before = self._peak_tokens
        self._book(candidate, 1)
        peak = self._peak()
        self._book(candidate, -1)
        self._peak_tokens = before
        return peak * self._scale <= room

    def reserve(self, ticket_id: int, tenant: str, prompt_tokens: int, output_cap: int | None) -> int:
        """Book a request that starts now and return its tokens, clamped to the capacity.

        `prompt_tokens` is the estimate as read from the body; ValueError when the ticket is booked already.
        """
        if ticket_id in self._entries:
            raise ValueError(f"ticket {ticket_id} is already reserved")
        prompt, _, remaining = self.size(tenant, prompt_tokens, output_cap)
        if self.capacity_tokens is not None and prompt + remaining > self.capacity_tokens:
            prompt, remaining = self._clamped(prompt, remaining)
        entry = self._entries[ticket_id] = _Entry(
            tenant, prompt_tokens, prompt, output_cap, remaining, self.lengths.mix
        )
        self._mean_prompt.add(prompt)
        self._book(entry, 1)
        return prompt + remaining

    def progress(self, ticket_id: int, generated: int) -> None:
        """True up: the request has generated so many tokens by now. LookupError when it is not booked."""
        entry = self._entries[ticket_id]
        grown = generated - entry.generated if generated > entry.generated else 0
        remaining = self.lengths.remaining(entry.tenant, entry.generated + grown, entry.output_cap)
        band = _band_of(remaining)
        if band == entry.band:  # as most: a tick is short
            self._add(band, 0, grown, remaining - entry.remaining)
            entry.generated += grown
            entry.remaining = remaining
            return
        self._book(entry, -1)
        entry.generated += grown
        entry.remaining, entry.band = remaining, band
        self._book(entry, 1)

    def release(self, ticket_id: int, usage: Usage | None) -> None:
        """Free a request, exactly once (LookupError otherwise). `usage` only if it ended by itself: it teaches."""
        entry = self._entries.pop(ticket_id)
        self._book(entry, -1)
        if usage is not None:
            self._sized = False
            self.lessons += 1
            self.lengths.ended(entry.tenant, usage.completion_tokens, entry.mix)
            self.prompts.learn(entry.estimate, usage.prompt_tokens, usage.cached_tokens)

    def counted(self, ticket_id: int, prompt_tokens: int, at_least: bool) -> None:
        """The engine refused a booked request and told the size of its prompt, or a bound that it exceeds."""
        self._sized = False
        self.lessons += 1
        self.prompts.counted(self._entries[ticket_id].estimate, prompt_tokens, at_least)

    def check(self) -> None:
        """Assert that the sums are those of the entries; O(what runs)."""
        entries = self._entries.values()
        assert self._held_tokens == sum(entry.prompt + entry.generated for entry in entries), "held tokens add up"
        assert sum(self._remaining) == sum(entry.remaining for entry in entries), "expected tokens add up"
        assert self._remaining_tokens == sum(self._remaining), "in bands and in all"
        assert sum(self._count) == len(entries), "each entry is in one band"
        assert all(entry.prompt >= 0 <= entry.remaining for entry in entries), "no promise is negative"

    @property
    def within(self) -> bool:
        """What is promised fits, or one request holds it alone."""
        capacity = self.capacity_tokens
        return capacity is None or len(self) <= 1 or self.reserved_tokens <= min(self._factor, 1.0) * capacity + 1

    def calibrate(self, kv_usage: float, waiting: int, now: float) -> None:
        """Compare with the engine's gauge: a gap above 15 % for 30 s rescales the test.

        Fewer tokens than booked count only while nothing waits in the engine: a waiting request is booked but holds
        nothing yet.
        """
        if self.capacity_tokens is None or self._held_tokens == 0:
            self._apart_since_s = None
            return
        ratio = kv_usage * self.capacity_tokens / self._held_tokens
        if abs(ratio / self._scale - 1) <= CALIBRATION_BAND or (ratio < self._scale and waiting > 0):
            self._apart_since_s = None
        elif self._apart_since_s is None:
            self._apart_since_s = now
        elif now - self._apart_since_s >= CALIBRATION_S:
            self._scale = min(max(ratio, 0.5), 2.0)
            self._apart_since_s = None

    def _clamped(self, prompt: int, remaining: int) -> tuple[int, int]:
        """What is larger than the memory takes all of it."""
        assert self.capacity_tokens is not None, "only what is bounded is clamped"
        prompt = min(prompt, self.capacity_tokens)
        return prompt, min(remaining, self.capacity_tokens - prompt)

    def _book(self, entry: _Entry, sign: int) -> None:
        held = entry.prompt + entry.generated
        if sign > 0:
            self._add(entry.band, 1, held, entry.remaining)
        else:
            self._add(entry.band, -1, -held, -entry.remaining)

    def _add(self, band: int, count: int, held: int, remaining: int) -> None:
        """Written out: compiled, `+=` on an item of a list costs six times as much."""
        if count:
            self._count[band] = self._count[band] + count
        self._held[band] = self._held[band] + held
        self._remaining[band] = self._remaining[band] + remaining
        self._held_tokens += held
        self._remaining_tokens += remaining
        self._peak_tokens = None

    def _peak(self) -> int:
        """The mean R of a band stands for each of its requests. A plain loop: every dispatch decision runs it."""
        peak, held, count, growth = 0.0, 0, 0, self._growth
        for band_count, band_held, band_remaining in zip(self._count, self._held, self._remaining, strict=True):
            if band_count:
                held += band_held
                count += band_count
                level = held + growth * count * band_remaining / band_count
                if level > peak:
                    peak = level
        return int(peak)
