"""Who somebody is: keys, names told by proxies in front, the file of tenants, and the two listeners kept apart."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.raw_client import Answer, RawClient, bare, chat, is_refusal, post
from tests.e2e.scripted_upstream import STREAM_HEAD, Do, ScriptedUpstream, chunk, token, wait_for, whole_stream
from tests.test_openapi import described

TOKEN = "token-of-the-operator"
KEYS = {"acme": "key-of-acme", "small": "key-of-small"}
NEVER_EQUAL = ("x-request-id", "request-id", "date")


def tenant(name: str, key: str = "", **more: Any) -> dict[str, Any]:
    return {"name": name, "keys": ["sha256:" + hashlib.sha256((key or KEYS[name]).encode()).hexdigest()], **more}


@dataclass
class Guarded:
    """A proxy that believes no header, with its tenants in a file and a token on its admin listener."""

    proxy: ProxyProcess
    engine: ScriptedUpstream
    tenants: Path

    def write(self, *listed: dict[str, Any]) -> None:
        self.tenants.write_text(yaml.safe_dump({"tenants": list(listed)}))

    def reload(self) -> tuple[int, str]:
        return self.ask_admin(f"Authorization: Bearer {TOKEN}")

    def ask_admin(self, *headers: str) -> tuple[int, str]:
        with RawClient(self.proxy.admin_port) as client:
            found = client.send(bare("POST /admin/reload HTTP/1.1", *headers, host="Host: 127.0.0.1")).answer()
            return found.status, found.body.decode()

    def ask(self, key: str, *headers: str, model: str = "m") -> Answer:
        with RawClient(self.proxy.port) as client:
            lines = [f"Authorization: Bearer {key}"] if key else []
            return client.send(post(chat(model), headers=[*lines, *headers])).answer()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    engine = ScriptedUpstream()
    config = settings(
        upstream("one", engine.url, "m"),
        tenants={"file": "tenants.yaml", "anonymous": {"allowed": False}},
        routing={"itl_timeout_s": 5},
        admin={"token": TOKEN},
    )
    one = Guarded.__new__(Guarded)
    one.engine, one.tenants = engine, folder / "tenants.yaml"
    one.write(tenant("acme"), tenant("small"))
    with running(folder, config) as proxy:
        one.proxy = proxy
        yield one
    engine.close()


def test_every_wrong_key_is_refused_in_the_same_words(guarded: Guarded) -> None:
    digest = hashlib.sha256(KEYS["acme"].encode()).hexdigest()
    answers = [
        guarded.ask(key)
        for key in (
            "",
            "wrong",
            KEYS["acme"][:-1],
            KEYS["acme"] + "x",
            KEYS["acme"].upper(),
            digest,
            f"sha256:{digest}",
            TOKEN,
        )
    ]
    for found in answers:
        is_refusal(found, 401, "invalid_api_key")
    shown = [{name: value for name, value in one.headers.items() if name not in NEVER_EQUAL} for one in answers]
    assert all(one == shown[0] for one in shown)
    assert len({one.body for one in answers}) == 1


def test_the_time_to_refuse_a_key_tells_nothing_about_it(guarded: Guarded) -> None:
    near, far = KEYS["acme"][:-1] + "X", "Z" * len(KEYS["acme"])
    took: dict[str, list[float]] = {near: [], far: []}
    with RawClient(guarded.proxy.port) as client:
        for _ in range(300):
            for key, times in took.items():
                request = post(chat(), headers=[f"Authorization: Bearer {key}"])
                started_s = time.perf_counter()
                assert client.send(request).answer().status == 401
                times.append(time.perf_counter() - started_s)
    medians = [statistics.median(times) for times in took.values()]
    assert max(medians) - min(medians) < 0.25 * max(medians), medians


def test_a_name_in_a_header_from_anywhere_is_not_believed(guarded: Guarded) -> None:
    forged = ["x-tenant-id: acme", "x-forwarded-for: 127.0.0.1", "forwarded: for=127.0.0.1"]
    assert guarded.ask("", *forged).status == 401
    found = guarded.ask(KEYS["small"], *forged, "x-request-id: forged")
    assert found.status == 200
    assert guarded.proxy.record("forged")["tenant"] == "small"
    assert "x-tenant-id" not in guarded.engine.calls[-1].head.lower()


def test_a_name_from_a_trusted_proxy_is_believed_and_one_that_is_no_name_is_refused(tmp_path: Path) -> None:
    engine = ScriptedUpstream()
    config = settings(
        upstream("one", engine.url, "m"),
        tenants={"list": [tenant("acme", max_in_flight=1)], "anonymous": {"allowed": False}},
        trust={"proxies": ["127.0.0.0/8"], "tenant_header": "x-team"},
    )
    with running(tmp_path, config) as proxy:
        one = Guarded(proxy, engine, tmp_path)
        assert one.ask("", "x-team: acme", "x-request-id: named").status == 200
        assert proxy.record("named")["tenant"] == "acme"
        assert one.ask("", "x-tenant-id: acme").status == 401
        assert one.ask("", "x-team: a", "x-team: b").status == 400
        assert one.ask("", "x-team: \xff").status == 400
        assert one.ask("", "x-team: " + "n" * 129).status == 400
    engine.close()


def test_c06_g01_g02_tenants_come_and_go_with_their_file(guarded: Guarded) -> None:
    proxy, engine = guarded.proxy, guarded.engine
    engine.reset()
    again = post(chat(), headers=[f"Authorization: Bearer {KEYS['acme']}"])
    with RawClient(proxy.port) as runs, RawClient(proxy.port) as kept:
        assert [kept.send(again).answer().status for _ in range(3)] == [200] * 3
        engine.reset(STREAM_HEAD + chunk(token()), Do.HOLD, whole_stream()[len(STREAM_HEAD) :])
        runs.send(post(chat(stream=True), headers=[f"Authorization: Bearer {KEYS['small']}"])).read_until(b"data: ")
        guarded.write(tenant("acme", "new-key"))
        assert guarded.reload()[0] == 200
        assert kept.send(again).answer().status == 401, "a head that has been seen is judged anew, too"
        assert guarded.ask(KEYS["small"]).status == guarded.ask(KEYS["acme"]).status == 401
        engine.release.set()
        found = runs.answer()
        assert (found.status, found.complete) == (200, True), "what runs ends in peace"
    engine.reset()
    assert guarded.ask("new-key").status == 200
    before = proxy.metric("penstock_config_reloads_total", result="invalid")
    guarded.tenants.write_text("tenants:\n- {name: acme, keys: [plain-text-key]}\n")
    status, text = guarded.reload()
    assert (status, "tenants.yaml:2" in text, "keys" in text) == (400, True, True)
    assert "plain-text-key" not in text
    assert guarded.ask("new-key").status == 200, "the old ones stay"
    guarded.tenants.unlink()
    status, text = guarded.reload()
    assert (status, "tenants.yaml" in text) == (400, True)
    assert guarded.ask("new-key").status == 200, "nor does a file that is gone take them away"
    proxy.wait_metric(before + 2, "penstock_config_reloads_total", result="invalid")
    guarded.write(tenant("acme"), tenant("small"))
    assert guarded.reload()[0] == 200
    assert [guarded.ask(key).status for key in ("new-key", KEYS["acme"], KEYS["small"])] == [401, 200, 200]
    assert_clean(proxy)


def test_writes_on_the_admin_listener_need_its_token(guarded: Guarded) -> None:
    for headers in (
        [],
        ["Authorization: Bearer wrong"],
        [f"Authorization: Bearer {KEYS['acme']}"],
        [f"x-api-key: {TOKEN}"],
    ):
        assert guarded.ask_admin(*headers)[0] == 401
    assert guarded.ask_admin(f"Authorization: Bearer {TOKEN}", "Origin: http://elsewhere.test")[0] == 403
    assert guarded.ask_admin(f"Authorization: Bearer {TOKEN}")[0] == 200
    assert TOKEN not in guarded.proxy.log()


def test_nothing_of_one_listener_is_served_on_the_other(guarded: Guarded) -> None:
    admin = {pair for pair in described(tagged_admin=True) if pair[1] != "/health"}
    calls = len(guarded.engine.calls)
    for method, path in sorted(admin):
        with RawClient(guarded.proxy.port) as client:
            line = f"{method} {path.replace('{upstream}', 'one')} HTTP/1.1"
            found = client.send(bare(line, f"Authorization: Bearer {TOKEN}", "Content-Length: 0")).answer(
                method == "HEAD"
            )
            assert found.status == 404, (method, path)
    for method, path in sorted(described(tagged_admin=False) - {("GET", "/health"), ("HEAD", "/health")}):
        with RawClient(guarded.proxy.admin_port) as client:
            line = f"{method} {path.replace('{model}', 'm')} HTTP/1.1"
            request = bare(line, f"Authorization: Bearer {TOKEN}", "Content-Length: 0", host="Host: 127.0.0.1")
            assert client.send(request).answer(method == "HEAD").status in (401, 404), (method, path)
    assert len(guarded.engine.calls) == calls
    wait_for(lambda: guarded.ask(KEYS["acme"]).status == 200, "and it goes on")
