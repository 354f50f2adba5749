"""docs/openapi.yaml describes exactly what is served: the same paths, methods, codes and shapes, both ways."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.server import admin
from proxy.server.errors import BY_CODE, BY_OUTCOME, Refusal, render
from proxy.wire.errors import ErrorStyle
from proxy.wire.routes import MODEL_ROUTE, READ, ROUTES
from tests.server.test_admin import Client, play
from tests.test_tidy import ROOT

DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text(encoding="utf-8"))
SCHEMAS = {"openai": "Error", "anthropic": "MessagesError"}
ROWS = list({row.code: row for row in (*BY_OUTCOME.values(), *BY_CODE.values())}.values())
MADE_WHILE_READING = {"invalid_json", "invalid_value", "invalid_header"}  # by the readers, not from the table


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def described(tagged_admin: bool) -> set[tuple[str, str]]:
    """Method and path of every operation, of the admin listener or of the public one."""
    found = set()
    for path, item in DOCUMENT["paths"].items():
        for method, operation in resolved(item).items():
            if method not in ("parameters", "servers"):
                tags = set(operation["tags"])
                assert tags <= {tag["name"] for tag in DOCUMENT["tags"]}
                if ("admin" in tags) if tagged_admin else (tags != {"admin"}):
                    found.add((method.upper(), path))
    return found


def test_the_public_paths_are_those_of_the_route_table() -> None:
    served = {
        (method.decode(), route.path) for route in (*ROUTES.values(), MODEL_ROUTE) for method in route.methods
    } | {(method.decode(), "/health") for method in READ}  # fmt: skip
    assert described(tagged_admin=False) == served


def test_the_admin_paths_are_those_of_the_admin_listener() -> None:
    served: set[tuple[str, str]] = set()

    async def look(client: Client) -> None:
        routes = {path: item for path, item in client.listener._routes.items() if path not in admin.PAGE_FILES}
        for name, methods in client.listener._upstream_routes.items():
            routes["/admin/upstreams/{upstream}/" + name] = methods
        served.update((method, path) for path, methods in routes.items() for method in methods)

    play(look)
    reads = {(method, path) for method, path in described(tagged_admin=True) if method != "HEAD"}
    assert reads == served


def test_every_code_that_a_client_can_see_is_listed() -> None:
    assert set(DOCUMENT["components"]["schemas"]["Code"]["enum"]) == {row.code for row in ROWS} | MADE_WHILE_READING


@pytest.mark.parametrize("style", ["openai", "anthropic"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
def test_every_refusal_has_the_described_shape(row: Refusal, style: ErrorStyle) -> None:
    status, answer = render(row, style, b"req-1", close=row.close, retry_after_s=3.2)
    head, _, body = answer.partition(b"\r\n\r\n")
    schema = {"$ref": f"#/components/schemas/{SCHEMAS[style]}", "components": DOCUMENT["components"]}
    validator = import_module("jsonschema").Draft202012Validator  # its types are not installed
    assert not list(validator(schema).iter_errors(json.loads(body)))
    names = {line.split(b":")[0].decode() for line in head.split(b"\r\n")[1:]}
    refused = set(DOCUMENT["components"]["responses"]["Refused"]["headers"])
    assert refused - {"x-should-retry"} <= names
    assert 400 <= status < 600


def test_every_reference_leads_somewhere_and_every_part_is_used() -> None:
    text = Path(ROOT / "docs/openapi.yaml").read_text(encoding="utf-8")
    used = set(re.findall(r'\$ref: "#/components/(\w+/\w+)"', text))
    have = {f"{kind}/{name}" for kind, parts in DOCUMENT["components"].items() for name in parts}
    assert used == have - {name for name in have if name.startswith("securitySchemes/")}
