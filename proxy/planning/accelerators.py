"""Accelerators: what one card has, from a parsed accelerators.yaml.

`usable_gib` is what the driver reports to a process (cudaMemGetInfo), not the marketing number: an "80 GB" H100 has
79.2 GiB, a "141 GB" H200 139.7 GiB. TFLOPS are dense. `ridge = flops / bandwidth` in FLOP per byte
(Williams et al., Roofline, CACM 2009).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from proxy.planning.fields import Fields, PlanError

GIB = 2**30
LARGE_CARD_GIB = 70.0  # vLLM picks its serving defaults by this size


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One card. `tflops` by precision (fp16, fp8, int8, fp4); `sm`: CUDA compute capability x 10, 0 for others."""

    name: str
    usable_gib: float
    nominal_gb: float
    bandwidth_gb_s: float
    tflops: Mapping[str, float]
    sm: int = 0
    vendor: str = "nvidia"
    source: str = ""
    switched: bool = False  # all cards of a node behind NVLink switches

    def flops(self, dtype: str) -> float:
        """Dense FLOP/s at a precision; one that the card lacks runs at its 16-bit rate."""
        return self.tflops.get({"bf16": "fp16"}.get(dtype, dtype), self.tflops["fp16"]) * 1e12

    def ridge(self, dtype: str = "fp16") -> float:
        """FLOP per byte where compute and memory bandwidth bind equally."""
        return self.flops(dtype) / (self.bandwidth_gb_s * 1e9)


def normalised(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower().replace("nvidia", "").replace("amd", "").replace("tesla", ""))


def find_accelerator(table: Mapping[str, Any], name: str) -> Accelerator:
    """The entry of that name or alias, spelling aside. Raises PlanError that names near entries."""
    wanted = normalised(name)
    names: dict[str, str] = {}
    for entry, values in table.items():
        aliases = Fields(values, f"accelerators.yaml: {entry}").items("aliases") or ()
        names.update({normalised(str(alias)): entry for alias in (entry, *aliases)})
    if wanted in names:
        return _read(names[wanted], table[names[wanted]])
    near = get_close_matches(wanted, names, n=3, cutoff=0.5)
    hint = ", ".join(dict.fromkeys(names[match] for match in near)) or ", ".join(table)
    raise PlanError(f"--accelerator {name!r} is unknown; did you mean: {hint}")


def _read(name: str, values: Mapping[str, Any]) -> Accelerator:
    entry = Fields(values, f"accelerators.yaml: {name}")
    rates = entry.child("tflops")
    if rates is None or not rates.has("fp16"):
        raise PlanError(f"accelerators.yaml: {name}: tflops.fp16 is missing; add it")
    return Accelerator(
        name=name,
        usable_gib=entry.number("usable_gib", low=1, high=4096, default=1),
        nominal_gb=entry.number("nominal_gb", low=1, high=4096, default=1),
        bandwidth_gb_s=entry.number("bandwidth_gb_s", low=1, high=1e5, default=1),
        tflops={key: rates.number(key, low=0.1, high=1e6, default=1) for key in rates.values},
        sm=entry.integer("sm", low=0, high=1000, default=0),
        vendor=entry.text("vendor", default="nvidia"),
        source=entry.text("source"),
        switched=entry.flag("switched"),
    )
