from __future__ import annotations

import pytest
from multidict import CIMultiDict

from proxy.server.admin_guard import (
    FOREIGN_HOST,
    FOREIGN_PAGE,
    LOCKED,
    NO_TOKEN,
    OPEN_PATHS,
    AdminConfig,
    Guard,
    Refused,
    is_loopback,
)

LOCAL = AdminConfig()
LOCAL_TOKEN = AdminConfig(token="correct horse")
OUTSIDE = AdminConfig(host="0.0.0.0")
OUTSIDE_TOKEN = AdminConfig(host="0.0.0.0", token="correct horse", hosts=("Penstock.Internal",))
RIGHT = {"Authorization": "Bearer correct horse"}


@pytest.mark.parametrize(
    ("config", "method", "path", "headers", "refusal"),
    [
        (LOCAL, "GET", "/admin/state", {}, None),
        (LOCAL, "POST", "/admin/reload", {}, None),
        (LOCAL, "POST", "/admin/reload", {"Host": "[::1]:8081"}, None),
        (LOCAL, "POST", "/admin/reload", {"Host": "127.0.0.1"}, None),
        (LOCAL, "GET", "/admin/state", {"Host": "evil.example"}, FOREIGN_HOST),
        (LOCAL, "GET", "/admin/state", {"Host": ""}, FOREIGN_HOST),
        (LOCAL, "GET", "/admin/state", {"Host": "[::1"}, FOREIGN_HOST),
        (LOCAL, "GET", "/metrics", {"Host": "penstock:8081"}, None),
        (LOCAL, "POST", "/metrics", {"Host": "penstock:8081"}, FOREIGN_HOST),
        (LOCAL, "POST", "/admin/drain", {"Origin": "http://localhost:8081"}, None),
        (LOCAL, "POST", "/admin/drain", {"Origin": "http://localhost:9999"}, FOREIGN_PAGE),
        (LOCAL, "POST", "/admin/drain", {"Origin": "null"}, FOREIGN_PAGE),
        (LOCAL, "POST", "/admin/drain", {"Sec-Fetch-Site": "cross-site"}, FOREIGN_PAGE),
        (LOCAL, "POST", "/admin/drain", {"Sec-Fetch-Site": "same-site"}, FOREIGN_PAGE),
        (LOCAL, "POST", "/admin/drain", {"Sec-Fetch-Site": "same-origin"}, None),
        (LOCAL, "GET", "/admin/state", {"Sec-Fetch-Site": "cross-site"}, None),
        (LOCAL_TOKEN, "GET", "/admin/state", {}, None),
        (LOCAL_TOKEN, "POST", "/admin/drain", {}, NO_TOKEN),
        (LOCAL_TOKEN, "POST", "/admin/drain", RIGHT, None),
        (LOCAL_TOKEN, "POST", "/admin/drain", {"Authorization": "bearer  correct horse "}, None),
        (LOCAL_TOKEN, "POST", "/admin/drain", {"Authorization": "Basic correct horse"}, NO_TOKEN),
        (LOCAL_TOKEN, "POST", "/admin/drain", {"Authorization": "Bearer correct"}, NO_TOKEN),
        (LOCAL_TOKEN, "POST", "/admin/drain", {"Authorization": "Bearer \udcff\u00e9"}, NO_TOKEN),
        (LOCAL_TOKEN, "POST", "/admin/drain", {**RIGHT, "Origin": "http://evil.example"}, FOREIGN_PAGE),
        (OUTSIDE, "GET", "/health", {"Host": "anything"}, None),
        (OUTSIDE, "HEAD", "/ready", {}, None),
        (OUTSIDE, "GET", "/metrics", {}, None),
        (OUTSIDE, "GET", "/", {}, LOCKED),
        (OUTSIDE, "GET", "/admin/state", RIGHT, LOCKED),
        (OUTSIDE, "POST", "/admin/drain", {}, LOCKED),
        (OUTSIDE_TOKEN, "GET", "/admin/state", {}, None),
        (OUTSIDE_TOKEN, "GET", "/admin/state", {"Host": "penstock.internal:8081"}, None),
        (OUTSIDE_TOKEN, "GET", "/admin/state", {"Host": "evil.example"}, FOREIGN_HOST),
        (OUTSIDE_TOKEN, "PUT", "/admin/upstreams/a/limit", {}, NO_TOKEN),
        (OUTSIDE_TOKEN, "PUT", "/admin/upstreams/a/limit", RIGHT, None),
    ],
)
def test_who_may_do_what(
    config: AdminConfig, method: str, path: str, headers: dict[str, str], refusal: Refused | None
) -> None:
    sent = CIMultiDict({"Host": "localhost:8081", **headers})
    assert Guard(config).refusal(method, path, sent) == refusal


@pytest.mark.parametrize(
    ("config", "locked"), [(LOCAL, False), (LOCAL_TOKEN, False), (OUTSIDE, True), (OUTSIDE_TOKEN, False)]
)
def test_a_listener_that_answers_little_knows_it(config: AdminConfig, locked: bool) -> None:
    assert Guard(config).locked is locked


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *[("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("LOCALHOST", True)],
        *[("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("penstock", False), ("", False)],
    ],
)
def test_loopback_is_recognised(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_the_open_paths_tell_no_secrets_and_are_three() -> None:
    assert {"/health", "/ready", "/metrics"} == OPEN_PATHS
