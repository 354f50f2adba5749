from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.simulator.blocks import blocks_for
from proxy.simulator.engine import Engine, StepResult
from proxy.simulator.profiles import H100_QWEN3_14B, EngineProfile, StepTime
from tests.counting import lines_executed

PROFILE = EngineProfile(
    name="small",
    model="m",
    step_time=StepTime(base_s=1.0, sequence_s=0.1, kv_token_s=0.001, prefill_token_s=0.01),
    kv_tokens=160,
    context_tokens=160,
    max_seqs=4,
    chunk_tokens=32,
)


def engine(**changes: object) -> Engine:
    return Engine(dataclasses.replace(PROFILE, **changes), random.Random(1))  # type: ignore[arg-type]


def run(target: Engine, steps: int) -> list[StepResult]:
    return [target.step(float(number)) for number in range(steps)]


def test_one_sequence_prefills_in_chunks_then_yields_one_token_a_step() -> None:
    target = engine()
    target.submit(1, prompt_tokens=40, output_tokens=3, now=0.0)
    assert repr(target) == "Engine(small, running=0, waiting=1, BlockPool(0/10))"
    chunk, first, second, last = run(target, 4)
    assert (chunk.prefill_tokens, chunk.tokens, chunk.firsts) == (32, 0, [])
    assert (first.prefill_tokens, first.tokens, first.firsts) == (8, 1, [1])
    assert (second.tokens, second.finished) == (1, [])
    assert (last.tokens, last.finished) == (1, [1])
    durations = [result.duration_s for result in (chunk, first, second, last)]
    assert durations == pytest.approx([1 + 0.32, 1 + 0.08, 1 + 0.1 + 0.041, 1 + 0.1 + 0.042])
    assert not target.busy and target.blocks.used == 0
    assert target.step(9.0) == StepResult()
    assert (target.counters.prompt_tokens, target.counters.generation_tokens) == (40, 3)
    assert (target.counters.finished, target.counters.steps) == (1, 4)


@pytest.mark.parametrize(("output", "tokens", "firsts"), [(0, 0, []), (1, 1, [1])])
def test_a_forward_pass_alone_ends_with_its_prompt(output: int, tokens: int, firsts: list[int]) -> None:
    target = engine()
    target.submit(1, 10, output, now=0.0)
    result = target.step(0.0)
    assert (result.finished, result.tokens, result.firsts, target.blocks.used) == ([1], tokens, firsts, 0)


def test_decoding_goes_before_prompts_in_the_chunk() -> None:
    target = engine()
    target.submit(1, 4, 20, now=0.0)
    target.submit(2, 4, 20, now=0.0)
    target.step(0.0)
    target.submit(3, 64, 20, now=0.0)
    assert [result.prefill_tokens for result in run(target, 4)] == [30, 30, 4, 0]


def test_the_sequence_cap_and_the_blocks_hold_back_the_head_and_all_behind_it() -> None:
    target = engine(max_seqs=2)
    for number in range(3):
        target.submit(number, 1, 30, now=0.0)
    target.step(0.0)
    assert (target.running, target.waiting) == (2, 1)
    target = engine(chunk_tokens=160)
    target.submit(1, 100, 1, now=0.0)
    target.submit(2, 70, 1, now=0.0)
    target.submit(3, 1, 1, now=0.0)
    assert [result.finished for result in run(target, 2)] == [[1], [2, 3]]


def test_a_lower_priority_number_is_admitted_first_and_queueing_time_is_counted() -> None:
    target = engine(max_seqs=1)
    for number, priority in ((1, 5), (2, 0), (3, 0)):
        target.submit(number, 1, 1, now=0.0, priority=priority)
    assert [result.finished for result in run(target, 3)] == [[2], [3], [1]]
    assert (target.counters.admissions, target.counters.queue_s) == (3, 0.0 + 1.0 + 2.0)


