"""The nearest entry of a TensorRT-LLM configuration database to a plan.

A `lookup.yaml` is a list of {model, arch, gpu, isl, osl, concurrency, config_path, num_gpus, ...}. The model must match
by name, else by its last part, else by architecture; the accelerator by family; then the distance is

    d = |ln(isl / wanted)| + |ln(osl / wanted)|

and among the nearest the smallest concurrency that reaches the wanted one wins, else the largest. No match: no guess.
Source: NVIDIA/TensorRT-LLM examples/configs/database (schema of database.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import PurePosixPath
from typing import Any

from proxy.planning.accelerators import normalised
from proxy.planning.fields import Fields, PlanError

KNOWN_KEYS = frozenset(
    {
        "model", "arch", "gpu", "isl", "osl", "concurrency", "config_path", "num_gpus", "profile",
        "validated_trtllm_commit", "validated_trtllm_version",
    }
)  # fmt: skip
ENTRIES_MAX = 100_000
DISAGREEMENT = 2.0
FORM_FACTORS = ("sxm5", "sxm", "nvl72", "nvl", "pcie", "80gb", "141gb", "hbm3e", "hbm3")


@dataclass(frozen=True, slots=True)
class Entry:
    model: str
    architecture: str
    gpu: str
    prompt_tokens: int
    output_tokens: int
    concurrency: int
    config_path: str
    gpus: int
    validated: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """The chosen entry, how its model matched (`model`, `name`, `architecture`), and its distance in log space."""

    entry: Entry
    matched_by: str
    distance: float


def read_entries(document: Any) -> tuple[list[Entry], list[str]]:
    """(entries, warnings) of a parsed lookup.yaml. Raises PlanError when it is not a list of mappings."""
    if not isinstance(document, list) or len(document) > ENTRIES_MAX:
        raise PlanError(f"lookup.yaml: must be a list of at most {ENTRIES_MAX} entries")
    unknown: set[str] = set()
    entries = []
    for index, item in enumerate(document):
        if not isinstance(item, dict):
            raise PlanError(f"lookup.yaml: entry {index} must be a mapping")
        unknown |= {str(key) for key in item} - KNOWN_KEYS
        entries.append(_entry(Fields(item, f"lookup.yaml: entry {index}")))
    return entries, [f"lookup.yaml: key {key} is not known and was skipped" for key in sorted(unknown)[:10]]


def _entry(fields: Fields) -> Entry:
    return Entry(
        model=_required(fields, "model"),
        architecture=fields.text("arch"),
        gpu=_required(fields, "gpu"),
        prompt_tokens=fields.integer("isl"),
        output_tokens=fields.integer("osl"),
        concurrency=fields.integer("concurrency"),
        config_path=checked_path(_required(fields, "config_path"), fields.source),
        gpus=fields.integer("num_gpus", high=65536),
        validated=fields.text("validated_trtllm_version"),
    )


def _required(fields: Fields, name: str) -> str:
    value = fields.text(name)
    if not value:
        raise PlanError(f"{fields.source}: key {name} is missing")
    return value


def checked_path(path: str, source: str) -> str:
    """A relative path that stays below its root. Raises PlanError otherwise."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path or ":" in path:
        raise PlanError(f"{source}: config_path must be relative and stay inside the checkout")
    return path


def family(name: str) -> str:
    """The accelerator's family: `H100_SXM` and `h100-sxm` are one, its form factor aside."""
    short = normalised(name)
    for suffix in FORM_FACTORS:
        short = short.removesuffix(suffix)
    return short


def nearest(
    entries: Sequence[Entry], model: str, architecture: str, gpu: str, gpus: int, prompt: int, output: int, seats: int
) -> Match | None:
    """The nearest entry for the deployment, or None."""
    here = [entry for entry in entries if family(entry.gpu) == family(gpu) and entry.gpus == gpus]
    for label, chosen in (
        ("model", [entry for entry in here if entry.model == model]),
        ("name", [entry for entry in here if normalised(_last(entry.model)) == normalised(_last(model))]),
        ("architecture", [entry for entry in here if architecture and entry.architecture == architecture]),
    ):
        if chosen:
            return _closest(chosen, label, prompt, output, seats)
    return None


def _last(model: str) -> str:
    return model.rsplit("/", 1)[-1]


def _closest(chosen: Sequence[Entry], label: str, prompt: int, output: int, seats: int) -> Match:
    def distance(entry: Entry) -> float:
        return abs(log(entry.prompt_tokens / prompt)) + abs(log(entry.output_tokens / output))

    least = min(distance(entry) for entry in chosen)
    near = [entry for entry in chosen if distance(entry) <= least + 1e-9]
    enough = [entry for entry in near if entry.concurrency >= seats]
    entry = min(enough, key=lambda item: item.concurrency) if enough else max(near, key=lambda item: item.concurrency)
    return Match(entry, label, least)


def disagreement(recipe_batch: int, recommended: int) -> float | None:
    """By which factor a recipe's max_batch_size and the plan differ, when that exceeds 2; else None."""
    if recipe_batch < 1 or recommended < 1:
        return None
    factor = max(recipe_batch / recommended, recommended / recipe_batch)
    return factor if factor > DISAGREEMENT else None
