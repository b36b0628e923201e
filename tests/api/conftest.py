"""What the tests of the status socket share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import statusd

from aibenchd.api import asks


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[statusd.Daemon]:
    monkeypatch.setattr(asks, "SETTLE_SECONDS", 0.01)  # no planner runs here
    async with statusd.serving(tmp_path) as serving:
        yield serving
