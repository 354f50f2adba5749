"""The status page in a real Chromium: under load, while an upstream dies, across a restart, idle, on a phone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browser import Page, browser
from tests.e2e.page_world import Proxy, engines, load, proxy, settings
from tests.e2e.scripted_upstream import HOST

pytestmark = pytest.mark.system

PROBE = Path(__file__).with_name("status_page.js").read_text("utf-8")


async def visit(page: Page, made: Proxy) -> None:
    await page.open(f"http://{HOST}:{made.admin_port}/")
    await page.value(PROBE)
    await page.until("probe.live()")


def figures(state: dict[str, Any]) -> dict[str, Any]:
    """What the page must show of a state, in the page's words."""
    flight = sum(one["in_flight"] for one in state["upstreams"])
    limit = sum(int(one["limit"]) for one in state["upstreams"])
    waiting = sum(one["queued"] for one in state["classes"])
    ended = {name: number for name, number in state["outcomes"].items() if number}
    return {
        "tiles": {"In flight": f"{flight} / {limit}", "Waiting": f"{waiting}", "Upstreams up": "2 of 2"},
        "classes": {one["name"]: f"{one['queued']} / {one['capacity']:,}" for one in state["classes"]},
        "tenants": {one["name"]: [str(one["in_flight"]), str(one["queued"])] for one in state["tenants"]},
        "outcomes": sorted(f"{number:,}{name.replace('_', ' ')}" for name, number in ended.items()),
    }


async def steady(page: Page, made: Proxy) -> tuple[dict[str, Any], dict[str, Any]]:
    """A state and what the page shows of it, once nothing moves any more: equal, or the last difference."""
    shown: dict[str, Any] = {}
    wanted: dict[str, Any] = {}
    for _ in range(12):
        await asyncio.sleep(1.0)
        state = made.state()
        wanted = figures(state)
        told = await page.value("probe.shown()")
        shown = {key: told[key] for key in wanted}
        shown["classes"] = {name: one[0] for name, one in told["classes"].items()}
        shown["tiles"] = {name: told["tiles"][name] for name in wanted["tiles"]}
        if shown == wanted:
            return state, told
    raise AssertionError(f"page: {shown}\nstate: {wanted}")


async def under_load(folder: Path) -> None:
    with engines("left", "right") as made, proxy(folder, settings(made, mode="fixed", initial=6)) as served:
        async with browser() as page, load(served.port, 24):
            await page.look(1280, 900)
            await visit(page, served)
            await page.until("probe.moving()")
            for engine in made.values():
                engine.control(stall=True)  # requests stay where they are: figures that can be compared
            state, told = await steady(page, served)
            flight = {one["name"]: one["in_flight"] for one in state["upstreams"]}
            waiting = sum(one["queued"] for one in state["classes"])
            assert sum(flight.values()) + waiting == 24
            assert told["verdict"].startswith(f"{waiting} requests wait: {sum(flight.values())} of 12 seats are taken")
            assert {name: one[0] for name, one in told["upstreams"].items()} == {"left": "up", "right": "up"}
            for name, one in told["upstreams"].items():
                assert one[1].startswith(f"{flight[name]} in flight of 6, memory ceiling")
            assert f"in flight {sum(flight.values())}" in told["charts"][0]
            assert page.complaints == []
            assert {url.rsplit("/", 1)[0] for url in page.requested} <= {
                f"http://{HOST}:{served.admin_port}{path}" for path in ("", "/uplot", "/admin")
            }


async def an_upstream_dies_and_the_proxy_restarts(folder: Path) -> None:
    with engines("left", "right") as made, proxy(folder, settings(made)) as served:
        async with browser() as page, load(served.port, 24):
            await page.look(390, 844)
            await visit(page, served)
            await page.until("probe.moving()")
            assert page.complaints == []
            made["right"].end()
            await page.until("probe.shown().more.includes('right is down')")
            told = await page.value("probe.shown()")
            assert told["tiles"]["Upstreams up"] == "1 of 2"
            assert [told["upstreams"][name][0] for name in ("left", "right")] == ["up", "down"]
            assert told["kind"] == "bad"
            assert await page.value("probe.fits()")
            before = served.state()["server"]["uptime_s"]
            served.again()
            await page.until("probe.shown().connection.startsWith('no connection since')")
            served.wait_alive("/ready")
            await page.until("probe.live()")
            assert served.state()["server"]["uptime_s"] < before + 60
            await page.until("probe.moving()")
            assert [one for one in page.complaints if not one.startswith("network:")] == []


async def idle(folder: Path) -> None:
    with engines("left") as made, proxy(folder, settings(made)) as served:
        async with browser() as page:
            await page.look(1280, 900)
            await visit(page, served)
            await page.until("probe.shown().verdict.startsWith('Idle')")
            for width in (1280, 768, 390, 320):
                for dark in (False, True):
                    await page.look(width, 800, dark=dark)
                    assert await page.value("probe.fits()"), width
                    assert await page.value("probe.poor()") == [], (width, dark)
            await check_keyboard(page)
            await check_names(page)
            assert page.complaints == []
            await page.value("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">inline</p>')")
            assert any("Content Security Policy" in one for one in page.complaints), "the policy is not in force"


async def check_keyboard(page: Page) -> None:
    """Tab reaches everything that can be used, in the order of the page; space pauses and resumes."""
    reached = []
    for _ in range(12):
        await page.press("Tab")
        reached.append(await page.value("probe.focused()"))
    assert reached[:2] == ["skip", "pause"]
    assert {"metrics", "state", "history", "copy"} <= set(reached)
    await page.value("document.getElementById('pause').focus()")
    await page.press(" ")
    assert await page.value("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    assert (await page.value("probe.shown()"))["connection"] == "paused"
    await page.press(" ")
    await page.until("probe.live()")


async def check_names(page: Page) -> None:
    """What a screen reader is told: every control, picture and region has a name, and the landmarks are there."""
    tree = (await page.send("Accessibility.getFullAXTree"))["nodes"]
    nodes = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    need = {"button", "link", "combobox", "region", "image", "heading", "columnheader"}
    assert [role for role, name in nodes if role in need and not name.strip()] == []
    assert {"banner", "main", "contentinfo", "status", "table"} <= {role for role, _ in nodes}
    assert ("heading", "Upstreams") in nodes
    assert any(
        role == "image" and name.startswith("Chart of the last ten minutes. Now: memory") for role, name in nodes
    )


def test_the_figures_under_load_are_those_of_the_state(tmp_path: Path) -> None:
    asyncio.run(under_load(tmp_path))


def test_an_upstream_that_dies_is_seen_and_a_restart_is_survived(tmp_path: Path) -> None:
    asyncio.run(an_upstream_dies_and_the_proxy_restarts(tmp_path))


def test_idle_narrow_dark_by_keyboard_and_read_aloud(tmp_path: Path) -> None:
    asyncio.run(idle(tmp_path))
