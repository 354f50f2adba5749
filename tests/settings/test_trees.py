from __future__ import annotations

from proxy.settings import load
from tests.settings.faults import Write, told


def test_lists_merge_by_index_or_are_replaced_as_a_whole(write: Write) -> None:
    path = write("upstreams:\n- {name: one, url: 'http://one:1'}\n- {name: two, url: 'http://two:2'}\n")
    environ = {
        "PENSTOCK_UPSTREAMS__1__URL": "https://zwei:2/",
        "PENSTOCK_UPSTREAMS__2__URL": "http://three:3",
        "PENSTOCK_UPSTREAMS__0__MODELS": '["m"]',
        "PENSTOCK_UPSTREAMS__0__LIMIT__MAX": "null",
        "PENSTOCK_CLASSES__1__FLOOR": "0.2",
        "PENSTOCK_TRUST__PROXIES": "[10.0.0.0/8, '::1']",
    }
    settings = load(path, {}, environ)
    assert [(u.name, u.url) for u in settings.upstreams] == [
        ("one", "http://one:1"),
        ("two", "https://zwei:2"),
        ("upstream-2", "http://three:3"),
    ]
    assert settings.upstreams[0].models == ("m",)
    assert [c.floor for c in settings.classes] == [0, 0.2, 0.1, 0.05]  # an index reaches into the default list
    assert settings.trust.proxies == ("10.0.0.0/8", "::1")
    replaced = load(path, {"upstreams": [{"url": "http://x:9"}]}, environ)
    assert [(u.name, u.url) for u in replaced.upstreams] == [("upstream-0", "http://x:9")]
    assert told(path, {"PENSTOCK_UPSTREAMS__7__URL": "http://x:1"}) == [
        "the environment: upstreams.7: the list has 2 entries; give 2 next"
    ]
