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
import statusd
from browser import Browser

from aibenchd import events
from aibenchd.store import finding_views, schema, store, views

_e = schema.experiments.c

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


async def test_what_a_profile_does_not_tell_from_noise_is_folded_away(dashboard: pastweeks.Dashboard, browser: Browser) -> None:
    def work() -> None:
        browser.open(address(dashboard, "/findings/1"))
        sections = [one for one in browser.driver.find_elements("css selector", "#explained section") if "Profile" in one.text]
        perf, scheduling, samples = (one.text for one in sections)
        assert "aten::conv2d" in perf
        assert "migrations to another CPU" in scheduling
        assert "noise" not in perf + scheduling  # all of it is told
        assert "Samples tell no difference." in samples
        assert "copy" not in samples
        folded = sections[2].find_element("css selector", "summary")
        assert folded.text == "1 row that samples do not tell from noise"
        browser.run("arguments[0].focus()", folded)
        browser.press("ENTER")
        row = sections[2].find_element("css selector", "details tbody tr").text
        assert row.replace("\N{NO-BREAK SPACE}", " ") == "copy 9 \N{MICRO SIGN}s 5 \N{MICRO SIGN}s ±7 \N{MICRO SIGN}s"
        assert browser.complaints() == []

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


# Holds the next answer back until it is let go, and notes for how long each further look is put off.
HELD = """const [fetched, slept] = [window.fetch, window.setTimeout];
window.pauses = [];
window.setTimeout = (work, milliseconds) => { window.pauses.push(milliseconds); return slept(work, milliseconds); };
window.fetch = async (...asked) => {
    const reply = await fetched(...asked);
    await new Promise((go) => (window.go = go));
    window.fetch = fetched;
    return reply;
};"""


async def test_what_happens_while_a_page_looks_is_looked_for_next(dashboard: pastweeks.Dashboard, browser: Browser) -> None:
    board = dashboard.house.board
    await seen(partial(browser.open, address(dashboard, "/")))
    await seen(lambda: browser.until("'live' in document.documentElement.dataset"))
    await seen(partial(browser.run, HELD))
    board.put("device/phone-a", "quarantined", "the screen is locked", fault=True)
    await seen(lambda: browser.until("window.go !== undefined"))
    board.put("device/phone-a", "lost", "the line is cut", fault=True)
    await seen(lambda: browser.until("document.querySelector('#feed').textContent.includes('the line is cut')"))
    await seen(partial(browser.run, "window.pauses = []; window.go()"))
    await seen(lambda: browser.until("window.pauses.length"))
    assert await anyio.to_thread.run_sync(browser.run, "return window.pauses[0]") < 10_000  # which it is where nothing happened
    await seen(lambda: browser.until("document.getElementById('devices').textContent.includes('the line is cut')"))


async def altered(dashboard: pastweeks.Dashboard, where: sa.ColumnElement[bool], **values: object) -> None:
    """Have decided experiments of one benchmark and device be others than they were."""
    await dashboard.house.store.write(
        lambda tx: (
            tx.connection.execute(schema.experiments.update().where(where, _e.state == "decided").values(**values)) and None
        )
    )


def of(name: str, device: str) -> sa.ColumnElement[bool]:
    return sa.and_(_e.identifier == name, _e.device == device, _e.backend == "cpu")


async def numbers(dashboard: pastweeks.Dashboard, name: str, device: str) -> list[int]:
    """Experiments of commits, oldest first."""
    query = views.HistoryQuery(benchmark=name, device=device, backend="cpu", limit=1000)
    page = await dashboard.house.store.read(lambda connection: views.history(connection, query))
    return [item["id"] for item in reversed(page["history"])]


