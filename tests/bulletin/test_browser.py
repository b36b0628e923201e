"""A report in a real browser: as it is opened from a mail, on a screen, on a phone and on paper."""

from __future__ import annotations

import base64

import browser as browsers
import pytest
from browser import Browser

TOO_WIDE = """return [...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll, .unseen, pre, svg')
    && one.getBoundingClientRect().right > arguments[0] + 1).map((one) => one.tagName + '.' + one.className)"""
CUT = """return [...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth + 1)
    .map((one) => one.ariaLabel)"""
OUTSIDE = """return [...document.querySelectorAll('svg.picture')].filter((one) => {
    const all = one.getBoundingClientRect();
    const own = [...one.querySelectorAll('path, rect, text')].map((part) => part.getBoundingClientRect());
    if ([...one.querySelectorAll('text')].some((text) => text.getBoundingClientRect().right > all.right)) return true;
    return own.some((part) => part.width + part.height > 0 && (part.left < all.left - 6 || part.right > all.right + 6
        || part.top < all.top - 6 || part.bottom > all.bottom + 6));
}).map((one) => one.getAttribute('aria-label'))"""


@pytest.mark.parametrize("size", [browsers.WIDE, browsers.PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_whole_and_asks_for_nothing(lab, browser: Browser, size: tuple[int, int], scheme: str) -> None:
    lab.text("--since", "10d")
    browser.open(lab.output.as_uri(), size, scheme)
    assert browser.run("return document.querySelectorAll('svg.picture').length") > 20
    assert browser.run("return document.scripts.length") == 0
    assert browser.run(TOO_WIDE, size[0]) == []
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]
    assert browser.run(OUTSIDE) == []
    assert browser.complaints() == []
    assert browser.hosts() == {""}  # the file itself


def test_what_comes_into_it_all_the_same_neither_runs_nor_is_fetched(lab, browser: Browser) -> None:
    text = lab.text("--since", "3d").replace(
        "<h2>", "<script>document.title = 'run'</script><img src='https://example.org/x.png'><h2>", 1
    )
    lab.output.write_text(text)
    browser.open(lab.output.as_uri())
    assert browser.run("return document.title") != "run"
    refused = [one for one in browser.complaints() if "Content Security Policy" in one]
    assert any("script" in one for one in refused)
    assert any("example.org/x.png" in one for one in refused)


def test_dark_is_another_page_than_light_and_paper_is_light(lab, browser: Browser) -> None:
    lab.text("--since", "3d")
    grounds = []
    for scheme in ("light", "dark"):
        browser.open(lab.output.as_uri(), scheme=scheme)
        grounds.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]
    ink = browser.run("return getComputedStyle(document.body).color")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert browser.run("return getComputedStyle(document.body).color") != ink
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_it_prints_and_no_table_is_cut(lab, browser: Browser) -> None:
    lab.text("--since", "5d")
    browser.open(lab.output.as_uri(), (720, 1000))
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert browser.run(CUT) == []
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    printed = base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF-")
    assert len(printed) > 50_000


def test_links_lead_to_the_experiments(lab, browser: Browser) -> None:
    lab.text("--since", "3d")
    browser.open(lab.output.as_uri())
    browser.find("#experiments tbody a").click()
    assert browser.run("return location.hash").startswith("#experiment-")
    top = browser.run("return document.querySelector(location.hash).getBoundingClientRect().top")
    assert 0 <= top < browsers.WIDE[1]


def test_tables_that_scroll_can_be_reached_by_keyboard(lab, browser: Browser) -> None:
    lab.text("--since", "3d")
    browser.open(lab.output.as_uri(), browsers.PHONE)
    lost = "return [...document.querySelectorAll('.scroll')].filter((one) => one.tabIndex !== 0 || !one.ariaLabel).length"
    assert browser.run(lost) == 0
