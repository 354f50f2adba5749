"""`tune`: find the concurrency that keeps a latency target, and print the flags and configuration for it."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.commands import load_options as options
from proxy.commands.base import FAILED, WRONG_USE, CommandError, Commands, above_zero, add_command, say, say_json, whole

if TYPE_CHECKING:
    from proxy.loadtest import Endpoint, Options, Workload
    from proxy.loadtest.client.tune import Found
    from proxy.loadtest.search import Search, Step, Trial

EXAMPLE = (
    "penstock tune http://127.0.0.1:8000 --itl-ms 50 --ttft-ms 500\n"
    "penstock tune http://127.0.0.1:8000 --itl-ms 30 --workload chat_medium --duration 20 --out tune --cost-per-hour 3"
)


def declare(commands: Commands) -> None:
    parser = add_command(commands, "tune", run, "find the best setting of an engine under a latency target", EXAMPLE)
    options.declare_endpoint(parser)
    options.declare_load(parser, "closed", loops=False)
    group = parser.add_argument_group("target")
    group.add_argument(
        "--itl-ms", type=above_zero, metavar="MS", default=50.0, help="time per output token (default 50)"
    )
    group.add_argument(
        "--ttft-ms", type=above_zero, metavar="MS", default=500.0, help="time to first token (default 500)"
    )
    group.add_argument(
        "--attainment", type=above_zero, metavar="X", default=0.95, help="share of requests within (default 0.95)"
    )
    group.add_argument("--start", type=whole, metavar="N", default=1, help="concurrency to begin with (default 1)")
    group.add_argument("--max", type=whole, metavar="N", default=1024, help="highest concurrency to try (default 1024)")
    group.add_argument("--cost-per-hour", type=above_zero, metavar="X", help="of the hardware, for cost per token")
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, metavar="PATH", help="save PATH.json and PATH.html")
    group.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: Namespace) -> int:
    from proxy.loadtest import EndpointError, Options, Slo, save_json
    from proxy.loadtest import run as complete
    from proxy.loadtest.blocks import as_page, as_text
    from proxy.loadtest.client.files import save
    from proxy.loadtest.search import Aim, Search
    from proxy.loadtest.sweeping import fingerprint
    from proxy.loadtest.tuning import tune_blocks, tune_document

    if arguments.attainment > 1 or arguments.start > arguments.max:
        raise CommandError("--attainment is at most 1, and --start at most --max", code=WRONG_USE)
    endpoint, workload = options.endpoint_of(arguments), options.workload_of(arguments)
    aim = Aim(arguments.itl_ms, arguments.ttft_ms, arguments.attainment, arguments.max)
    slo = Slo(aim.ttft_ms / 1e3, aim.itl_ms / 1e3)
    search = Search(aim, arguments.start)
    chosen = Options(arguments.model, slo, options.sources_of(arguments, endpoint))
    try:
        found, interrupted = complete(tuned(endpoint, workload, search, chosen, not arguments.json))
    except EndpointError as error:
        raise CommandError(str(error), code=WRONG_USE) from None
    of = fingerprint(endpoint.root, "concurrency", workload, slo, arguments.model)
    document = tune_document(of, aim, search, found.engine, interrupted) | {"warnings": found.lines()}
    title = f"Tuning of {endpoint.root}"
    blocks = tune_blocks(endpoint.root, aim, search, found.engine, found.lines(), arguments.cost_per_hour)
    if arguments.out:
        base = options.base_of(arguments.out)
        for ending, write, data in (("json", save_json, document), ("html", save, as_page(title, blocks))):
            options.write(base.parent / f"{base.name}.{ending}", write, data)
    if arguments.json:
        say_json(document)
    else:
        say("\n" + as_text(title, blocks))
    if interrupted:
        raise CommandError(f"interrupted after {len(search.trials)} runs; nothing is confirmed")
    return 0 if search.confirmed else FAILED


async def tuned(
    endpoint: Endpoint, workload: Workload, search: Search, chosen: Options, spoken: bool
) -> tuple[Found, bool]:
    """The search with its progress line and a line for each run; what it found, and whether Ctrl-C ended it."""
    from proxy.commands.progress import ProgressLine, interruptible
    from proxy.loadtest.client.tune import tune

    line = ProgressLine()

    def told(step: Step, trial: Trial | None) -> None:
        line.title = f"{step.phase} {step.concurrency} "
        if trial is not None and spoken:
            line.clear()
            verdict = "holds" if trial.held else "; ".join(trial.problems)
            say(f"{step.phase:8}{step.concurrency:5}  {trial.point.tokens_per_s:10,.0f} tokens/s  {verdict}")

    async with interruptible(lambda: setattr(line, "ending", True)) as stop:
        found = await tune(endpoint, workload, search, replace(chosen, progress=line, stop=stop), told)
        interrupted = stop.is_set()
    line.clear()
    return found, interrupted
