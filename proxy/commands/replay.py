"""`replay`: recorded or generated arrivals through the dispatcher in virtual time, one or several settings beside
one another."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.commands.base import WRONG_USE, CommandError, Commands, above_zero, add_command, say, say_json, table
from proxy.commands.simulate import PROFILE, engine_profile

if TYPE_CHECKING:
    from proxy.commands.replay_trace import Trace, Variant
    from proxy.laboratory.lab import Lab
    from proxy.laboratory.summary import Summary
    from proxy.simulator.profiles import EngineProfile

EXAMPLE = (
    "penstock replay arrivals.jsonl --profile h100-qwen3-14b\n"
    "penstock replay arrivals.jsonl --config old.yaml --config new.yaml --load 1.5 --out compared.html\n"
    "penstock replay --workload chat_medium --rate 30 --duration 120 --set limit.law=aimd --set target.itl_ms=30"
)
DRAIN_S = 120.0  # after the last arrival
KINDS = (".html", ".svg", ".png")


def declare(commands: Commands) -> None:
    parser = add_command(commands, "replay", run, "try settings on recorded or generated arrivals, in seconds", EXAMPLE)
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="arrivals, as `penstock serve --record FILE` writes them"
    )
    group = parser.add_argument_group("arrivals")
    group.add_argument("--workload", metavar="NAME", help="a load test's workload instead (default chat_medium)")
    group.add_argument("--rate", type=above_zero, help="requests per second, for a workload")
    group.add_argument("--duration", type=above_zero, metavar="S", help="seconds of arrivals, for a workload")
    group.add_argument(
        "--load", type=above_zero, default=1.0, metavar="X", help="press time together: X times the load"
    )
    group = parser.add_argument_group("settings, side by side")
    group.add_argument("--config", action="append", type=Path, metavar="FILE", help="configuration; may be repeated")
    group.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE[,...]", help="one more: the first with this changed"
    )
    group = parser.add_argument_group("engine and output")
    group.add_argument("--profile", default=PROFILE, metavar="NAME", help=f"simulated engine (default {PROFILE})")
    group.add_argument("--seed", type=int, default=1, help="start of the random numbers (default 1)")
    group.add_argument("--out", type=Path, metavar="FILE", help="picture over time: .html, .svg or .png")
    group.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: Namespace) -> int:
    from proxy.commands import replay_trace
    from proxy.laboratory.summary import summarize

    if arguments.out is not None and arguments.out.suffix not in KINDS:
        raise CommandError(f"--out {arguments.out}: name it *.html, *.svg or *.png", code=WRONG_USE)
    profile = engine_profile(arguments.profile)
    variants, trace = replay_trace.variants(arguments), replay_trace.read(arguments)
    labs, interrupted = _run_all(variants, trace, profile, arguments.seed)
    done = variants[: len(labs)]
    found = [
        summarize(lab, variant.config.upstreams[0].target, variant.class_names)
        for variant, lab in zip(done, labs, strict=True)
    ]
    text = _text(arguments, trace, done, found)
    if arguments.out is not None:
        _draw(arguments.out, done, labs, text)
    if arguments.json:
        say_json(_json(arguments, trace, done, found, labs, interrupted))
    else:
        say(text)
        say(f"picture: {arguments.out}" if arguments.out else "a picture over time: --out FILE.html")
    return int(interrupted)


def _run_all(variants: Sequence[Variant], trace: Trace, profile: EngineProfile, seed: int) -> tuple[list[Lab], bool]:
    """Each variant on the same trace. An interruption keeps what has been simulated so far."""
    from proxy.commands.replay_trace import arrivals
    from proxy.laboratory.lab import Lab

    labs: list[Lab] = []
    until_s = (trace.shots[-1].at_s or 0.0) + DRAIN_S
    ready = [arrivals(trace, variant, profile) for variant in variants]
    try:
        for variant, made in zip(variants, ready, strict=True):
            lab = Lab(variant.config, {one.name: profile for one in variant.config.upstreams}, seed)
            labs.append(lab)
            lab.run(made, until_s, progress=bar(variant.name, until_s))
    except KeyboardInterrupt:
        return labs, True
    return labs, False


def bar(name: str, until_s: float) -> Callable[[float], None] | None:
    """A progress bar where standard error is a terminal."""
    if not sys.stderr.isatty():
        return None

    def show(now: float) -> None:
        if now % 10 < 1:
            filled = round(30 * now / until_s)
            end = "\n" if now + 10 > until_s else ""
            sys.stderr.write(
                f"\r{name[:30]:30} [{'#' * filled}{'.' * (30 - filled)}] {now:.0f} of {until_s:.0f} s{end}"
            )
            sys.stderr.flush()

    return show


def _text(arguments: Namespace, trace: Trace, variants: Sequence[Variant], found: Sequence[Summary]) -> str:
    head = (
        f"{trace.name}: {len(trace.shots)} requests in {trace.shots[-1].at_s or 0.0:.0f} s on {arguments.profile} "
        f"(simulated)"
    )
    if trace.guessed:
        head += f"; {trace.guessed} recorded without output: given the median"
    rows: list[Sequence[str]] = [("", *(variant.name for variant in variants))]
    rows += [(words, *(tell(one) for one in found)) for words, tell in FIGURES]
    names = {name: None for one in found for name in one.refused}
    rows += [(f"refused: {name}", *(str(one.refused.get(name, 0)) for one in found)) for name in names]
    blocks = [head, table(rows)]
    if max(len(one.classes) for one in found) > 1:
        blocks.append(_classes(variants, found))
    return "\n\n".join(blocks)


FIGURES: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    ("served of offered", lambda one: f"{one.served} of {one.offered}"),
    ("not finished in time", lambda one: str(one.unfinished)),
    ("goodput, tokens/s", lambda one: f"{one.goodput_tokens_s:.0f}"),
    ("output, tokens/s", lambda one: f"{one.tokens_s:.0f}"),
    ("within both targets", lambda one: f"{100 * one.attainment:.1f} %"),
    ("TTFT p50 / p95 / p99, ms", lambda one: _ms(one.ttft_p50_s, one.ttft_p95_s, one.ttft_p99_s)),
    ("wait in our queue p95, ms", lambda one: _ms(one.wait_p95_s)),
    ("time per token p50 / p95, ms", lambda one: _ms(one.itl_p50_s, one.itl_p95_s)),
    ("limit, mean", lambda one: f"{one.limit:.1f}"),
    ("in flight, mean", lambda one: f"{one.in_flight:.1f}"),
    ("changes of the limit", lambda one: str(one.steps)),
    ("tokens computed again", lambda one: f"{100 * one.recomputed_share:.1f} %"),
)


def _classes(variants: Sequence[Variant], found: Sequence[Summary]) -> str:
    rows: list[Sequence[str]] = [("class", "setting", "served of offered", "TTFT p95, ms", "good of offered")]
    for variant, one in zip(variants, found, strict=True):
        rows += [
            (
                own.name,
                variant.name,
                f"{own.served} of {own.offered}",
                _ms(own.ttft_p95_s),
                f"{100 * own.good_share:.1f} %",
            )
            for own in one.classes
            if own.offered
        ]
    return table(rows)


def _ms(*seconds: float) -> str:
    return " / ".join(f"{1000 * value:.0f}" for value in seconds)


def _json(
    arguments: Namespace,
    trace: Trace,
    variants: Sequence[Variant],
    found: Sequence[Summary],
    labs: Sequence[Lab],
    interrupted: bool,
) -> dict[str, Any]:
    settings = [
        {"name": variant.name, **asdict(one), "moments": [asdict(moment) for moment in lab.moments]}
        for variant, one, lab in zip(variants, found, labs, strict=True)
    ]
    return {
        "trace": trace.name,
        "requests": len(trace.shots),
        "seconds": trace.shots[-1].at_s,
        "outputs_guessed": trace.guessed,
        "profile": arguments.profile,
        "load": arguments.load,
        "seed": arguments.seed,
        "interrupted": interrupted,
        "settings": settings,
    }


def _draw(path: Path, variants: Sequence[Variant], labs: Sequence[Lab], text: str) -> None:
    from proxy.laboratory.picture import as_html, as_png, as_svg, panels

    names = [variant.name for variant in variants]
    target = variants[0].config.upstreams[0].target
    end_s = max((one.at_s for lab in labs for one in lab.moments if one.in_flight or one.queued), default=0.0)
    shown = panels([[one for one in lab.moments if one.at_s <= end_s] for lab in labs], target.itl_s)
    try:
        if path.suffix == ".png":
            path.write_bytes(as_png(names, shown))
        else:
            page = as_svg(names, shown)
            page = as_html(names, shown, "Settings on the same arrivals", text) if path.suffix == ".html" else page
            path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--out {path}: cannot be written ({error.strerror})") from None
