"""The vision tower: its parameters, its share of the profiling run, and what cannot be counted."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.planning.accelerators import GIB
from proxy.planning.fields import Fields
from proxy.planning.shapes import read_shape
from proxy.planning.vision import read_tower
from tests.planning.support import bundled, config, planned


@pytest.mark.parametrize(
    ("model", "gib"),
    [("qwen2.5-vl-7b", 1.33), ("llava-1.6-mistral-7b", 0.59), ("qwen3.5-9b", 0.98)],  # printed minus the decoder's
)
def test_parameters_come_near_what_engines_load(model: str, gib: float) -> None:
    tower = bundled(model).tower
    assert tower is not None
    assert 2 * tower.parameters / GIB == pytest.approx(gib, rel=0.16)


def test_a_picture_of_fixed_size_and_one_of_any_size() -> None:
    fixed, free = bundled("llava-1.6-mistral-7b").tower, bundled("qwen3.5-9b").tower
    assert fixed is not None
    assert free is not None
    assert (fixed.picture_patches, free.picture_patches) == (24 * 24, 16384 * 4)
    assert fixed.peak_bytes(1) == 576 * fixed.patch_bytes
    assert fixed.peak_bytes(4096) == 4096 * fixed.patch_bytes
    assert free.peak_bytes(2048) == 65536 * free.patch_bytes


@pytest.mark.parametrize(
    ("tower", "counted", "uncounted"),
    [
        (None, False, False),
        ({}, False, False),
        ({"depth": 2, "hidden_size": 64}, True, False),
        ({"vt_num_hidden_layers": 2, "vt_hidden_size": 64, "hidden_size": 9}, True, False),
        ({"hidden_size": "wide"}, False, True),
        ({"image_size": {"height": 3}}, False, True),
        ([{"depth": 2}], False, True),
        ("siglip", False, True),
    ],
)
def test_what_is_not_told_is_said(tower: Any, counted: bool, uncounted: bool) -> None:
    found, problem = read_tower(Fields({"vision_config": tower}))
    assert (found is not None, problem) == (counted, uncounted)
    notes = read_shape(config(vision_config=tower)).notes
    assert bool(notes) == uncounted
    assert all("--weights-gib" in note for note in notes)


def test_language_model_only_leaves_it_out() -> None:
    whole, alone = planned("qwen3.5-9b", "rtx-5090"), planned("qwen3.5-9b", "rtx-5090", language_only=True)
    assert whole.weights_bytes - alone.weights_bytes == 2 * whole.shape.tower.parameters  # type: ignore[union-attr]
    notes = {line.name: line.note for line in whole.budget.lines}
    assert "the largest picture" in notes["activations"]
    old = planned("qwen3.5-9b", "rtx-5090", engine_version="0.7", max_model_len=2048)
    assert "largest picture" not in {line.name: line.note for line in old.budget.lines}["activations"]
