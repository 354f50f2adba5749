"""Hypothesis judges code, not how busy the machine is; and which tests are `interpreted`, where somebody asks."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "interpreted" not in config.option.markexpr:
        return
    from tests.reach import interpreted  # reads half of the repository

    for item in items:
        if interpreted(item.path):
            item.add_marker("interpreted")
