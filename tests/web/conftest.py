"""What the tests of the dashboard share: one, over a journal of some weeks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pastweeks
import pytest


@pytest.fixture
async def dashboard(tmp_path: Path) -> AsyncIterator[pastweeks.Dashboard]:
    async with pastweeks.serving(tmp_path) as serving:
        yield serving


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A browser's manners without the browser: it keeps cookies, and follows nothing by itself."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), headers={"Accept": "text/html"}) as session:
        yield session
