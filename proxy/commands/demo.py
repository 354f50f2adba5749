"""`demo`: the proxy on the embedded simulated engine under a bounded load, with a live view of its state."""

from __future__ import annotations

import os
from argparse import Namespace

from proxy.commands.base import Commands, above_zero, add_command, say
from proxy.commands.child import Child
from proxy.commands.serve import readable
from proxy.commands.simulate import add_engine_options, engine_profile

DEMO_PROFILE = "t4-7b-awq"  # small: a few sequences reach the latency target, so that a laptop can drive it
OWN = "PENSTOCK_"


def declare(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demo",
        run,
        "run the proxy on a simulated engine under load, and show limit, queue and latency",
        "penstock demo --duration 60",
    )
    parser.add_argument("--duration", type=above_zero, default=120.0, help="seconds until it ends (default 120)")
    parser.add_argument("--rate", type=above_zero, default=1.2, help="mean requests per second (default 1.2)")
    add_engine_options(parser)
    parser.set_defaults(profile=DEMO_PROFILE)


def run(arguments: Namespace) -> int:
    import asyncio

    from proxy.commands.demo_watch import watch

    engine_profile(arguments.profile)
    options = [f"--{name}={getattr(arguments, name)}" for name in ("profile", "speed", "seed")]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    command = ["serve", "--host=127.0.0.1", "--port=0", "--admin-port=0", *options]
    with Child(command, environ | {"PENSTOCK_LOG__LEVEL": "error"}) as child:
        public_url = readable(child.read_until(r"^public +(\S+)$"))
        admin_url = readable(child.read_until(r"^admin +(\S+)$"))
        say(f"proxy on a SIMULATED engine ({arguments.profile}) at {public_url}, status page {admin_url}")
        try:
            asyncio.run(watch(arguments, public_url, admin_url))
        except KeyboardInterrupt:
            say("ended")
    return 0
