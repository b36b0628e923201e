"""Every page in a real browser, over a journal that has all that there is to show."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import anyio.to_thread
import browser as browsers
import pastweeks
import pytest
import sqlalchemy as sa
from browser import Browser

from aibenchd import events
from aibenchd.store import finding_views, schema

HISTORY = "/history?benchmark=resnet50&device=lab-host"
PAGES = (
    "/",
    "/findings",
    "/findings?state=open&triage=none",
    "/findings/1",
    "/findings/2",
    "/findings/3",
    "/history",
    HISTORY,
    "/history?benchmark=squeezenet&device=phone-a",
    "/coverage",
    "/coverage?state=broken",
    "/comparison",
    "/experiments",
    "/experiments?verdict=regressed",
    "/experiments/280",
    "/experiments/708",
    "/experiments/709",
    "/requests/1",
    "/builds",
    "/builds?state=failed",
)
DRAWN = {HISTORY: 3, "/experiments/280": 3}  # charts of a page
TOO_WIDE = """return [...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll, nav, .unseen, .skip, pre')
    && one.getBoundingClientRect().right > arguments[0] + 1).map((one) => one.tagName + '.' + one.className)"""


async def seen(work: Callable[[], object]) -> None:
    """Have a browser do something while the dashboard answers here."""
    await anyio.to_thread.run_sync(work)


def address(dashboard: pastweeks.Dashboard, path: str) -> str:
    return dashboard.url + path


@pytest.mark.parametrize("size", [browsers.WIDE, browsers.PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_is_whole_and_keeps_to_its_host(
    dashboard: pastweeks.Dashboard, browser: Browser, size: tuple[int, int], scheme: str
) -> None:
    def look() -> None:
        for path in PAGES:
            browser.open(address(dashboard, path), size, scheme)
            charts = browser.run("return document.querySelectorAll('figure.chart').length")
            browser.until(f"document.querySelectorAll('figure.chart canvas').length === {charts}")
            assert charts >= DRAWN.get(path, 0), path
            assert browser.complaints() == [], path
            assert browser.run(TOO_WIDE, size[0]) == [], path
            assert browser.run("return document.documentElement.scrollWidth") <= size[0], path
        assert browser.hosts() == {urlsplit(dashboard.url).netloc}

    await seen(look)


async def test_dark_is_another_page_than_light(dashboard: pastweeks.Dashboard, browser: Browser) -> None:
    def look() -> None:
        grounds = []
        for scheme in ("light", "dark"):
            browser.open(address(dashboard, "/findings"), scheme=scheme)
            grounds.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
        assert grounds[0] != grounds[1]

    await seen(look)


async def test_every_link_of_every_page_leads_somewhere(dashboard: pastweeks.Dashboard, browser: Browser) -> None:
    def look() -> None:
        links: dict[str, str] = {}
        for path in PAGES:
            browser.open(address(dashboard, path))
            found = browser.run("return [...document.querySelectorAll('a[href]')].map((one) => one.href)")
            own = (link for link in found if link.startswith(address(dashboard, "/")) and "/v1/logs/" not in link)
            links |= {link.partition("#")[0]: path for link in own}
        assert len(links) > 100
        codes = browser.driver.execute_async_script(
            "const done = arguments[1]; Promise.all(arguments[0].map((one) => fetch(one).then((reply) => [one, reply.status])))"
            ".then((all) => done(all.filter(([, status]) => status !== 200)))",
            [link for link in links if "/experiments/" not in link or link.endswith("0")],
        )
        assert codes == []

    await seen(look)


async def test_a_finding_is_triaged_by_keyboard_alone(dashboard: pastweeks.Dashboard, browser: Browser) -> None:
    def work() -> None:
        browser.open(address(dashboard, "/findings?state=open"))
        browser.press("TAB")
        assert browser.run("return document.activeElement.textContent") == "to the content"
        browser.press("ENTER")
        for _ in range(40):
            browser.press("TAB")
            if browser.run("return document.activeElement.getAttribute('href')") == "/findings/1":
                break
        browser.press("ENTER")
        browser.until("location.pathname === '/findings/1'")
        for _ in range(40):
            browser.press("TAB")
            if browser.run("return document.activeElement.name") == "why":
                break
        browser.press("the profiler needs it", "TAB", "ENTER")  # acknowledge
        browser.until("document.querySelector('.made b')?.textContent === 'acknowledged'")
        assert "the profiler needs it" in browser.find(".made").text
        assert browser.complaints() == []

    await seen(work)
    found = await dashboard.house.store.read(lambda connection: finding_views.finding(connection, 1))
    assert found is not None
    assert (found["triage"], found["triages"][0]["why"]) == ("acknowledged", "the profiler needs it")


async def test_a_finding_is_accepted_muted_and_opened_again(dashboard: pastweeks.Dashboard, browser: Browser) -> None:
    def make(action: str, why: str) -> None:
        browser.open(address(dashboard, "/findings/2"))
        browser.find("textarea[name=why]").send_keys(why)
        browser.run("window.left = false")
        browser.find(f"button[value={action}]").click()
        browser.until("window.left === undefined && document.readyState === 'complete'")

    def work() -> None:
        make("mute", "until the driver is exchanged")
        browser.open(address(dashboard, "/findings?state=open&triage=none"))
        assert "muted" not in browser.find("main").text
        browser.open(address(dashboard, "/findings?state=open"))
        assert "muted until" in browser.find("table").text
        make("accept", "worth it")
        assert "accepted" in browser.find("h1").text
        make("reopen", "it was not")
        assert "accepted" not in browser.find("h1").text
        told = [one.text.split()[0] for one in browser.driver.find_elements("css selector", ".made li")]
        assert told == ["reopened", "accepted", "muted"]
        make("accept", "")  # says that it needs a reason, and what then
        assert "'why' is required" in browser.find("main").text

    await seen(work)


async def test_two_cells_are_measured_against_each_other(dashboard: pastweeks.Dashboard, browser: Browser) -> None:
    def work() -> None:
        browser.open(address(dashboard, "/comparison"))
        button = browser.find("#pick button.main")
        assert not button.is_enabled()
        boxes = {
            box.get_attribute("data-column"): box for box in browser.driver.find_elements("css selector", "[data-row=resnet50]")
        }
        boxes["pytorch@phone-a/cpu"].click()
        boxes["pytorch@lab-host/cpu"].click()
        assert browser.find("#picked").text == "resnet50: pytorch@lab-host/cpu against pytorch@phone-a/cpu, each by itself"
        boxes["pytorch@lab-host/cpu"].click()
        boxes["pytorch@phone-a/opengl"].click()
        assert browser.find("#picked").text == "resnet50: pytorch@phone-a/cpu against pytorch@phone-a/opengl, interleaved"
        button.click()
        browser.until("location.pathname === '/requests/1'")
        assert browser.complaints() == []

    await seen(work)
    (asked,) = dashboard.controls.asked
    assert asked[:4] == ("compare", "resnet50", "pytorch@phone-a/cpu", "pytorch@phone-a/opengl")


async def test_a_chart_is_read_by_keyboard(dashboard: pastweeks.Dashboard, browser: Browser) -> None:
    def work() -> None:
        browser.open(address(dashboard, HISTORY))
        browser.until("document.querySelector('figure.chart canvas')")
        browser.run("document.querySelector('figure.chart').focus()")
        browser.press("HOME")
        first = browser.find("figure.chart output").text
        browser.press("ARROW_RIGHT")
        second = browser.find("figure.chart output").text
        assert first.startswith(pastweeks.commit(1)[:12])
        assert second.startswith(pastweeks.commit(2)[:12])
        for _ in range(22):
            browser.press("ARROW_RIGHT")
        assert "regressed +6.20 % (+5.60 … +6.80)" in browser.find("figure.chart output").text
        browser.press("ENTER")
        browser.until("location.pathname === '/experiments/280'")

    await seen(work)


async def test_a_page_follows_what_happens(dashboard: pastweeks.Dashboard, browser: Browser) -> None:
    store, told = dashboard.house.store, dashboard.house.events

    def read(expected: str) -> None:
        browser.until(f"document.getElementById('devices').textContent.includes({expected!r})")

    await seen(partial(browser.open, address(dashboard, "/")))
    await seen(lambda: browser.until("'live' in document.documentElement.dataset"))
    await seen(partial(read, "block 5"))
    dashboard.house.board.put("device/phone-a", "quarantined", "the screen is locked", fault=True)
    await seen(partial(read, "the screen is locked"))
    await seen(lambda: browser.until("document.querySelector('#standing').textContent.includes('3 faults')"))
    await seen(lambda: browser.until("document.querySelector('#feed .topic')?.textContent === 'board.changed'"))
    verdict = schema.experiments.update().where(schema.experiments.c.state == "open").values(state="decided", verdict="improved")
    await store.write(lambda tx: tx.connection.execute(verdict.values(decided_at=sa.func.unixepoch())) and None)
    told.publish(events.Event("experiment.decided", {"id": 709}))
    await seen(lambda: browser.until("document.querySelector('#recent .improved')"))
    assert await anyio.to_thread.run_sync(browser.complaints) == []
