"""The worked examples of `plan --preset`: each figure of the document beside the exact one and the engine's own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.commands.base import say, say_json, table
from proxy.commands.plan_options import PRESETS

if TYPE_CHECKING:
    from proxy.planning.capacity import CapacityPlan

    MakePlan = Callable[[Namespace], CapacityPlan]
    Plot = Callable[[Namespace, CapacityPlan], None]


def run(arguments: Namespace, make_plan: MakePlan, plot: Plot) -> int:
    """Prints the chosen example beside what `make_plan` computes for it."""
    if arguments.preset == PRESETS[0]:
        return _batch_size_reasoning(arguments, make_plan, plot)
    return _t4_roofline(arguments, make_plan, plot)


def _batch_size_reasoning(arguments: Namespace, make_plan: MakePlan, plot: Plot) -> int:
    from proxy.planning.report import as_json, budget_rows, capacity_rows, example_json, example_rows
    from proxy.planning.worked_example import DIFFERENCES, FRACTION, LONGEST, TP, batch_size_reasoning

    fixed = _with_model(arguments, "llama-3.3-70b-fp8", "h100-sxm")
    fixed.count, fixed.tp, fixed.engine, fixed.kv_dtype = TP, TP, "tensorrt-llm", "fp8"
    fixed.fraction, fixed.max_model_len = FRACTION, LONGEST
    plan, steps = make_plan(fixed), batch_size_reasoning()
    if arguments.plot:
        plot(fixed, plan)
    if arguments.json:
        say_json(as_json(plan) | {"preset": arguments.preset} | example_json(steps, plan))
        return 0
    parts = [table(example_rows(steps)), "what the engine gives (TensorRT-LLM):", table(budget_rows(plan))]
    parts += [table(capacity_rows(plan)), *(f"why: {reason}" for reason in DIFFERENCES)]
    say("\n\n".join(parts))
    return 0


def _with_model(arguments: Namespace, model: str, accelerator: str) -> Namespace:
    """The arguments of a preset: its own model and card, everything else as given."""
    return Namespace(**{**vars(arguments), "model": model, "accelerator": accelerator, "calibrate": None})


def _t4_roofline(arguments: Namespace, make_plan: MakePlan, plot: Plot) -> int:
    from proxy.planning.worked_example import T4_EXPLANATION, T4_RIDGE, t4_intensities

    fixed = _with_model(arguments, "llama-2-7b-awq", "t4")
    fixed.max_model_len, fixed.kv_dtype = 2048, "fp16"
    plan = make_plan(fixed)
    checks = t4_intensities(lambda batch, context: plan.roofline.decode(batch, context).intensity)
    if arguments.plot:
        plot(fixed, plan)
    if arguments.json:
        rows = [
            {"batch": item.batch, "context_tokens": item.context, "intensity": round(item.computed, 3)}
            for item in checks
        ]
        say_json({"preset": arguments.preset, "ridge": plan.roofline.ridge, "ridge_quoted": T4_RIDGE, "decode": rows})
        return 0
    rows_text = [("batch", "context", "FLOP/byte", "quoted")]
    rows_text += [
        (f"{item.batch}", f"{item.context}", f"{item.computed:.1f}", f"{item.low:g}-{item.high:g}") for item in checks
    ]
    head = f"ridge {plan.roofline.ridge:.1f} FLOP/byte (quoted {T4_RIDGE:g})"
    say("\n\n".join([head, table(rows_text), *(f"why: {reason}" for reason in T4_EXPLANATION)]))
    return 0
