"""Keys and prompts thrown at every path of the real process: none is found in logs, metrics, errors, state or page."""

from __future__ import annotations

import hashlib
import json
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest
import yaml

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, running
from tests.e2e.raw_client import RawClient, bare, chat, post
from tests.e2e.scripted_upstream import (
    HOST,
    LAST_CHUNK,
    STREAM_HEAD,
    Do,
    ScriptedUpstream,
    answer,
    chunk,
    token,
    wait_for,
    whole_stream,
)

KEY = "sk-planted4key4of4acme"
OTHER_KEY = "planted-unknown-key"
PROMPT = "planted words of a prompt"
ANSWER = "planted words of an answer"
COOKIE = "planted-cookie"
ENGINE_KEY = "planted-engine-key"
ADMIN_TOKEN = "planted-admin-token"
RELOADED = "planted-reloaded-key"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
SECRETS = (KEY, OTHER_KEY, PROMPT, ANSWER, COOKIE, ENGINE_KEY, ADMIN_TOKEN, RELOADED, DIGEST, "planted", "cGxhbnRlZA")

AUTHORIZATION = f"Authorization: Bearer {KEY}"
BODY = chat(messages=[{"role": "user", "content": PROMPT}], user=PROMPT, metadata={PROMPT: PROMPT})
JSON = json.dumps(BODY).encode()
ODD_HEADERS = [f"Cookie: session={COOKIE}", f"X-Anything: {PROMPT}", f"Proxy-Authorization: Basic {COOKIE}"]
HUGE = b'{"model": "m", "prompt": "' + PROMPT.encode() * 10_000 + b'"}'
FORM = (
    f'--b\r\nContent-Disposition: form-data; name="file"; filename="{PROMPT}"\r\n\r\n{PROMPT}\r\n'
    '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
)


def with_key(body: object, *headers: str, path: str = "/v1/chat/completions") -> bytes:
    return post(body, path, [AUTHORIZATION, *headers])


# Every way to be refused before an engine is asked.
REFUSED = {
    "no key": post(BODY, headers=ODD_HEADERS),
    "unknown key": post(BODY, headers=[f"Authorization: Bearer {OTHER_KEY}"]),
    "key in the wrong place": post(BODY, headers=[f"Authorization: Basic {OTHER_KEY}"]),
    "two keys": post(BODY, headers=[AUTHORIZATION, f"x-api-key: {OTHER_KEY}"]),
    "key in the query": bare(f"GET /v1/models?api_key={KEY} HTTP/1.1"),
    "secret path": bare(f"GET /{KEY}/{PROMPT.replace(' ', '%20')} HTTP/1.1", AUTHORIZATION),
    "secret method": bare(f"{COOKIE.upper().replace('-', '')} /v1/models HTTP/1.1", AUTHORIZATION),
    "wrong method": bare("PUT /v1/chat/completions HTTP/1.1", AUTHORIZATION),
    "no JSON": with_key(JSON[:-5]),
    "unknown model": with_key({**BODY, "model": f"model {PROMPT}"}),
    "model of a wrong type": with_key({**BODY, "model": [PROMPT]}),
    "too many choices": with_key({**BODY, "n": 100_000}),
    "wrong field": with_key({**BODY, "stream": PROMPT, "max_tokens": PROMPT}),
    "twice the same key": with_key(b'{"model":"m","model":"' + PROMPT.encode() + b'"}'),
    "too large": with_key(HUGE),
    "encoded": with_key(JSON, f"Content-Encoding: {COOKIE}"),
    "bad header value": with_key(BODY, f"x-request-timeout-ms: {PROMPT}"),
    "bad request id": with_key(BODY, f"x-request-id: {PROMPT}", "x-request-timeout-ms: 0"),
    "unknown priority": with_key(BODY, f"x-priority: {PROMPT}", "x-request-timeout-ms: 0"),
    "bad boundary": post(FORM.encode(), "/v1/audio/transcriptions", [AUTHORIZATION, f"Content-Type: {COOKIE};;"]),
    "malformed": f"GET {PROMPT} HTTP/1.1\r\nHost: a\r\n{AUTHORIZATION}\x00\r\n\r\n".encode(),
    "no HTTP": f"{PROMPT} {KEY}\r\n\r\n".encode(),
    "background": with_key({"model": "m", "input": PROMPT, "background": True}, path="/v1/responses"),
}

