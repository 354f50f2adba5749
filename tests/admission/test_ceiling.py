"""Memory bounds: seats by size, and which source holds."""

from __future__ import annotations

import pytest

from proxy.admission.ceiling import MemoryBound, resolve, seats_for


@pytest.mark.parametrize(
    ("tokens", "phi", "prompt", "output", "cv", "seats"),
    [
        (240_000, 0.9, 512, 256, 1.0, 281),  # 512 + 256 = 768 = 48 blocks
        (240_000, 0.9, 512, 256, 0.0, 337),  # 640 = 40 blocks
        (240_000, 0.9, 513, 256, 1.0, 275),  # 769 rounds up to 784
        (1_000, 0.9, 5_000, 10, 1.0, 1),  # one request alone always runs
        (1_000, 1.0, 0, 0, 1.0, 62),
    ],
)
def test_seats(tokens: int, phi: float, prompt: float, output: float, cv: float, seats: int) -> None:
    assert seats_for(tokens, phi, prompt, output, cv) == seats


ENGINE = MemoryBound(tokens=200_000, seats=64, context_tokens=32_768, source="engine")
PLAN = MemoryBound(tokens=180_000, source="plan")
CONFIG = MemoryBound(tokens=100_000, seats=80, source="config")


@pytest.mark.parametrize(
    ("configured", "live", "planned", "expected"),
    [
        (None, None, None, MemoryBound()),
        (None, ENGINE, PLAN, ENGINE),
        (None, None, PLAN, PLAN),
        (CONFIG, ENGINE, PLAN, MemoryBound(100_000, 64, 32_768, "config")),
        (MemoryBound(seats=10, source="config"), ENGINE, None, MemoryBound(200_000, 10, 32_768, "engine")),
        (MemoryBound(seats=10, source="config"), None, None, MemoryBound(None, 10, None, "config")),
        (
            MemoryBound(),
            MemoryBound(context_tokens=4_096, source="engine"),
            None,
            MemoryBound(None, None, 4_096, "none"),
        ),
    ],
)
def test_sources(
    configured: MemoryBound | None, live: MemoryBound | None, planned: MemoryBound | None, expected: MemoryBound
) -> None:
    assert resolve(configured, live, planned) == expected
