from __future__ import annotations

import pytest

from tests.settings.faults import UPSTREAM, Write, told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("upstreams: [{url: 'ftp://e'}]", "upstreams.0.url: 'ftp://e' is no URL of an engine; give for example"),
        ("upstreams: [{url: 'http://e:99999'}]", "is no URL of an engine"),
        ("upstreams: [{url: 'http://e:1/v1'}]", "has a path; give only http://host:port"),
        (UPSTREAM % "name: a b", "upstreams.0.name: 'a b' is no name; give up to 64"),
        ("trust: {proxies: [ten]}", "trust.proxies.0: 'ten' is no address or network; give for example 10.0.0.0/8"),
        ("trust: {tenant_header: x_y}", "trust.tenant_header: 'x_y' is no header name"),
        ("trust: {priority_headers: [x-p, X-P]}", "trust.priority_headers: both are the same header"),
        ("routing: {retry_on: [shed, shed]}", "routing.retry_on: shed stands there twice; remove one"),
    ],
)  # fmt: skip
def test_text_of_the_wrong_kind_is_refused_with_an_example(text: str, message: str, write: Write) -> None:
    lines = told(write(text))
    assert len(lines) == 1
    assert message in lines[0]
