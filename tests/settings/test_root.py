from __future__ import annotations

from proxy.settings import Settings, load


def test_the_hash_follows_the_settings_but_not_the_secrets() -> None:
    first = load(None, {}, {"PENSTOCK_ADMIN__TOKEN": "long enough"})
    again = load(None, {}, {"PENSTOCK_ADMIN__TOKEN": "another one"})
    other = load(None, {}, {"PENSTOCK_ADMIN__TOKEN": "long enough", "PENSTOCK_TARGET__ITL_MS": "51"})
    assert first.hash() == again.hash() != other.hash()
    assert len(Settings().hash()) == 12
