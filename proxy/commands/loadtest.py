"""`loadtest`: send a workload to an endpoint and say what came of it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.commands import load_options as options
from proxy.commands.base import FAILED, WRONG_USE, CommandError, Commands, add_command, say, say_json

if TYPE_CHECKING:
    from proxy.loadtest import Endpoint, Options, Results, Workload

EXAMPLE = (
    "penstock loadtest http://127.0.0.1:8080 --workload chat_medium --slo ttft=500ms,itl=50ms --out run.json\n"
    "penstock loadtest https://api.example.com --key-env API_KEY --model small --rate 2 --duration 30\n"
    "penstock loadtest http://127.0.0.1:8000 --concurrency 16 --requests 200 --records requests.jsonl"
)


def declare(commands: Commands) -> None:
    parser = add_command(commands, "loadtest", run, "measure an OpenAI-compatible endpoint under a load", EXAMPLE)
    options.declare_endpoint(parser)
    options.declare_load(parser, "chat_medium")
    options.declare_slo(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, metavar="FILE", help="save the results as JSON")
    group.add_argument("--records", type=Path, metavar="FILE", help="save every request as a line of JSON")
    group.add_argument("--label", default="", help="name of this run in reports (default: the file's)")
    group.add_argument("--json", action="store_true", help="print the results as JSON")


def run(arguments: Namespace) -> int:
    from proxy.loadtest import EndpointError, Options, Slo, save_json, save_records
    from proxy.loadtest import run as complete
    from proxy.loadtest.text import summary_text

    endpoint, workload = options.endpoint_of(arguments), options.workload_of(arguments)
    sources = options.sources_of(arguments, endpoint)
    chosen = Options(arguments.model, arguments.slo or Slo(), sources, arguments.label)
    try:
        results = complete(measured(endpoint, workload, chosen))
    except EndpointError as error:
        raise CommandError(str(error), code=WRONG_USE) from None
    if arguments.out:
        options.write(arguments.out, save_json, results.document)
    if arguments.records:
        options.write(arguments.records, save_records, results.records)
    if arguments.json:
        say_json(results.document)
    else:
        say(summary_text(results.document))
    return 0 if results.total["successes"] and not results.document["meta"]["interrupted"] else FAILED


async def measured(endpoint: Endpoint, workload: Workload, chosen: Options) -> Results:
    """The measurement with its progress line, ended early by Ctrl-C."""
    from dataclasses import replace

    from proxy.commands.progress import ProgressLine, interruptible
    from proxy.loadtest import measure

    line = ProgressLine()
    async with interruptible(lambda: setattr(line, "ending", True)) as stop:
        results = await measure(endpoint, workload, replace(chosen, progress=line, stop=stop))
    line.clear()
    return results