# Every way that an engine can end: what it says of the request is for the client, not for us to keep.
TOLD = ANSWER.encode()
ENGINES = {
    "well": (answer(json.dumps({"choices": [], "text": ANSWER})),),
    "a stream": (whole_stream(token(ANSWER), token(finish="stop"), b"data: [DONE]\n\n"),),
    "an echoing error": (answer(json.dumps({"error": {"message": PROMPT, "key": ENGINE_KEY}}), 400),),
    "shed": (answer(PROMPT, 503),),
    "no HTTP": (f"{ANSWER} {ENGINE_KEY}\r\n\r\n".encode(), Do.CLOSE),
    "a bad head": (f"HTTP/1.1 200 OK\r\nX: {ANSWER}\x00\r\n\r\n".encode(), Do.CLOSE),
    "a reset": (Do.RESET,),
    "cut": (STREAM_HEAD + chunk(token(ANSWER)), Do.RESET),
    "odd usage": (answer(json.dumps({"usage": {"prompt_tokens": ANSWER, "completion_tokens": -1}})),),
    "an error event": (STREAM_HEAD + chunk(b'data: {"error": {"message": "%b"}}\n\n' % TOLD) + LAST_CHUNK,),
    "silence": (Do.HOLD,),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ProxyProcess, ScriptedUpstream]]:
    engine = ScriptedUpstream()
    tenants = {"list": [{"name": "acme", "keys": [f"sha256:{DIGEST}"]}], "anonymous": {"allowed": False}}
    config = settings(
        upstream("main", engine.url, "m", api_key=ENGINE_KEY), tenants=tenants, log={"level": "debug"}
    )  # fmt: skip
    with running(tmp_path_factory.mktemp("secrets"), config) as proxy:
        yield proxy, engine
        engine.close()


def shown(proxy: ProxyProcess) -> dict[str, str]:
    """All that an operator can see."""
    paths = ("/metrics", "/admin/state", "/admin/history", "/ready", f"/{PROMPT.replace(' ', '-')}", "/")
    found = {path: proxy.admin(path)[1] for path in paths}
    with urllib.request.urlopen(f"http://{HOST}:{proxy.admin_port}/admin/events", timeout=5) as events:
        found["events"] = events.readline().decode() + events.readline().decode()
    return {**found, "log": proxy.log()}


def leaks(found: dict[str, str]) -> list[str]:
    return [f"{secret!r} in {where}" for where, text in found.items() for secret in SECRETS if secret in text]


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_tells_the_client_nothing_of_what_it_sent(
    served: tuple[ProxyProcess, ScriptedUpstream], request_bytes: bytes
) -> None:
    proxy, _ = served
    with RawClient(proxy.port) as client, suppress(ConnectionError):
        client.send(request_bytes)
        told = client.answer()
        assert 400 <= told.status < 600
        assert leaks({"answer": f"{told.headers} {told.body!r}"}) == []


@pytest.mark.parametrize("script", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize("streaming", [False, True])
def test_whatever_an_engine_does_the_request_passes_unseen(
    served: tuple[ProxyProcess, ScriptedUpstream], script: tuple[object, ...], streaming: bool
) -> None:
    proxy, engine = served
    engine.script = script  # type: ignore[assignment]
    with RawClient(proxy.port) as client:
        client.send(with_key({**BODY, "stream": streaming}, *ODD_HEADERS))
        client.answer()
    head = engine.calls[-1].head
    assert KEY not in head
    assert COOKIE not in head
    assert f"authorization: Bearer {ENGINE_KEY}" in head
    assert json.loads(engine.calls[-1].body)["user"] == PROMPT


def test_clients_that_leave_and_forms_leave_nothing_behind(served: tuple[ProxyProcess, ScriptedUpstream]) -> None:
    proxy, engine = served
    engine.reset(STREAM_HEAD + chunk(token(ANSWER)), Do.HOLD)
    for part in (JSON[:30], JSON):
        with RawClient(proxy.port) as client:
            head = post(JSON, headers=[AUTHORIZATION, *ODD_HEADERS]).removesuffix(JSON)
            client.send(head + part)
    engine.reset()
    with RawClient(proxy.port) as client:
        kind = "Content-Type: multipart/form-data; boundary=b"
        client.send(post(FORM.encode(), "/v1/audio/transcriptions", [AUTHORIZATION]).replace(
            b"Content-Type: application/json", kind.encode()))  # fmt: skip
        assert client.answer().status == 200


def test_a_reload_that_fails_names_the_key_and_not_its_value(served: tuple[ProxyProcess, ScriptedUpstream]) -> None:
    proxy, _ = served
    right = proxy.config_path.read_text()
    wrong = yaml.safe_load(right)
    wrong["upstreams"][0] |= {"api_key": [RELOADED], "url": f"http://user:{RELOADED}@host"}
    wrong["tenants"]["list"][0]["keys"] = [RELOADED]
    proxy.config_path.write_text(yaml.safe_dump(wrong))
    status, told = proxy.admin("/admin/reload", "POST")
    assert status == 400
    assert leaks({"answer": told}) == []
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: proxy.log().count("reload refused") >= 2, "both reloads refused")
    proxy.config_path.write_text(right)


def test_nothing_planted_is_to_be_seen_anywhere(served: tuple[ProxyProcess, ScriptedUpstream]) -> None:
    proxy, engine = served
    engine.reset()
    assert leaks(shown(proxy)) == []
    lines = [json.loads(line) for line in proxy.log().splitlines() if line.startswith("{")]
    told = {line["outcome"] for line in lines if line["event"] == "request"}
    assert {"auth", "bad_request", "success", "upstream_error", "upstream_timeout", "client_gone"} <= told
