"""`serve`: the proxy, on the engines that are given or on a simulated one."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.adapters.build_info import NAME
from proxy.commands.base import WRONG_USE, CommandError, Commands, add_command, port, say
from proxy.commands.child import Child
from proxy.commands.configuration import settings_from
from proxy.commands.simulate import add_engine_options, engine_profile

if TYPE_CHECKING:
    from proxy.settings import Settings

READABLE = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}  # a listener on all addresses, as one can call it
NO_UPSTREAM = "{}: upstreams: none is given; add one, or --upstream URL"
EMBEDDED = """\
{name}: no configuration and no upstream given, so an embedded SIMULATED engine answers ({profile}).
Its texts are made up. For your own engine: penstock serve --upstream http://127.0.0.1:8000"""


def declare(commands: Commands) -> None:
    parser = add_command(
        commands,
        "serve",
        run,
        "run the proxy; without configuration and upstream, on an embedded simulated engine",
        "penstock serve --upstream http://127.0.0.1:8000\npenstock serve --config config/penstock.yaml",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file; see: penstock config example")
    parser.add_argument("--upstream", action="append", default=[], metavar="URL", help="an engine; may be repeated")
    parser.add_argument("--host", help="address of the public listener (default 0.0.0.0)")
    parser.add_argument("--port", type=port, help="its TCP port; 0 takes any free one (default 8080)")
    parser.add_argument("--admin-host", metavar="HOST", help="address of the admin listener (default 127.0.0.1)")
    parser.add_argument("--admin-port", type=port, metavar="PORT", help="its TCP port (default 8081)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="append every arrival to this file, for replay")
    parser.add_argument(
        "--check-invariants", action="store_true", help="verify all accounts after every decision; slow, for bug hunts"
    )
    parser.add_argument("--follow-stdin", action="store_true", help="drain and end when standard input does")
    add_engine_options(parser.add_argument_group("embedded simulated engine"))


def tell(text: str) -> None:
    """One line on standard output, for whoever reads it: a full disk or a closed pipe keeps no service from starting.

    Nothing stays buffered, which the end of the process would fail to write again.
    """
    try:
        fd = sys.stdout.fileno()
    except OSError:  # no file: a test reads it
        say(text)
        return
    with suppress(OSError):
        os.write(fd, f"{text}\n".encode())


def run(arguments: Namespace) -> int:
    overrides = overrides_of(arguments)
    settings = settings_from(arguments.config, overrides)
    if arguments.follow_stdin:
        threading.Thread(target=end_with_stdin, name="follow-stdin", daemon=True).start()
    if settings.upstreams:
        tell(f"{NAME}: {len(settings.upstreams)} upstream(s), configuration {settings.hash()}")
        return _serve(arguments, overrides, settings, embedded=False)
    if arguments.config is not None:
        raise CommandError(NO_UPSTREAM.format(arguments.config), code=WRONG_USE)
    tell(EMBEDDED.format(name=NAME, profile=arguments.profile))
    model = engine_profile(arguments.profile).model
    options = [f"--{name}={getattr(arguments, name)}" for name in ("profile", "speed", "seed")]
    with Child(["simulate", "--port=0", *options]) as child:
        url = child.read_until(r"^simulated engine \S+ at (\S+)$")
        overrides["upstreams"] = [{"name": "simulated", "url": url, "engine": "vllm", "models": [model]}]
        return _serve(arguments, overrides, settings_from(None, overrides), embedded=True)


def overrides_of(arguments: Namespace) -> dict[str, Any]:
    """The command line as a tree of the configuration, with only what was given."""
    pairs = {
        "listen": {"host": arguments.host, "port": arguments.port},
        "admin": {"host": arguments.admin_host, "port": arguments.admin_port},
    }
    given = {name: {k: v for k, v in keys.items() if v is not None} for name, keys in pairs.items()}
    tree: dict[str, Any] = {name: keys for name, keys in given.items() if keys}
    if arguments.upstream:
        tree["upstreams"] = [{"url": url} for url in arguments.upstream]
    return tree


def _serve(arguments: Namespace, overrides: dict[str, Any], settings: Settings, embedded: bool) -> int:
    from proxy.server.app import StartError, serve
    from proxy.settings import ConfigError, load

    def reload() -> Settings:
        found = load(arguments.config, overrides, os.environ)
        if not found.upstreams:
            raise ConfigError([NO_UPSTREAM.format(arguments.config)])
        return found

    def announce(public_url: str, admin_url: str) -> None:
        tell(f"public  {public_url}")
        tell(f"admin   {admin_url}")
        tell("try it: " + curl_line(readable(public_url), settings))

    try:
        return serve(
            settings,
            reload=reload,
            announce=announce,
            embedded=embedded,
            record=arguments.record,
            checks=arguments.check_invariants,
        )
    except StartError as error:
        raise CommandError(str(error)) from None


def readable(url: str) -> str:
    for every, one in READABLE.items():
        url = url.replace(every, one)
    return url


def curl_line(public_url: str, settings: Settings) -> str:
    """A request that can be pasted. Where models are discovered, the name is left to the reader."""
    named = [entry.models[0] for entry in settings.upstreams if entry.models != "auto"]
    body = {"model": named[0] if named else "MODEL", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    return f"curl -N {public_url}/v1/chat/completions -H 'content-type: application/json' -d '{json.dumps(body)}'"


def end_with_stdin() -> None:
    """Waits for the end of standard input, then asks this process to drain."""
    while os.read(sys.stdin.fileno(), 4096):  # unbuffered: a thread inside a buffered read would stop our exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)