def test_memory_pressure_evicts_the_latest_which_recomputes_and_goes_before_newer_ones() -> None:
    target = engine(kv_tokens=64, chunk_tokens=64)
    for number in (1, 2):
        target.submit(number, 30, 30, now=0.0)
    first, *_ = run(target, 3)
    assert first.firsts == [1, 2] and target.blocks.free == 0
    target.submit(3, 8, 4, now=3.0)  # one block, which is free from now on, but it is not the head
    evicting = target.step(3.0)
    assert (evicting.preempted, evicting.tokens) == ([2], 1)
    assert (target.generated(2), target.counters.recomputed_tokens) == (3, 32)
    assert (target.running, target.waiting, target.blocks.free) == (1, 2, 1)
    after = run(target, 80)
    assert [number for step in after for number in step.finished] == [1, 3, 2]
    assert [number for step in after for number in step.firsts] == [3]
    assert (target.counters.preemptions, target.counters.generation_tokens) == (1, 64)
    assert target.counters.prompt_tokens == 68


def test_a_half_computed_prompt_can_be_evicted_and_a_higher_priority_is_spared() -> None:
    target = engine(kv_tokens=96, chunk_tokens=4)
    target.submit(1, 16, 40, now=0.0, priority=1)
    run(target, 4)
    target.submit(2, 64, 2, now=0.0, priority=2)
    evicted = [number for step in run(target, 20) for number in step.preempted]
    assert (evicted, target.generated(2), target.waiting) == ([2], 0, 1)
    assert target.counters.recomputed_tokens == 48
    target.submit(3, 16, 20, now=0.0, priority=0)
    assert 3 not in [number for step in run(target, 60) for number in step.preempted]


