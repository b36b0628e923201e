"""A real Chromium, as Debian packages it, driven from a thread. What it complained of and what it asked for is kept."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = "needs Debian's chromium and chromium-driver: apt-get install --no-install-recommends chromium chromium-driver"
WIDE, PHONE = (1360, 900), (390, 844)
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
WAIT = 40.0  # seconds for what must come, on a machine that is busy


class Browser:
    """One window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str, size: tuple[int, int] = WIDE, scheme: str = "light") -> None:
        """Show a page as a screen of that size does, with the colours that its owner prefers."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        preferred = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": preferred})
        self.driver.get(address)

    def forget(self) -> None:
        """Show nothing."""
        self.driver.get("about:blank")
        self.driver.delete_all_cookies()
        self.complaints(), self.hosts()

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def until(self, script: str) -> Any:
        """Wait until an expression is true of the page; its value."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, WAIT).until(lambda _: self.run(f"return {script}"))

    def press(self, *keys: str) -> None:
        """Type, wherever the focus is; keys by their names."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        chain = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(getattr(Keys, key, key))
        chain.perform()

    def complaints(self) -> list[str]:
        """What the console said that is worse than a note, since it was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def hosts(self) -> set[str]:
        """All that something was asked of since it was asked last."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "chrome:"))}


@contextlib.contextmanager
def opened() -> Iterator[Browser]:
    """A browser; skips where there is none. Blocking."""
    if not (CHROMIUM and DRIVER):
        pytest.skip(MISSING)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with opened() as one:
        yield one


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """One that shows nothing yet, and nothing of this test's any more when what it showed goes."""
    yield chromium
    chromium.forget()
