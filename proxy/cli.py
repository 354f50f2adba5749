"""The command `penstock`. Exit codes: 0; 2 for a wrong command line or configuration; 1 for anything else that fails.

Each command imports what it needs when it runs, so that help is there at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from proxy.adapters.build_info import NAME
from proxy.commands import (
    configuration,
    demo,
    healthcheck,
    keys,
    loadtest,
    plan,
    replay,
    report,
    serve,
    simulate,
    sweep,
    tune,
)
from proxy.commands.base import CommandError, Parser

COMMANDS = (serve, demo, simulate, plan, replay, loadtest, sweep, tune, report, configuration, keys, healthcheck)


def parser() -> Parser:
    top = Parser(
        prog="penstock",
        description="Adaptive batching proxy for LLM inference servers.",
        epilog="example: penstock serve --upstream http://127.0.0.1:8000",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=NAME)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.declare(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        chosen = parser().parse_args(arguments)
        return int(chosen.run(chosen))
    except CommandError as error:
        for line in error.lines:
            sys.stderr.write(f"penstock: {line}\n")
        return error.code
    except BrokenPipeError:  # what reads our output has left, as `head` does
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 1
