"""What a sizer shows to operators, and what of it survives a restart."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.admission.step_model import Coefficients


@dataclass(frozen=True, slots=True)
class SizerState:
    """For the admin page and gauges; seconds, tokens; None: not measured yet."""

    limit: float
    held: bool
    epoch: int
    margin: float
    itl_s: float | None
    ttft_s: float | None
    kappa: float | None
    a: float | None
    b: float | None
    d: float | None
    fit_ratio: float
    reason: str | None


@dataclass(frozen=True, slots=True)
class SizerMemory:
    """What survives a restart."""

    limit: float
    margin: float
    coefficients: Coefficients | None
