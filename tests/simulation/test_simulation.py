"""Fixed seeds run clean and reach every kind of ending; planted faults are found; a seed is a schedule."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from tests.simulation.loop import DeadlockError, VirtualLoop
from tests.simulation.mutants import MUTANTS, Patch
from tests.simulation.world import SeedError, World, play

SEEDS = 100
SEEDS_PER_MUTANT = 200
REACHED = {
    "success", "upstream_status", "upstream_error", "upstream_timeout", "queue_full", "displaced", "queue_timeout",
    "no_upstream", "deadline_exceeded", "body_timeout", "head_timeout", "client_stalled", "retried",
    "client_gone upload", "client_gone queued", "client_gone waiting", "client_gone streaming",
}  # fmt: skip


def endings(world: World) -> Counter[str]:
    found: Counter[str] = Counter()
    for record in world.records:
        phase = f" {record.gone_phase.value}" if record.gone_phase and record.outcome.value == "client_gone" else ""
        found[record.outcome.value + phase] += 1
        found["retried"] += record.retries
    return found


def test_fixed_seeds_run_clean_and_reach_every_ending() -> None:
    reached: Counter[str] = Counter()
    for seed in range(SEEDS):
        reached += endings(play(seed))
    assert set(reached) >= REACHED, f"never reached: {REACHED - set(reached)}"
    assert min(reached[name] for name in REACHED) >= 3, reached


@pytest.mark.source  # plants faults in methods of native classes
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch, mutant: Callable[[Patch], None]) -> None:
    mutant(monkeypatch)
    with pytest.raises(SeedError):
        for seed in range(SEEDS_PER_MUTANT):
            play(seed)


def test_a_seed_is_a_schedule() -> None:
    runs = [play(3) for _ in range(2)]
    traces = [
        (run.loop.turns, run.loop.time(), run.report.answers, [(one.request_id, one.outcome) for one in run.records])
        for run in runs
    ]
    assert traces[0] == traces[1]
    assert play(4).loop.turns != runs[0].loop.turns


def test_a_loop_in_which_nothing_can_happen_any_more_says_so() -> None:
    loop = VirtualLoop()

    async def wait_for_ever() -> None:
        await loop.create_future()

    asyncio.set_event_loop(loop)
    task = loop.create_task(wait_for_ever())
    with pytest.raises(DeadlockError):
        loop.run_until_complete(task)
    loop.let_go()
    asyncio.set_event_loop(None)
    assert task.cancelled()
