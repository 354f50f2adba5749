from __future__ import annotations

from pathlib import Path

from proxy.adapters.data import data_folder


def test_a_checkout_has_its_data_beside_the_package_and_a_wheel_inside_it(tmp_path: Path) -> None:
    assert (data_folder("config") / "penstock.yaml").is_file()
    (tmp_path / "site" / "proxy" / "_data" / "config").mkdir(parents=True)
    package = tmp_path / "site" / "proxy"
    assert data_folder("config", package) == package / "_data" / "config"
    assert data_folder("grafana", package) == tmp_path / "site" / "grafana"