STROKES = """const figure = [...document.querySelectorAll('figure.chart')].find((one) => one.textContent.includes(arguments[0]));
    const canvas = figure.querySelector('canvas'), box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
    const place = figure.querySelector('.u-over').getBoundingClientRect();
    const { x } = JSON.parse(figure.querySelector('script').textContent);
    const accent = getComputedStyle(document.documentElement).getPropertyValue('--accent').trim().match(/[0-9a-f]{2}/gi);
    const ink = accent.map((one) => parseInt(one, 16)), [low, high] = [-0.02 * (x.length - 1), 1.02 * (x.length - 1)];
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
    return x.slice(1).map((at) => {
        const column = Math.round((place.left - box.left + (place.width * (at - arguments[1] - low)) / (high - low)) * ratio);
        let found = 0;
        for (let row = 0; row < canvas.height; row++) {
            const first = 4 * (row * canvas.width + column);
            found += ink.every((one, index) => Math.abs(pixels[first + index] - one) < 40);
        }
        return found;
    });"""  # in columns between each place of a chart and the one before, how many pixels have the colour of its line


async def test_a_line_ends_where_the_specification_changed_and_says_so(dashboard: pastweeks.Dashboard, browser: Browser) -> None:
    ids = await numbers(dashboard, "squeezenet", "lab-host")
    await altered(dashboard, sa.and_(of("squeezenet", "lab-host"), _e.id >= ids[30]), benchmark="e" * 64)
    history = "/history?benchmark=squeezenet&device=lab-host"

    def work() -> None:
        browser.open(address(dashboard, history))
        browser.until("document.querySelectorAll('figure.chart canvas').length >= 2")
        captions = [one.text for one in browser.driver.find_elements("css selector", "figure.chart figcaption .break")]
        first = pastweeks.commit(31)[:9]
        assert captions == [f"from {first} on another specification"] * 2
        rows = [one.text for one in browser.driver.find_elements("css selector", "tr.break")]
        assert rows == [f"from {ids[30]} on another specification"]
        above = browser.find("tr.break").find_element("xpath", "preceding-sibling::tr[1]").text
        assert above.startswith(str(ids[30]))
        data = browser.run(
            "return [...document.querySelectorAll('figure.chart script')].map((one) => JSON.parse(one.textContent))"
        )
        changes, times = data[0], data[-1]
        assert [changes["labels"][one["at"]][:9] for one in changes["breaks"]] == [first]
        (begins,) = times["breaks"]
        near, middle = (browser.run(STROKES, "median of all samples", part) for part in (0.3, 0.5))
        drawn = [place + 1 for place, strokes in enumerate(near) if strokes]
        assert drawn == [place for place in range(1, len(times["x"])) if place != begins["at"]]
        assert middle[begins["at"] - 1] > 60  # the mark, from top to bottom
        browser.run("document.querySelector('figure.chart').focus()")
        browser.press("HOME", *["ARROW_RIGHT"] * changes["breaks"][0]["at"])
        assert browser.find("figure.chart output").text.endswith(", from here on another specification")
        assert browser.complaints() == []

    await seen(work)


