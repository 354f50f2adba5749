"""Options that the measuring commands share, and what they become."""

from __future__ import annotations

import os
import urllib.parse
from argparse import ArgumentTypeError, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.commands.base import WRONG_USE, CommandError, Commands, above_zero, whole

if TYPE_CHECKING:
    from proxy.loadtest import Endpoint, Slo, Sources, Workload


def at_least_zero(text: str) -> float:
    return 0.0 if text.strip() in ("0", "0.0") else above_zero(text)


def seed_number(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 2**53:
        return int(text)
    raise ArgumentTypeError(f"{text!r} is no whole number of at least 0")


def declare_endpoint(parser: Commands) -> None:
    parser.add_argument("url", metavar="URL", help="an OpenAI-compatible base URL, with or without /v1")
    group = parser.add_argument_group("endpoint")
    group.add_argument("--model", default="", metavar="NAME", help="model to ask for (default: the first one listed)")
    group.add_argument("--key-env", default="", metavar="NAME", help="environment variable that holds the API key")
    group.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="a further header; repeat")
    group.add_argument("--ca", metavar="FILE", help="PEM file of the authorities to trust for https")
    group.add_argument("--insecure", action="store_true", help="do not verify the certificate")
    group.add_argument("--engine", metavar="URL", help="root of the engine whose metrics to read (default: URL)")
    group.add_argument("--admin", default="", metavar="URL", help="admin listener of a Penstock, to read its state")
    group.add_argument("--admin-token-env", default="", metavar="NAME", help="environment variable with its token")
    group.add_argument("--dcgm", default="", metavar="URL", help="DCGM exporter, for GPU utilization and memory")


def declare_load(parser: Commands, workload: str, loops: bool = True) -> None:
    group = parser.add_argument_group("load")
    group.add_argument(
        "--workload", default=workload, metavar="NAME|FILE",
        help=f"bundled name, YAML file, or JSONL of recorded arrivals (default {workload})",
    )  # fmt: skip
    if loops:
        group.add_argument("--rate", type=above_zero, metavar="R", help="open loop with this many requests per second")
        group.add_argument(
            "--concurrency", type=whole, metavar="N", help="closed loop with this many requests under way"
        )
        group.add_argument(
            "--requests", type=whole, metavar="N", help="end after so many requests instead of a duration"
        )
    group.add_argument("--duration", type=above_zero, metavar="S", help="measured seconds, after the warm-up")
    group.add_argument("--warmup", type=at_least_zero, metavar="S", help="seconds before, not counted")
    group.add_argument("--seed", type=seed_number, metavar="N", help="start of all random draws")
    group.add_argument("--in-flight-max", type=whole, metavar="N", help="open loop: never more under way than this")
    group.add_argument("--timeout", type=above_zero, metavar="S", help="a request may take this long (default 600)")
    group.add_argument("--silence", type=above_zero, metavar="S", help="and be silent this long (default 120)")
    group.add_argument("--prompt-tokens", type=whole, metavar="N", help="fixed prompt length of every flow")
    group.add_argument("--output-tokens", type=whole, metavar="N", help="fixed output length of every flow")
    group.add_argument("--no-stream", action="store_true", help="ask for whole answers")


def declare_slo(parser: Commands) -> None:
    parser.add_argument(
        "--slo", type=slo_text, metavar="WORDS", help="objectives for goodput, such as ttft=500ms,itl=50ms,e2e=10s"
    )


def slo_text(text: str) -> Slo:
    from proxy.loadtest import read_slo

    try:
        return read_slo(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def secret(name: str) -> str:
    """Value of an environment variable that an option names; '' for none."""
    if not name:
        return ""
    if not os.environ.get(name):
        raise CommandError(f"the environment variable {name} is not set", code=WRONG_USE)
    return os.environ[name]


def endpoint_of(arguments: Namespace) -> Endpoint:
    from proxy.loadtest import EndpointError, read_endpoint

    headers = []
    for text in arguments.header:
        name, colon, value = text.partition(":")
        if not colon or not name.strip().replace("-", "").isalnum():
            raise CommandError(f"--header {name!r}: write NAME:VALUE", code=WRONG_USE)
        headers.append((name.strip(), value.strip()))
    try:
        return read_endpoint(
            arguments.url, secret(arguments.key_env), arguments.ca, not arguments.insecure, tuple(headers)
        )
    except EndpointError as error:
        raise CommandError(str(error), code=WRONG_USE) from None


def sources_of(arguments: Namespace, endpoint: Endpoint) -> Sources:
    from proxy.loadtest import Sources

    def root(url: str, option: str) -> str:
        parts = urllib.parse.urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise CommandError(f"{option} {url!r}: give an http:// or https:// URL", code=WRONG_USE)
        return url.rstrip("/")

    engine = root(arguments.engine, "--engine").removesuffix("/v1") if arguments.engine else ""
    admin, dcgm = root(arguments.admin, "--admin"), root(arguments.dcgm, "--dcgm")
    token = secret(arguments.admin_token_env)
    return Sources(engine or ("" if admin else endpoint.root), admin, dcgm, token)


def workload_of(arguments: Namespace) -> Workload:
    """The workload with what the command line changes of it."""
    from proxy.loadtest import Arrival, Lengths, WorkloadError, load_workload

    try:
        workload = load_workload(arguments.workload)
    except WorkloadError as error:
        raise CommandError(str(error), code=WRONG_USE) from None
    rate, concurrency = getattr(arguments, "rate", None), getattr(arguments, "concurrency", None)
    requests = getattr(arguments, "requests", None)
    if rate and concurrency:
        raise CommandError("--rate and --concurrency exclude one another; give one", code=WRONG_USE)
    if workload.trace and (rate or concurrency):
        raise CommandError("recorded arrivals have their own times; leave out --rate and --concurrency", code=WRONG_USE)
    if rate:
        keeps = workload.arrival.process in ("poisson", "constant", "gamma")
        arrival = replace(workload.arrival, rate=rate) if keeps else Arrival("poisson", rate)
        workload = replace(workload, arrival=arrival)
    if concurrency:
        workload = replace(workload, arrival=Arrival("closed", concurrency=concurrency))
    if requests:
        workload = replace(workload, requests=requests, duration_s=arguments.duration or 30 * 86_400.0)
    elif arguments.duration:
        workload = replace(workload, duration_s=arguments.duration, requests=0)
    named = {"warmup_s": "warmup", "seed": "seed", "in_flight_max": "in_flight_max"}
    named |= {"timeout_s": "timeout", "silence_s": "silence"}
    given = {key: value for key, name in named.items() if (value := getattr(arguments, name)) is not None}
    lengths = {"prompt_tokens": arguments.prompt_tokens, "output_tokens": arguments.output_tokens}
    fixed: dict[str, Any] = {key: Lengths(mean=value) for key, value in lengths.items() if value}
    if arguments.no_stream:
        fixed["stream"] = False
    flows = tuple(replace(flow, **fixed) for flow in workload.flows)
    return replace(workload, **given, flows=flows)


def base_of(path: Path) -> Path:
    """A name that several files share: `sweep.json` means `sweep` too."""
    return path.with_suffix("") if path.suffix in (".json", ".html", ".png") else path


def write(path: Path, save: object, *arguments: object) -> None:
    """Saves, or ends the command in one line."""
    assert callable(save)
    try:
        save(path, *arguments)
    except OSError as error:
        raise CommandError(f"cannot write {path} ({error.strerror}); give another path") from None
