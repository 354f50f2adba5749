from __future__ import annotations

import pytest

from proxy.simulator.server.faults import RULES, Faults


def test_every_fault_has_a_rule_and_every_rule_a_fault() -> None:
    assert set(Faults().state()) == set(RULES)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("slowdown", 0),
        ("slowdown", "2"),
        ("slowdown", True),
        ("stall", 1),
        ("healthy", None),
        ("abort_delay_s", -0.1),
        ("fail_status", 200),
        ("fail_next", 503),
        ("fail_next", [503, 600]),
        ("reset_next", -1),
        ("cut_next", 1.5),
        ("cut_tokens", False),
        ("speed", 1),
    ],
)
def test_a_wrong_value_is_named_and_changes_nothing(key: str, value: object) -> None:
    faults = Faults()
    with pytest.raises(ValueError, match=f"^{key} (must be|is not a fault)"):
        faults.change({"cut_tokens": 9, key: value} if key != "cut_tokens" else {"cut_next": 9, key: value})
    assert faults == Faults()


def test_counted_faults_are_used_up_and_the_others_stay() -> None:
    faults = Faults()
    faults.change({"fail_next": [503, 429], "fail_status": None, "reset_next": 1, "cut_next": 1, "cut_tokens": 5})
    assert [faults.next_failure() for _ in range(3)] == [503, 429, None]
    assert [faults.next_reset() for _ in range(2)] == [True, False]
    assert [faults.next_cut() for _ in range(2)] == [5, None]
    faults.change({"fail_status": 500, "slowdown": 1.5, "stall": True, "abort_delay_s": 0})
    assert [faults.next_failure() for _ in range(2)] == [500, 500]
