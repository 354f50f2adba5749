"""`sweep`: measure one setting after the other; curve, knee, Pareto set, memory, as JSON, HTML and PNG."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.commands import load_options as options
from proxy.commands.base import FAILED, WRONG_USE, CommandError, Commands, add_command, say, say_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.loadtest import Endpoint, Options, Workload
    from proxy.loadtest.results import Document

    Points = dict[float, Document]

EXAMPLE = (
    "penstock sweep http://127.0.0.1:8000 --concurrency 1,2,4,8,16,32 --slo itl=50ms,ttft=500ms --out sweep\n"
    "penstock sweep http://127.0.0.1:8080 --rate 5,10,20,40 --workload chat_medium --duration 30\n"
    "penstock sweep http://127.0.0.1:8080 --set limit=4,8,16,32 --admin http://127.0.0.1:8081 --workload chat_high"
)
POWERS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def declare(commands: Commands) -> None:
    parser = add_command(
        commands, "sweep", run, "measure an endpoint from setting to setting: curve, knee, Pareto set", EXAMPLE
    )
    options.declare_endpoint(parser)
    options.declare_load(parser, "closed", loops=False)
    swept_by = parser.add_argument_group("settings").add_mutually_exclusive_group()
    swept_by.add_argument("--concurrency", metavar="N,...", help="closed loop (default 1,2,4,8,16,32,64)")
    swept_by.add_argument("--rate", metavar="R,...", help="open loop, requests per second")
    swept_by.add_argument("--set", metavar="limit=N,...", help="limit of the Penstock whose --admin is given")
    options.declare_slo(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, default=Path("sweep"), metavar="PATH", help="PATH.json, .html, .png (sweep)")
    group.add_argument("--fresh", action="store_true", help="begin anew instead of going on where PATH.json ends")
    group.add_argument("--json", action="store_true", help="print the sweep as JSON")


def settings_of(arguments: Namespace) -> tuple[str, list[float]]:
    """What is swept, and its values."""
    kind = "rate" if arguments.rate else "concurrency"
    text = arguments.rate or arguments.concurrency
    if arguments.set:
        kind, _, text = arguments.set.partition("=")
        if kind != "limit" or not arguments.admin:
            raise CommandError("--set takes limit=N,... of the Penstock whose --admin URL is given", code=WRONG_USE)
    if text is None:
        return kind, list(POWERS)
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        values = [0.0]
    whole = kind != "rate"
    if not all(0 < value <= 1e6 and (not whole or value == int(value)) for value in values):
        raise CommandError(
            f"{kind} {text!r}: give {'whole ' if whole else ''}numbers above 0, such as 1,2,4", code=WRONG_USE
        )
    return kind, values


def run(arguments: Namespace) -> int:
    from proxy.loadtest import EndpointError, Options, Slo, save_json
    from proxy.loadtest import run as complete
    from proxy.loadtest.blocks import as_page, as_text
    from proxy.loadtest.client.files import save
    from proxy.loadtest.client.sweep import SweepError
    from proxy.loadtest.curve import point_of
    from proxy.loadtest.sweeping import charts, document_blocks, fingerprint, sweep_document
    from proxy.planning.drawing import as_png

    kind, settings = settings_of(arguments)
    endpoint, workload = options.endpoint_of(arguments), options.workload_of(arguments)
    slo = arguments.slo or Slo()
    of = fingerprint(endpoint.root, kind, workload, slo, arguments.model)
    base = options.base_of(arguments.out)
    paths = {ending: base.parent / f"{base.name}.{ending}" for ending in ("json", "html", "png")}
    done = {} if arguments.fresh else begun(paths["json"], of)
    done = {setting: done[setting] for setting in settings if setting in done}

    def keep(points: Points) -> None:
        options.write(paths["json"], save_json, sweep_document(of, points))

    chosen = Options(arguments.model, slo, options.sources_of(arguments, endpoint))
    try:
        done, interrupted = complete(swept(endpoint, workload, kind, settings, chosen, done, keep))
    except (SweepError, EndpointError) as error:
        raise CommandError(str(error)) from None
    if not done:
        raise CommandError("interrupted before the first point was measured")
    document = sweep_document(of, done)
    title, blocks = f"Sweep of {kind} at {endpoint.root}", document_blocks(document)
    keep(done)
    options.write(paths["html"], save, as_page(title, blocks))
    drawn = charts([point_of(setting, done[setting]) for setting in sorted(done)], kind)
    if drawn:
        options.write(paths["png"], save, as_png(drawn))
    if arguments.json:
        say_json(document)
    else:
        say(as_text(title, blocks))
        say(f"\nsaved: {', '.join(str(path) for path in paths.values() if path.exists())}")
    if interrupted:
        raise CommandError(
            f"interrupted after {len(done)} of {len(settings)} points; the same command goes on from there"
        )
    return 0 if any(point["total"]["successes"] for point in done.values()) else FAILED


def begun(path: Path, of: Document) -> Points:
    """Points of an earlier, interrupted run of the same sweep."""
    from proxy.loadtest import ResultsError
    from proxy.loadtest.client.files import load_document
    from proxy.loadtest.sweeping import differences, points_of

    if not path.exists():
        return {}
    try:
        before, done = points_of(load_document(path), str(path))
    except ResultsError as error:
        raise CommandError(str(error)) from None
    if different := differences(before, of):
        words = ", ".join(different)
        raise CommandError(
            f"{path} holds another sweep (other {words}); give another --out, or --fresh", code=WRONG_USE
        )
    return done


async def swept(
    endpoint: Endpoint,
    workload: Workload,
    kind: str,
    settings: list[float],
    chosen: Options,
    done: Points,
    keep: Callable[[Points], None],
) -> tuple[Points, bool]:
    """The sweep with its progress line, ended early by Ctrl-C; whether it was."""
    from proxy.commands.progress import ProgressLine, interruptible
    from proxy.loadtest.client.sweep import sweep
    from proxy.loadtest.curve import point_of
    from proxy.loadtest.text import amount

    line = ProgressLine()

    def told(setting: float, points: Points, ended: bool) -> None:
        line.title = f"{kind} {setting:g} ({len(points) + (not ended)} of {len(settings)}) "
        if ended:
            keep(points)
            point = point_of(setting, points[setting])
            line.clear()
            sys.stderr.write(
                f"{kind} {setting:g}: {amount(point.tokens_per_s)} tok/s, TTFT p50 {amount(point.ttft_p50_ms)} ms, "
                f"TPOT p50 {amount(point.tpot_p50_ms)} ms\n"
            )

    async with interruptible(lambda: setattr(line, "ending", True)) as stop:
        found = await sweep(endpoint, workload, kind, settings, replace(chosen, progress=line, stop=stop), done, told)
        interrupted = stop.is_set()
    line.clear()
    return found, interrupted
