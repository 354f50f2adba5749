from __future__ import annotations

from proxy.server.request_ids import RequestIds


def test_ids_are_unique_over_processes() -> None:
    first, second = RequestIds(), RequestIds()
    ids = [one.next() for one in (first, first, second, second)]
    assert len(set(ids)) == 4
    assert all(one.startswith("req-") and len(one) == 22 for one in ids)
    many = [int(first.next()[-8:], 16) for _ in range(600)]
    assert many == list(range(3, 603))
