"""Continuous batching with chunked prefill (Orca, OSDI 2022; Sarathi-Serve, OSDI 2024) on a paged KV cache, like vLLM.

One step: every decoding sequence yields one token; what is left of the chunk goes to prompts, begun ones first, then
the head of the waiting ones while its blocks fit and a sequence slot is free. A sequence that needs a block when none
is free evicts the running one of lowest rank (latest arrival within the numerically highest priority), which loses
its cache, waits at its old rank and computes prompt and output so far again (preemption by recompute).

All decoding sequences advance together, so a step counter stands for their state: with j the step in which a sequence
began to decode, g its tokens and H its cache then, at step s it has generated g + (s - j) tokens and holds H + (s -
j). Its end lies in the bucket of step j + (output - g), and it needs a new block at every step congruent to j + 1 - H
modulo the block size; sequences are only *counted* per residue. So a step without arrivals, ends or evictions costs
the same at any batch size.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Collection
from dataclasses import dataclass, field

from proxy.simulator.blocks import BlockPool, blocks_for
from proxy.simulator.profiles import EngineProfile


@dataclass(slots=True)
class StepResult:
    """What one step did. Its tokens appear `duration_s` after the `now` it was asked at.

    `finished` may share ids with `firsts`. `tokens` counts output tokens: one for each sequence that decodes after the
    step (`Engine.decoding`) and one for each finished one, prefill-only sequences aside.
    """

    duration_s: float = 0.0
    firsts: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    preempted: list[int] = field(default_factory=list)
    tokens: int = 0
    prefill_tokens: int = 0


@dataclass(slots=True)
class Counters:
    """Since the engine started. `recomputed_tokens` is cache that preemption threw away."""

    steps: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: int = 0
    aborted: int = 0
    preemptions: int = 0
    recomputed_tokens: int = 0
    admissions: int = 0
    queue_s: float = 0.0  # time from submission to first admission, summed


@dataclass(slots=True, eq=False)
class Sequence:
    id: int
    prompt_tokens: int
    output_tokens: int
    priority: int
    order: int
    submitted_s: float
    waiting: bool = True
    admitted: bool = False  # at least once
    generated: int = 0  # tokens generated up to `joined`
    prefill_left: int = 0
    joined: int = 0  # step in which it began, or began again, to decode

    @property
    def prefill_tokens(self) -> int:
        return self.prompt_tokens + self.generated

    @property
    def rank(self) -> tuple[int, int]:
        return self.priority, self.order


class Engine:
    """One engine replica. `slowdown` multiplies every step time and may be changed between steps."""

    def __init__(self, profile: EngineProfile, rng: random.Random) -> None:
        self.profile = profile
        self.slowdown = 1.0
        self.counters = Counters()
        self.blocks = BlockPool(profile.kv_blocks)
        self._rng = rng
        self._step = 0
        self._orders = 0
        self._kv_tokens = 0  # held by the decoding sequences
        self._waiting: list[tuple[int, int, Sequence]] = []  # heap by rank; aborted entries stay until they surface
        self._waiting_count = 0
        self._live: dict[int, Sequence] = {}
        self._prefilling: dict[int, Sequence] = {}
        self._decoding: dict[int, Sequence] = {}
        self._ending: dict[int, dict[int, Sequence]] = {}  # step -> sequences that end in it
        self._growing = [0] * profile.block_tokens  # sequences that need a block, by step modulo the block size

    def __repr__(self) -> str:
        return f"Engine({self.profile.name}, running={self.running}, waiting={self.waiting}, {self.blocks!r})"

    @property
    def running(self) -> int:
        return len(self._decoding) + len(self._prefilling)

    @property
    def waiting(self) -> int:
        return self._waiting_count

    @property
    def busy(self) -> bool:
        return bool(self._live)

    @property
    def kv_usage(self) -> float:
        return self.blocks.used / self.blocks.total

    @property
    def decoding(self) -> Collection[int]:
        """Live view of the ids past their first token; each of them got a token in the last step."""
        return self._decoding.keys()

    @property
    def prefilling(self) -> Collection[int]:
        return self._prefilling.keys()

    def generated(self, sequence_id: int) -> int:
        """Output tokens so far. Raises KeyError for a sequence that is not live."""
        sequence = self._live[sequence_id]
        return sequence.generated + self._decoded_steps(sequence)

    def submit(self, sequence_id: int, prompt_tokens: int, output_tokens: int, now: float, priority: int = 0) -> None:
        """Queue a sequence; `output_tokens` 0 is one forward pass (embeddings). A lower `priority` runs earlier.

        Raises ValueError for a live id and for a sequence that can never fit.
        """
        if sequence_id in self._live:
            raise ValueError(f"sequence {sequence_id} is already live")
        if prompt_tokens < 1 or output_tokens < 0:
            raise ValueError(f"sequence {sequence_id} asks for {prompt_tokens} + {output_tokens} tokens")
        if prompt_tokens + output_tokens > self.profile.request_tokens_max:
            raise ValueError(
                f"sequence {sequence_id} has {prompt_tokens} + {output_tokens} tokens; "
                f"at most {self.profile.request_tokens_max} fit"
            )
        self._orders += 1
        sequence = Sequence(sequence_id, prompt_tokens, output_tokens, priority, self._orders, now)
        self._live[sequence_id] = sequence
        self._wait(sequence)

    def abort(self, sequence_id: int) -> bool:
        """Forget a sequence wherever it is and free its blocks; False when it is not live."""
        sequence = self._live.pop(sequence_id, None)
        if sequence is None:
            return False
        self.counters.aborted += 1
        if sequence.waiting:
            sequence.waiting = False
            self._waiting_count -= 1
        else:
            self._leave(sequence)
        return True

    def step(self, now: float) -> StepResult:
        """Run one step that begins at `now`. An idle engine takes no time."""
        result = StepResult()
        if not self._live:
            return result
        self._grow(result)
        self._step += 1
        ready = self._prefill(now, result)
        decoding = len(self._decoding)
        self._kv_tokens += decoding
        seconds = self.profile.step_time.seconds(decoding, self._kv_tokens, result.prefill_tokens)
        result.duration_s = seconds * self.slowdown * self._noise()
        result.tokens = decoding
        self._end(result)
        for sequence in ready:
            self._join(sequence, result)
        self.counters.steps += 1
        self.counters.generation_tokens += result.tokens
        self.counters.finished += len(result.finished)
        return result

    def _noise(self) -> float:
        sigma = self.profile.noise
        return self._rng.lognormvariate(-sigma * sigma / 2, sigma) if sigma else 1.0

    def _decoded_steps(self, sequence: Sequence) -> int:
        return self._step - sequence.joined if sequence.id in self._decoding else 0

    def _computed_tokens(self, sequence: Sequence) -> int:
        """Tokens in the cache. While decoding that is one less than prompt and output: the next step adds the last."""
        if sequence.id in self._prefilling:
            return sequence.prefill_tokens - sequence.prefill_left
        return sequence.prefill_tokens - 1 + self._decoded_steps(sequence)

    def _wait(self, sequence: Sequence) -> None:
        sequence.waiting = True
        self._waiting_count += 1
        heapq.heappush(self._waiting, (*sequence.rank, sequence))

    def _grow(self, result: StepResult) -> None:
        """Give every decoding sequence the block its next token needs, evicting by rank while there are too few."""
        residue = (self._step + 1) % self.profile.block_tokens
        while self._growing[residue] > self.blocks.free:
            victim = max((*self._decoding.values(), *self._prefilling.values()), key=lambda sequence: sequence.rank)
            self._preempt(victim)
            result.preempted.append(victim.id)
        self.blocks.take(self._growing[residue])

    def _preempt(self, sequence: Sequence) -> None:
        self.counters.preemptions += 1
        generated = self.generated(sequence.id)
        self.counters.recomputed_tokens += self._computed_tokens(sequence)
        self._leave(sequence)
        sequence.generated = generated
        self._wait(sequence)

    def _prefill(self, now: float, result: StepResult) -> list[Sequence]:
        """Spend the rest of the chunk on prompts; returns those now complete. A step that evicted admits nobody."""
        ready: list[Sequence] = []
        budget = self.profile.chunk_tokens - len(self._decoding)
        for sequence in list(self._prefilling.values()):
            budget -= self._compute(sequence, budget, ready)
        while budget > 0 and not result.preempted and (admitted := self._admit(now)) is not None:
            budget -= self._compute(admitted, budget, ready)
        result.prefill_tokens = self.profile.chunk_tokens - len(self._decoding) - budget
        return ready

    def _compute(self, sequence: Sequence, budget: int, ready: list[Sequence]) -> int:
        tokens = min(budget, sequence.prefill_left)
        sequence.prefill_left -= tokens
        if not sequence.prefill_left:
            ready.append(sequence)
        return tokens

    def _admit(self, now: float) -> Sequence | None:
        while self._waiting and not self._waiting[0][2].waiting:
            heapq.heappop(self._waiting)
        if not self._waiting or self.running >= self.profile.max_seqs:
            return None
        sequence = self._waiting[0][2]
        blocks = blocks_for(sequence.prefill_tokens, self.profile.block_tokens)
        if blocks > self.blocks.free:
            return None
        heapq.heappop(self._waiting)
        self.blocks.take(blocks)
        sequence.waiting = False
        self._waiting_count -= 1
        sequence.prefill_left = sequence.prefill_tokens
        self._prefilling[sequence.id] = sequence
        if not sequence.admitted:
            sequence.admitted = True
            self.counters.admissions += 1
            self.counters.queue_s += now - sequence.submitted_s
        return sequence

    def _join(self, sequence: Sequence, result: StepResult) -> None:
        """The prompt is complete: the step has yielded the next token, and decoding goes on from here."""
        del self._prefilling[sequence.id]
        held = sequence.prefill_tokens
        if not sequence.generated:
            self.counters.prompt_tokens += sequence.prompt_tokens
            if sequence.output_tokens:
                result.firsts.append(sequence.id)
        if sequence.output_tokens:
            sequence.generated += 1
            result.tokens += 1
        if sequence.generated == sequence.output_tokens:
            self.blocks.give(blocks_for(held, self.profile.block_tokens))
            del self._live[sequence.id]
            result.finished.append(sequence.id)
            return
        sequence.joined = self._step
        self._decoding[sequence.id] = sequence
        self._kv_tokens += held
        self._growing[self._residue(sequence)] += 1
        self._ending.setdefault(self._end_step(sequence), {})[sequence.id] = sequence

    def _residue(self, sequence: Sequence) -> int:
        held_then = sequence.prefill_tokens - 1
        return (sequence.joined + 1 - held_then) % self.profile.block_tokens

    def _end_step(self, sequence: Sequence) -> int:
        return sequence.joined + sequence.output_tokens - sequence.generated

    def _end(self, result: StepResult) -> None:
        for sequence in list(self._ending.get(self._step, {}).values()):
            self._leave(sequence)
            del self._live[sequence.id]
            result.finished.append(sequence.id)

    def _leave(self, sequence: Sequence) -> None:
        """Take an admitted sequence out of the batch and free its blocks."""
        block = self.profile.block_tokens
        if self._prefilling.pop(sequence.id, None) is not None:
            self.blocks.give(blocks_for(sequence.prefill_tokens, block))
            return
        held = self._computed_tokens(sequence)
        del self._decoding[sequence.id]
        self._kv_tokens -= held
        self.blocks.give(blocks_for(held, block))
        self._growing[self._residue(sequence)] -= 1
        end_step = self._end_step(sequence)
        del self._ending[end_step][sequence.id]
        if not self._ending[end_step]:
            del self._ending[end_step]
