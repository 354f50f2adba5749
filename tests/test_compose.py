"""docker-compose.yml is valid, hardened, and names only variables, paths, ports and commands that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.cli import parser
from proxy.settings import load

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "penstock:local"}
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def with_defaults(value: str) -> str:
    return VARIABLE.sub(lambda match: match[2], value)


def environment(service: str) -> dict[str, str]:
    return {name: with_defaults(value) for name, value in SERVICES[service].get("environment", {}).items()}


def settings(**changes: str) -> Any:
    return load(None, {}, {**environment("penstock"), **changes})


def test_it_is_a_valid_compose_file() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_any_variable_it_starts_penstock_on_the_simulated_engine() -> None:
    made = settings()
    assert made.admin.token is None
    assert [(one.name, one.url) for one in made.upstreams] == [("engine", "http://engine:8000")]
    assert "profiles" not in SERVICES["engine"]
    assert [name for name, service in SERVICES.items() if service.get("profiles") == ["vllm"]] == ["vllm"]


def test_every_variable_has_a_default_and_no_secret_stands_in_the_file() -> None:
    assert len(VARIABLE.findall(TEXT)) == TEXT.count("${")
    given = [pair for service in SERVICES.values() for pair in service.get("environment", {}).items()]
    secret = [value for name, value in given if re.search(r"TOKEN|KEY|PASSWORD|SECRET", name)]
    assert [with_defaults(value) for value in secret] == ["", ""]
    assert all(VARIABLE.fullmatch(value) for value in secret)


def test_the_token_reaches_the_settings() -> None:
    assert settings(PENSTOCK_ADMIN__TOKEN="eight-signs").admin.token.get_secret_value() == "eight-signs"


@pytest.mark.parametrize("name", OURS)
def test_our_commands_exist(name: str) -> None:
    arguments = parser().parse_args(SERVICES[name]["command"])
    assert callable(arguments.run)


def test_paths_and_the_build_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
            assert not source.startswith(".") or volume.endswith(":ro")
    assert {service["build"] for service in OURS.values()} == {"."}
    assert (ROOT / "Dockerfile").is_file()


def test_ports_are_those_that_the_programs_listen_on() -> None:
    made = settings()
    targets = {
        name: [port.rsplit(":", 1)[1] for port in service.get("ports", [])] for name, service in SERVICES.items()
    }
    assert targets["penstock"] == [str(made.listen.port), str(made.admin.port)]
    scrape = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert scrape[0]["static_configs"] == [{"targets": [f"penstock:{made.admin.port}"]}]
    engine = parser().parse_args(SERVICES["engine"]["command"])
    assert made.upstreams[0].url == f"http://engine:{engine.port}"
    assert engine.host == made.admin.host == "0.0.0.0"


def test_only_the_public_port_is_open_to_other_machines() -> None:
    public = [port for service in SERVICES.values() for port in service.get("ports", []) if not port.startswith("127.")]
    assert public == ["8080:8080"]


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_hardened_and_checked(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only") or name == "vllm"  # vLLM compiles kernels into its own home
    assert ":" in service["image"]
    assert not service["image"].endswith(":latest")
    assert not service.get("privileged")
    check = service["healthcheck"]["test"]
    assert check[0] == "CMD"
    assert "wget" not in check


def test_health_checks_ask_what_exists() -> None:
    own = SERVICES["penstock"]["healthcheck"]["test"]
    assert own[:2] == ["CMD", "penstock"]
    assert parser().parse_args(own[2:]).run
    code = SERVICES["engine"]["healthcheck"]["test"][-1]
    compile(code, "healthcheck", "exec")
    port = parser().parse_args(SERVICES["engine"]["command"]).port
    assert f"http://127.0.0.1:{port}/health" in code


def test_penstock_has_time_to_drain() -> None:
    grace_s = int(SERVICES["penstock"]["stop_grace_period"].removesuffix("s"))
    listen = settings().listen
    assert grace_s > listen.drain_delay_s + listen.drain_timeout_s


def test_each_wait_is_for_a_service_with_a_health_check() -> None:
    waits = [(waiter, awaited) for waiter, service in SERVICES.items() for awaited in service.get("depends_on", {})]
    assert waits == [("penstock", "engine"), ("grafana", "prometheus")]
    assert all("healthcheck" in SERVICES[awaited] for _, awaited in waits)