def test_abort_frees_a_sequence_wherever_it_is() -> None:
    target = engine(max_seqs=2)
    target.submit(1, 4, 20, now=0.0)
    target.step(0.0)
    target.submit(2, 60, 20, now=0.0)
    target.submit(3, 4, 20, now=0.0)
    target.step(1.0)
    assert (list(target.decoding), list(target.prefilling), target.waiting) == ([1], [2], 1)
    assert [target.abort(number) for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert (target.busy, target.waiting, target.running, target.blocks.used) == (False, 0, 0, 0)
    assert target.counters.aborted == 3
    target.submit(3, 4, 1, now=2.0)
    assert target.step(2.0).finished == [3]


@pytest.mark.parametrize(
    ("prompt", "output", "message"),
    [(1, 1, "already live"), (0, 1, "asks for 0"), (1, -1, "asks for 1 [+] -1"), (100, 61, "at most 160 fit")],
)
def test_what_can_never_run_is_refused(prompt: int, output: int, message: str) -> None:
    target = engine()
    target.submit(1, 1, 1, now=0.0)
    with pytest.raises(ValueError, match=message):
        target.submit(1 if message == "already live" else 2, prompt, output, now=0.0)
    with pytest.raises(KeyError):
        target.generated(2)


def test_slowdown_and_noise_scale_a_step_and_the_seed_decides_the_noise() -> None:
    def durations(seed: int, slowdown: float, noise: float) -> list[float]:
        target = Engine(dataclasses.replace(PROFILE, noise=noise), random.Random(seed))
        target.slowdown = slowdown
        target.submit(1, 1, 100, now=0.0)
        return [result.duration_s for result in run(target, 100)]

    plain = durations(1, 1.0, 0.0)
    assert durations(1, 1.5, 0.0) == pytest.approx([1.5 * step_s for step_s in plain])
    assert durations(1, 1.0, 0.2) == durations(1, 1.0, 0.2) != durations(2, 1.0, 0.2)
    assert sum(durations(1, 1.0, 0.2)) == pytest.approx(sum(plain), rel=0.1)


def saturated(seconds: float, depth: int, seed: int) -> tuple[Engine, float, float, float, list[float]]:
    """A closed loop of `depth` requests: the engine, its time, integrals of running and waiting, sojourn times."""
    rng = random.Random(seed)
    target, now, running_s, waiting_s, number = Engine(H100_QWEN3_14B, rng), 0.0, 0.0, 0.0, 0
    began: dict[int, float] = {}
    sojourns: list[float] = []
    while now < seconds:
        while target.running + target.waiting < depth:
            number += 1
            began[number] = now
            target.submit(number, rng.randint(50, 900), H100_QWEN3_14B.draw_output_tokens(rng), now)
        result = target.step(now)
        now += result.duration_s
        running_s += result.duration_s * (target.running + len(result.finished))
        waiting_s += result.duration_s * target.waiting
        sojourns += [now - began.pop(ended) for ended in result.finished]
    sojourns += [now - start_s for start_s in began.values()]
    return target, now, running_s, waiting_s, sojourns


def test_littles_law_and_the_same_seed_gives_the_same_run() -> None:
    target, now, running_s, waiting_s, sojourns = saturated(120.0, 300, seed=3)
    assert target.running == 256 or target.blocks.free < 200
    assert (running_s + waiting_s) / now == pytest.approx(sum(sojourns) / now)
    assert saturated(120.0, 300, seed=3)[1:] == (now, running_s, waiting_s, sojourns)


def test_a_step_without_changes_costs_the_same_at_any_depth() -> None:
    def lines(depth: int) -> int:
        target = Engine(dataclasses.replace(H100_QWEN3_14B, kv_tokens=10**7, max_seqs=2048), random.Random(1))
        for number in range(depth):
            target.submit(number, 1, 4000, now=0.0)
        target.step(0.0)
        return lines_executed(lambda: run(target, 100), "proxy.simulator")

    assert lines(2000) == lines(20)


class Conservation(RuleBasedStateMachine):
    """Random submissions, steps and aborts against a model that counts every sequence one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.target = engine(noise=0.1)
        self.generated: dict[int, int] = {}
        self.output: dict[int, int] = {}
        self.prompt: dict[int, int] = {}
        self.number = 0
        self.now = 0.0

    @rule(prompt=st.integers(1, 120), output=st.integers(0, 40), priority=st.integers(0, 1))
    def submit(self, prompt: int, output: int, priority: int) -> None:
        self.number += 1
        self.target.submit(self.number, prompt, output, self.now, priority)
        self.generated[self.number], self.output[self.number], self.prompt[self.number] = 0, output, prompt

    @precondition(lambda self: self.generated)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.generated)))
        assert self.target.abort(number)
        del self.generated[number]

    @precondition(lambda self: self.generated)
    @rule(steps=st.integers(1, 12))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            result = self.target.step(self.now)
            self.now += result.duration_s
            got = [*self.target.decoding, *(ended for ended in result.finished if self.output[ended])]
            assert result.tokens == len(got)
            assert result.prefill_tokens + result.tokens <= PROFILE.chunk_tokens + PROFILE.max_seqs
            for number in got:
                self.generated[number] += 1
            for number in result.finished:
                assert self.generated.pop(number) == self.output[number]

    @invariant()
    def every_token_and_block_is_accounted_for(self) -> None:
        target = self.target
        assert {number: target.generated(number) for number in self.generated} == self.generated
        assert target.running <= PROFILE.max_seqs
        assert target.running + target.waiting == len(self.generated)
        held = [self.prompt[number] + self.generated[number] - 1 for number in target.decoding]
        held += [self.prompt[number] + self.generated[number] for number in target.prefilling]
        assert target.blocks.used == sum(blocks_for(tokens, PROFILE.block_tokens) for tokens in held)
        assert target.kv_usage == target.blocks.used / 10

    def teardown(self) -> None:
        for _ in range(5000):
            if not self.target.busy:
                break
            self.step(1)
        assert not self.target.busy and self.target.blocks.used == 0


Conservation.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestConservation = Conservation.TestCase
