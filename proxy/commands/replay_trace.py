"""What `replay` reads: recorded or generated arrivals, and the settings to compare."""

from __future__ import annotations

import random
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from proxy.commands.base import WRONG_USE, CommandError
from proxy.commands.configuration import settings_from

if TYPE_CHECKING:
    from proxy.dispatcher import DispatcherConfig
    from proxy.laboratory.workload import Arrival
    from proxy.loadtest import Workload
    from proxy.loadtest.workload import Shot
    from proxy.simulator.profiles import EngineProfile

OF_UPSTREAMS = ("limit", "seed_law", "memory", "shared_by", "weight")  # sections that every upstream has
ENGINE_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Variant:
    """One setting under test."""

    name: str
    config: DispatcherConfig

    @property
    def class_names(self) -> list[str]:
        return [one.name for one in self.config.classes]


@dataclass(frozen=True, slots=True)
class Trace:
    """Shots in order. `guessed`: requests that were refused when recorded, so that their output is not known."""

    name: str
    shots: tuple[Shot, ...]
    guessed: int


def read(arguments: Namespace) -> Trace:
    """The arrivals, from time 0 on."""
    from proxy.loadtest.workload import shots

    workload = _workload(arguments)
    found = tuple(shots(workload, random.Random(arguments.seed)))  # noqa: S311 (a load, not a secret)
    if not found:
        raise CommandError(f"{workload.name}: nothing arrives; raise --rate or --duration", code=WRONG_USE)
    begin_s = found[0].at_s or 0.0
    known = [entry.output_tokens for entry in workload.trace if entry.output_tokens > 0]
    unknown = sum(entry.output_tokens == 0 for entry in workload.trace)
    usual = round(median(known)) if known else 1
    zeros = [entry.output_tokens == 0 for entry in sorted(workload.trace, key=lambda one: one.at_s)]
    moved = [
        replace(
            shot,
            at_s=((shot.at_s or 0.0) - begin_s) / arguments.load,
            output_tokens=usual if zeros and zeros[shot.index] else shot.output_tokens,
        )
        for shot in found
    ]
    return Trace(workload.name, tuple(moved), unknown)


def _workload(arguments: Namespace) -> Workload:
    from proxy.loadtest import Arrival, WorkloadError, load_workload

    if arguments.file is not None and arguments.workload is not None:
        raise CommandError("a file and --workload exclude one another; give one", code=WRONG_USE)
    try:
        workload = load_workload(str(arguments.file or arguments.workload or "chat_medium"))
    except WorkloadError as error:
        raise CommandError(str(error), code=WRONG_USE) from None
    if workload.trace and (arguments.rate or arguments.duration):
        raise CommandError("recorded arrivals have their own times; use --load to press them together", code=WRONG_USE)
    if arguments.rate:
        workload = replace(workload, arrival=Arrival("poisson", arguments.rate))
    if workload.closed:
        raise CommandError(f"{workload.name} sends when answers come; give --rate, or another workload", code=WRONG_USE)
    if arguments.duration:
        workload = replace(workload, duration_s=arguments.duration, warmup_s=0.0)
    return workload


def arrivals(trace: Trace, variant: Variant, profile: EngineProfile) -> list[Arrival]:
    """As one variant sees them: classes by its own names, lengths cut to what the engine can run at all."""
    from proxy.laboratory.workload import Arrival

    ranks = {name: rank for rank, name in enumerate(variant.class_names)}
    usual = ranks.get("normal", 0)
    made = []
    for shot in trace.shots:
        wanted = shot.flow.class_name
        if wanted and wanted not in ranks:
            raise CommandError(
                f"{trace.name}: class {wanted!r} is none of: {', '.join(ranks)}; give a --config that defines it",
                code=WRONG_USE,
            )
        prompt = min(max(1, shot.prompt_tokens), profile.request_tokens_max - 1)
        output = min(shot.output_tokens, profile.request_tokens_max - prompt)
        rank = ranks[wanted] if wanted else usual
        made.append(
            Arrival(shot.at_s or 0.0, prompt, output, shot.flow.tenant or "default", rank, streaming=shot.flow.stream)
        )
    return made


def variants(arguments: Namespace) -> list[Variant]:
    """One for each --config (or the defaults), then one for each --set on the first of these."""
    files: Sequence[Path | None] = arguments.config or [None]
    found = [_variant(str(file) if file else "defaults", file, {}) for file in files]
    return found + [_variant(changes, files[0], _tree(changes)) for changes in arguments.set]


def _variant(name: str, file: Path | None, changes: dict[str, Any]) -> Variant:
    from proxy.settings.ground import dispatcher_config

    upstream = {"name": "engine", "url": ENGINE_URL, "engine": "vllm"}
    bare = settings_from(file, {})
    if not bare.upstreams:
        bare = settings_from(file, {"upstreams": [upstream]})
    own = {key: value for key, value in changes.items() if key in OF_UPSTREAMS}
    tree: dict[str, Any] = {key: value for key, value in changes.items() if key not in OF_UPSTREAMS}
    if own and file is None:
        tree["upstreams"] = [{**upstream, **own}]
    elif own:
        tree["upstreams"] = dict.fromkeys(range(len(bare.upstreams)), own)
    elif file is None:
        tree["upstreams"] = [upstream]
    config = dispatcher_config(settings_from(file, tree))
    # A recording names no model: every engine here serves them all.
    return Variant(name, replace(config, upstreams=tuple(replace(one, models=None) for one in config.upstreams)))


def _tree(changes: str) -> dict[str, Any]:
    """`limit.law=aimd,target.itl_ms=40` as nested mappings."""
    import yaml

    tree: dict[Any, Any] = {}
    for change in changes.split(","):
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise CommandError(f"--set {change!r}: write KEY=VALUE, as in --set limit.law=aimd", code=WRONG_USE)
        place: Any = tree
        *sections, last = key.strip().split(".")
        for section in sections:
            place = place.setdefault(int(section) if section.isdigit() else section, {})  # digits: place in a list
            if not isinstance(place, dict):
                raise CommandError(f"--set {change!r}: {section!r} is set twice in different ways", code=WRONG_USE)
        try:
            place[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise CommandError(f"--set {change!r}: {text!r} is no value", code=WRONG_USE) from None
    return tree
