"""What replay reads becomes arrivals that the engine can run."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from proxy.commands.replay_trace import Trace, arrivals, variants
from proxy.loadtest.workload import Flow, Shot
from proxy.simulator.profiles import T4_7B_AWQ


def shot(prompt: int, output: int, class_name: str = "", tenant: str = "") -> Shot:
    return Shot(0, 1.0, Flow("f", class_name=class_name, tenant=tenant, stream=False), prompt, output)


def test_lengths_are_cut_to_what_the_engine_runs_and_classes_found_by_name() -> None:
    (variant,) = variants(Namespace(config=None, set=[]))
    trace = Trace("x", (shot(5000, 9, "low", "me"), shot(100, 9999), shot(0, 5, "critical")), 0)
    first, second, third = arrivals(trace, variant, T4_7B_AWQ)
    assert (first.prompt_tokens, first.output_tokens, first.class_index, first.tenant) == (2047, 1, 3, "me")
    assert (second.prompt_tokens, second.output_tokens, second.class_index) == (100, 1948, 2)
    assert (third.prompt_tokens, third.class_index, third.streaming) == (1, 0, False)


def test_each_change_is_a_variant_of_the_first_and_every_engine_serves_all_models() -> None:
    first, second = variants(Namespace(config=None, set=["limit.initial=5,classes.0.queue_max=9,target.itl_ms=7"][:1]))
    assert (first.name, first.config.upstreams[0].limit.initial) == ("defaults", 8)
    assert second.config.upstreams[0].limit.initial == 5 and second.config.upstreams[0].target.itl_s == 0.007
    assert second.config.classes[0].queue_max == 9
    assert {one.models for one in (*first.config.upstreams, *second.config.upstreams)} == {None}
    assert replace(second.config, upstreams=()).tenants == first.config.tenants
