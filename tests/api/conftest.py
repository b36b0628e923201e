"""What the tests of the status socket share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import statusd


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[statusd.Daemon]:
    async with statusd.serving(tmp_path) as serving:
        yield serving
