from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import structlog

from proxy.admission.ceiling import MemoryBound
from proxy.server import fleet
from proxy.server.fleet import Fleet
from proxy.settings import Settings, load
from tests.adapters.shell import Shell, no_tasks

CERTIFICATES = Path(__file__).parent.parent / "adapters" / "certificates"
PLAN = {"model": "qwen3-8b", "accelerator": "h100-sxm"}


def settings(*upstreams: dict[str, Any], **sections: Any) -> Settings:
    return load(None, {"upstreams": list(upstreams), **sections}, {})


def engine(name: str = "e", url: str = "http://e:1", **more: Any) -> dict[str, Any]:
    return {"name": name, "url": url, **more}


class Yard:
    """A fleet over a gate without upstreams."""

    def __init__(self) -> None:
        shell = Shell(upstreams=0)
        self.gate = shell.gate
        self.fleet = Fleet(self.gate, no_tasks(), shell.clock)

    def follow(self, *upstreams: dict[str, Any], **sections: Any) -> None:
        made = settings(*upstreams, **sections)
        self.fleet.follow(made, fleet.contexts(made))


@pytest.mark.parametrize(
    ("url", "host", "port", "line"),
    [
        ("http://e:81", "e", 81, b"Host: e:81\r\n"),
        ("http://e", "e", 80, b"Host: e\r\n"),
        ("https://e", "e", 443, b"Host: e\r\n"),
        ("http://[::1]:5", "::1", 5, b"Host: [::1]:5\r\n"),
    ],
)
def test_where_an_upstream_is(url: str, host: str, port: int, line: bytes) -> None:
    yard = Yard()
    yard.follow(engine(url=url))
    lane = yard.gate.lanes["e"]
    assert (lane.name, lane.pool.host, lane.pool.port) == ("e", host, port)
    assert line.lower() in lane.lines.lower()
    assert (lane.pool.tls is not None) == url.startswith("https")


def test_the_upstreams_own_key_is_in_its_lines_and_nobody_elses() -> None:
    yard = Yard()
    yard.follow(engine("a", api_key="own-key"), engine("b"))
    assert b"Bearer own-key" in yard.gate.lanes["a"].lines
    assert b"uthorization" not in yard.gate.lanes["b"].lines


@pytest.mark.parametrize(
    ("change", "sections", "kept"),
    [
        ({"weight": 3}, {"target": {"itl_ms": 9}}, True),
        ({"url": "http://e:2"}, {}, False),
        ({"api_key": "another-key"}, {}, False),
        ({}, {"routing": {"connect_timeout_s": 9}}, False),
    ],
    ids=["weight and target", "address", "key", "connect timeout"],
)
def test_a_lane_lives_on_while_its_address_stays(change: dict[str, Any], sections: Any, kept: bool) -> None:
    yard = Yard()
    yard.follow(engine())
    before = yard.gate.lanes["e"]
    yard.follow({**engine(), **change}, **sections)
    after = yard.gate.lanes["e"]
    assert (after is before) == kept
    assert before.pool.closed != kept
    assert not after.pool.closed
    assert after.running is before.running  # what runs is still looked after


def test_an_upstream_that_is_gone_and_comes_back() -> None:
    yard = Yard()
    yard.follow(engine("a"), engine("b", "http://f:1"))
    gone = yard.gate.lanes["a"]
    yard.follow(engine("b", "http://f:1"))
    assert gone.pool.closed
    yard.follow(engine("a"), engine("b", "http://f:1"))
    assert not yard.gate.lanes["a"].pool.closed


def test_caps_are_in_seconds_and_follow_a_reload() -> None:
    yard = Yard()
    routing = {"ttft_timeout_s": 1, "itl_timeout_s": 2, "response_timeout_s": 3}
    yard.follow(engine("a", target={"ttft_ms": 200}), engine("b", "http://f:1"), routing=routing)
    first, second = yard.fleet.caps("a"), yard.fleet.caps("b")
    assert (first.ttft_s, first.itl_s, first.response_s) == (1, 2, 3)
    assert (first.good_ttft_s, second.good_ttft_s, first.good_tpot_s) == (0.2, 0.5, 0.05)
    yard.follow(engine("a"), engine("b", "http://f:1"), target={"itl_ms": 10})
    assert yard.fleet.caps("a").good_tpot_s == 0.01


def test_tls_contexts() -> None:
    own = engine("own", "https://a", tls={"ca": str(CERTIFICATES / "valid.pem")})
    blind = engine("blind", "https://b", tls={"verify": False})
    found = fleet.contexts(settings(engine("plain"), own, blind))
    assert found["plain"] is None
    assert found["own"] is not None
    assert found["blind"] is not None
    assert (found["own"].check_hostname, found["blind"].check_hostname) == (True, False)
    assert len(found["own"].get_ca_certs()) == 1
    with pytest.raises(ValueError, match=r"tls\.ca"):
        fleet.contexts(settings(engine("bad", "https://a", tls={"ca": "absent.pem"})))


def test_planned_memory_is_computed_only_where_a_plan_is_given() -> None:
    planned: dict[str, Any] = {"memory": {"source": "plan", "plan": PLAN}}
    named, unnamed = engine("sglang", engine="sglang", **planned), engine("auto", **planned)
    found = fleet.planned_memory(settings(engine("none"), named, unnamed))
    assert found.keys() == {"sglang", "auto"}
    assert all(isinstance(bound, MemoryBound) and bound.source == "plan" for bound in found.values())
    assert all((bound.tokens or 0) > 100_000 for bound in found.values())
    vllm = fleet.planned_memory(settings(engine("vllm", engine="vllm", **planned)))["vllm"]
    assert found["auto"] == vllm  # an engine that is not known yet is planned as vLLM
    assert found["sglang"] != vllm


def test_what_a_plan_notes_is_in_the_log(tmp_path: Path) -> None:
    shape = json.loads((Path(__file__).parents[2] / "config" / "models" / "qwen3-8b.json").read_text(encoding="utf-8"))
    shape |= {"model_type": "newcomer", "architectures": ["NewcomerForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    plan = PLAN | {"model": str(tmp_path)}
    with structlog.testing.capture_logs() as told:
        fleet.planned_memory(settings(engine("e", memory={"source": "plan", "plan": plan})))
    assert [(line["log_level"], line["upstream"]) for line in told] == [("warning", "e")]
    assert "Newcomer" in told[0]["note"]


def test_what_the_prober_is_told() -> None:
    made = settings(
        engine("a", engine="vllm", api_key="own-key", models=["m"]),
        engine("b", "https://f"),
        probe={"path": "/up", "interval_s": 2, "timeout_s": 3, "fail_after": 4, "pass_after": 5},
        telemetry={"interval_s": 6, "max_age_s": 7},
    )
    tls = fleet.contexts(made)
    first, second = fleet.probe_targets(made, tls)
    assert (first.name, first.url, first.engine, first.api_key, first.models) == (
        "a", "http://e:1", "vllm", "own-key", ("m",),
    )  # fmt: skip
    assert (second.api_key, second.models, second.tls) == (None, None, tls["b"])
    config = fleet.probe_config(made)
    assert (config.path, config.interval_s, config.timeout_s, config.fail_after, config.pass_after) == (
        "/up",
        2,
        3,
        4,
        5,
    )
    assert (config.telemetry_interval_s, config.telemetry_max_age_s) == (6, 7)
