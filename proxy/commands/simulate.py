"""`simulate`: the simulated engine as a server of its own."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from proxy.commands.base import WRONG_USE, CommandError, Commands, above_zero, add_command, port, say, whole

if TYPE_CHECKING:
    from proxy.simulator.profiles import EngineProfile

PROFILE = "h100-qwen3-14b"


def declare(commands: Commands) -> None:
    parser = add_command(
        commands,
        "simulate",
        run,
        "run a simulated inference engine with an OpenAI-compatible API",
        "penstock simulate --port 8000 &\npenstock serve --upstream http://127.0.0.1:8000",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=port, default=8000, help="TCP port; 0 takes any free one (default 8000)")
    add_engine_options(parser)
    parser.add_argument("--max-num-seqs", type=whole, help="sequences at once (default: as the profile)")
    parser.add_argument("--follow-stdin", action="store_true", help="end when standard input does")


def add_engine_options(parser: Commands) -> None:
    parser.add_argument("--profile", default=PROFILE, metavar="NAME", help=f"what is simulated (default {PROFILE})")
    parser.add_argument("--speed", type=above_zero, default=1.0, help="times as fast as the real engine (default 1.0)")
    parser.add_argument("--seed", type=int, default=0, help="start of its random numbers (default 0)")


def engine_profile(name: str) -> EngineProfile:
    from proxy.simulator.profiles import profile_named

    try:
        return profile_named(name)
    except ValueError as error:
        raise CommandError(str(error), code=WRONG_USE) from None


def run(arguments: Namespace) -> int:
    from proxy.simulator.server.serve import run as serve

    def announce(url: str) -> None:
        say(f"simulated engine {arguments.profile} at {url}")

    profile = engine_profile(arguments.profile)
    try:
        return serve(
            profile=profile.name,
            host=arguments.host,
            port=arguments.port,
            speed=arguments.speed,
            seed=arguments.seed,
            announce=announce,
            follow_stdin=arguments.follow_stdin,
            max_seqs=arguments.max_num_seqs,
        )
    except ValueError as error:
        raise CommandError(f"{error}; give a smaller --max-num-seqs", code=WRONG_USE) from None
    except OSError as error:
        place = f"{arguments.host}:{arguments.port}"
        raise CommandError(f"cannot listen on {place} ({error.strerror}); give another --port") from None
