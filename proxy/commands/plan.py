"""`plan`: how much fits, how fast, and with which flags. Prints a table, JSON, an explanation or a plot.

Everything it needs beyond argparse is imported when it runs, and nothing of the server ever is.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.commands import plan_options as options
from proxy.commands import plan_presets as presets
from proxy.commands.base import WRONG_USE, CommandError, Commands, add_command, say, say_json, table

if TYPE_CHECKING:
    from proxy.planning.advice import Advice
    from proxy.planning.calibration import Observation
    from proxy.planning.capacity import CapacityPlan, PlanRequest

EXAMPLE = (
    "penstock plan --model llama-3.1-8b --accelerator h100 --max-model-len 8192 --itl-ms 50\n"
    "penstock plan --model ./Qwen3-32B --accelerator h100 --count 2 --kv-dtype fp8 --flags vllm --json\n"
    "penstock plan --preset batch-size-reasoning"
)


def declare(commands: Commands) -> None:
    parser = add_command(
        commands, "plan", run, "compute how many tokens and requests fit, how fast, and the flags", EXAMPLE
    )
    options.declare_model(parser.add_argument_group("model and hardware"))
    options.declare_engine(parser.add_argument_group("engine"))
    options.declare_aims(parser.add_argument_group("workload and targets"))
    options.declare_output(parser.add_argument_group("sources and output"))


def run(arguments: Namespace) -> int:
    from proxy.planning.fields import PlanError

    try:
        return _run(arguments)
    except PlanError as error:
        raise CommandError(str(error)) from None


def _run(arguments: Namespace) -> int:
    if arguments.list:
        return _list(arguments)
    if arguments.preset:
        return presets.run(arguments, _plan, _plot)
    if not arguments.model and arguments.live:
        return _live_alone(arguments)
    for name in ("model", "accelerator"):
        if not getattr(arguments, name):
            raise CommandError(f"--{name} is missing; see: penstock plan --help", code=WRONG_USE)
    plan = _plan(arguments)
    extra = _extras(arguments, plan)
    if arguments.plot:
        _plot(arguments, plan)
    if arguments.json:
        say_json(_json(arguments, plan, extra))
    else:
        say(_text(arguments, plan, extra))
    return 0


def _list(arguments: Namespace) -> int:
    from proxy.adapters.files import bundled_models, load_accelerators

    found = {"models": bundled_models(), "accelerators": list(load_accelerators())}
    if arguments.json:
        say_json(found)
    else:
        for kind, names in found.items():
            say(f"{kind}: {', '.join(names)}")
    return 0


def _request(arguments: Namespace) -> PlanRequest:
    from proxy.planning.capacity import PlanRequest

    tp, pp, dp = arguments.tp, arguments.pp, arguments.dp
    return PlanRequest(
        engine=arguments.engine,
        engine_version=arguments.engine_version,
        count=arguments.count or (tp or 1) * pp * dp,
        tp=tp,
        pp=pp,
        dp=dp,
        context_parallel=arguments.dcp,
        kv_dtype=arguments.kv_dtype,
        weight_dtype=arguments.weight_dtype,
        fraction=arguments.fraction,
        max_model_len=arguments.max_model_len,
        max_num_seqs=arguments.max_num_seqs,
        max_num_batched_tokens=arguments.max_num_batched_tokens,
        gpu_memory_gib=arguments.gpu_memory_gib,
        free_memory_gib=arguments.free_memory_gib,
        weights_gib=arguments.weights_gib,
        kv_bytes_per_token=arguments.kv_bytes_per_token,
        block_tokens=arguments.block_size,
        speculative_layers=arguments.speculative_layers,
        eager=arguments.enforce_eager,
        uniform_windows=arguments.disable_hybrid_kv_cache_manager,
        language_only=arguments.language_model_only,
        utilization=arguments.utilization,
        latency_factor=arguments.latency_factor,
        itl_ms=arguments.itl_ms,
        ttft_ms=arguments.ttft_ms,
    )


def _plan(arguments: Namespace) -> CapacityPlan:
    from proxy.adapters.files import load_accelerator, load_model
    from proxy.planning.calibration import calibrated_request
    from proxy.planning.capacity import plan_capacity
    from proxy.planning.shapes import read_shape

    card = load_accelerator(arguments.accelerator)
    files = load_model(arguments.model)
    shape = read_shape(files.config, files.sidecar, files.name, arguments.kv_bytes_per_token is not None)
    plan = plan_capacity(shape, card, _request(arguments), files.weights_bytes)
    if not arguments.calibrate:
        return plan
    seen = _observation(arguments.calibrate)
    return plan_capacity(shape, card, calibrated_request(plan, seen), files.weights_bytes)


def _observation(source: str) -> Observation:
    """What the log file tells, or the engine at a URL."""
    from proxy.planning.calibration import observe, observe_engine

    if source.startswith(("http://", "https://")):
        from proxy.adapters.live import ask_engine, get

        base = source.rstrip("/").removesuffix("/metrics")
        text, told = get(base, "/metrics").body.decode("utf-8", "replace"), ask_engine(base).telemetry
        slots = (told.running_cap or 0) * (told.context_tokens or 0) if told.engine == "llamacpp" else 0
        return observe_engine(text, told.kv_tokens or slots or None, told.context_tokens)
    from proxy.adapters.files import LOG_BYTES_MAX, read_bounded

    return observe(read_bounded(Path(source), LOG_BYTES_MAX).decode("utf-8", "replace"))


def _extras(arguments: Namespace, plan: CapacityPlan) -> dict[str, Any]:
    """What the sources beyond the plan add, as JSON values."""
    extra: dict[str, Any] = {}
    if arguments.live:
        extra["live"] = _live(arguments.live, plan)
    if arguments.trtllm_configs:
        extra["reference"] = _reference(arguments, plan)
    if arguments.flags:
        extra["flags"] = _flags(arguments, plan)
    if arguments.memory_limit_gib is not None:
        from proxy.planning.report import largest_batch

        limit = int(arguments.memory_limit_gib * 2**30)
        extra["memory_limit"] = {"gib": arguments.memory_limit_gib, "largest_batch": largest_batch(plan, limit)}
    return extra


def _live(url: str, plan: CapacityPlan | None) -> dict[str, Any]:
    from proxy.adapters.live import ask_engine

    found = ask_engine(url)
    told = found.telemetry
    answer: dict[str, Any] = {
        "engine": found.engine,
        "models": list(told.models),
        "kv_tokens": told.kv_tokens,
        "running_cap": told.running_cap,
        "context_tokens": told.context_tokens,
        "running": told.running,
        "waiting": told.waiting,
        "kv_usage": told.kv_usage,
        "preemptions": told.preemptions,
        "provenance": "live",
    }
    if plan is not None and told.kv_tokens and plan.kv_tokens:
        answer["plan_over_live"] = round(plan.kv_tokens / told.kv_tokens, 3)
    return answer


def _live_alone(arguments: Namespace) -> int:
    found = _live(arguments.live, None)
    if arguments.json:
        say_json({"version": 1, "live": found})
    else:
        say(table([(name, _cell(value)) for name, value in found.items()]))
    return 0


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _reference(arguments: Namespace, plan: CapacityPlan) -> dict[str, Any]:
    from proxy.adapters.files import load_reference

    seats = max(1, plan.recommended // plan.request.dp)
    return load_reference(Path(arguments.trtllm_configs), plan, arguments.isl, arguments.osl, seats)


def _flags(arguments: Namespace, plan: CapacityPlan) -> list[dict[str, Any]]:
    from proxy.planning.engine_flags import ALL_TARGETS, flags_for

    targets = ALL_TARGETS if arguments.flags == "all" else (arguments.flags,)
    url = arguments.live or "http://127.0.0.1:8000"
    found = [flags_for(plan, target, url) for target in targets]
    return [
        {
            "engine": item.engine,
            "command": item.command,
            "file": {item.file_name: item.file_text} if item.file_name else {},
            "conflicts": list(item.conflicts),
        }
        for item in found
    ]


def _advice(arguments: Namespace, plan: CapacityPlan) -> list[Advice]:
    from proxy.planning.advice import advise, use_case_batch

    if arguments.use_case:
        use_case_batch(arguments.use_case, plan.card.nominal_gb)
    return advise(plan, arguments.use_case) if plan.shape.parameters else []


def _json(arguments: Namespace, plan: CapacityPlan, extra: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    from proxy.planning.report import as_json, explain_lines, memory_json

    answer = as_json(plan) | extra
    answer["memory_by_batch"] = memory_json(plan)
    answer["advice"] = [asdict(item) for item in _advice(arguments, plan)]
    if arguments.explain:
        answer["explain"] = explain_lines(plan, [])
    return answer


def _text(arguments: Namespace, plan: CapacityPlan, extra: dict[str, Any]) -> str:
    from proxy.planning import report

    advice = _advice(arguments, plan)
    parts = [table(report.head_rows(plan)), table(report.budget_rows(plan)), table(report.capacity_rows(plan))]
    if plan.shape.parameters:
        ridge = (
            f"roofline at {report.typical_context(plan)} tokens per request, ridge {plan.roofline.ridge:.0f} FLOP/byte"
        )
        parts.append(ridge + "\n" + table(report.roofline_rows(plan)))
    if arguments.memory_limit_gib is not None or arguments.explain:
        parts.append(table(report.memory_rows(plan, arguments.memory_limit_gib)))
    if arguments.explain:
        parts.append("\n".join(report.explain_lines(plan, advice)))
    elif advice:
        parts.append("\n".join(f"{item.topic}: {item.text} ({item.basis})" for item in advice))
    parts += [_section(name, value) for name, value in extra.items() if name != "memory_limit"]
    parts += [f"note: {note}" for note in plan.notes]
    return "\n\n".join(parts)


def _section(name: str, value: Any) -> str:
    """One of the extras as text."""
    if name == "flags":
        return "\n\n".join(_flag_text(item) for item in value)
    return f"{name}:\n" + table([(key, _cell(item)) for key, item in value.items()])


def _flag_text(item: dict[str, Any]) -> str:
    lines = [f"# {item['engine']}", item["command"]]
    for file_name, text in item["file"].items():
        lines += [f"# {file_name}", text.rstrip()]
    return "\n".join([*lines, *(f"# conflict: {found}" for found in item["conflicts"])])


def _plot(arguments: Namespace, plan: CapacityPlan) -> None:
    from proxy.planning.charts import plan_charts
    from proxy.planning.drawing import as_html, as_png

    path = Path(arguments.plot)
    charts = plan_charts(plan, arguments.memory_limit_gib)
    if path.suffix == ".html":
        data = as_html(charts, f"{plan.shape.name} on {plan.card.name}", _text(arguments, plan, {})).encode()
    elif path.suffix == ".png":
        data = as_png(charts)
    else:
        raise CommandError("--plot takes a name that ends in .html or .png", code=WRONG_USE)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written ({error.strerror})") from None
