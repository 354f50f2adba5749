"""What leaks is computed, never counted."""

from __future__ import annotations

from dataclasses import replace

from .world import World


def test_leaked_is_what_was_granted_and_neither_released_nor_held() -> None:
    world = World()
    first = world.arrive()
    world.arrive()
    world.finish(first)
    state = world.dispatcher.snapshot(world.now)
    assert (state.granted, state.released, state.held, state.leaked) == (2, 1, 1, 0)
    assert replace(state, released=0).leaked == 1