async def test_a_huge_change_hides_no_small_ones_until_all_is_asked_for(dashboard: pastweeks.Dashboard, browser: Browser) -> None:
    ids = await numbers(dashboard, "resnet50", "lab-host")
    await altered(dashboard, _e.id == ids[40], estimate=9.0, low=8.5, high=9.5, verdict="regressed")

    def text() -> str:
        return str(browser.find("figure.chart figcaption").text)

    def ticks() -> set[int]:
        """Rows of the first chart in which marks of verdicts are drawn: few where all small changes are one line."""
        script = """const canvas = document.querySelector('figure.chart canvas');
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
            copy.drawImage(canvas, 0, 0);
            const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
            const ink = getComputedStyle(document.documentElement).getPropertyValue('--dim').trim().match(/[0-9a-f]{2}/gi);
            const wanted = ink.map((one) => parseInt(one, 16)), rows = [];
            for (let row = 0; row < canvas.height * 0.85; row++) for (let column = 80; column < canvas.width; column++) {
                const first = 4 * (row * canvas.width + column);
                if (wanted.every((one, index) => Math.abs(pixels[first + index] - one) < 30)) { rows.push(row); break; }
            }
            return rows;"""
        return set(browser.run(script))

    def work() -> None:
        browser.open(address(dashboard, HISTORY))
        browser.until("document.querySelector('figure.chart canvas')")
        assert "1 point lies beyond the edge" in text()
        spread = ticks()
        browser.run("document.querySelector('figure.chart').focus()")
        browser.press("HOME", *["ARROW_RIGHT"] * 40)
        assert "regressed +900.00 % (+850.00 … +950.00), beyond the edge" in browser.find("figure.chart output").text
        browser.press("TAB")
        assert browser.run("return document.activeElement.textContent") == "show all"
        browser.press("ENTER")
        assert urlsplit(browser.driver.current_url).query.endswith("&range=all")  # and no experiment was opened
        assert "beyond the edge" not in text()
        assert len(ticks()) < len(spread) / 3
        assert browser.run("return document.activeElement.textContent") == "show the bulk alone"
        browser.find("form.filter button").click()  # what is looked for next is shown so too
        browser.until("document.readyState === 'complete' && document.querySelector('figure.chart[data-all] canvas')")
        assert "range=all" in browser.driver.current_url
        assert len(ticks()) < len(spread) / 3
        browser.run("document.querySelector('figure.chart [data-range]').focus()")
        browser.press("SPACE")
        assert "range" not in browser.driver.current_url
        assert len(ticks()) == len(spread)
        assert browser.complaints() == []

    await seen(work)


async def test_what_no_second_look_confirmed_says_so_wherever_it_is_listed(
    dashboard: pastweeks.Dashboard, browser: Browser
) -> None:
    finding = "SELECT suspect FROM findings WHERE state = 'refuted'"
    suspect = await dashboard.house.store.read(lambda connection: connection.execute(sa.text(finding)).scalar_one())
    await dashboard.house.store.write(lambda tx: _looked_at_again(tx, suspect, -0.004, 0.007) and None)

    def work() -> None:
        row = f"//tr[td/a[@href='/experiments/{suspect}']]/td[.//*[contains(@class, 'verdict')]]"
        for path in ("/experiments?verdict=regressed", "/history?benchmark=resnet50&device=phone-a&backend=opengl"):
            browser.open(address(dashboard, path))
            assert browser.driver.find_element("xpath", row).text.split() == ["regressed", "refuted:", "inconclusive"], path
        assert "refuted" in browser.find("figure.chart figcaption").text
        browser.run("document.querySelector('figure.chart').focus()")
        browser.press("HOME", *["ARROW_RIGHT"] * 23)
        assert "regressed (refuted: inconclusive) +6.20 %" in browser.find("figure.chart output").text
        browser.open(address(dashboard, f"/experiments/{suspect}"))
        assert browser.find("h1").text.split()[:3] == ["regressed", "refuted:", "inconclusive"]
        assert "Measured again for finding 3 in experiment" in browser.find("#said").text
        browser.open(address(dashboard, "/experiments/280"))  # which was confirmed
        assert browser.find("h1").text.split()[:2] == ["regressed", "+6.2"]
        assert browser.complaints() == []

    await seen(work)


def _looked_at_again(tx: store.Transaction, suspect: int, low: float, high: float) -> int:
    """What measures an experiment again, for its finding."""
    own = tx.connection.execute(sa.select(schema.experiments).where(_e.id == suspect)).mappings().one()
    finding = tx.connection.execute(sa.select(schema.findings.c.id).where(schema.findings.c.suspect == suspect)).scalar_one()
    pair = statusd.pair(tx, pastweeks.commit(24), pastweeks.commit(23), run_type="verify")
    facts = {name: value for name, value in own.items() if name not in ("id", "pair")} | {"pair": pair, "finding": finding}
    facts |= {"verdict": "unchanged", "estimate": (low + high) / 2, "low": low, "high": high}
    return int(tx.connection.execute(schema.experiments.insert().values(facts).returning(_e.id)).scalar_one())
