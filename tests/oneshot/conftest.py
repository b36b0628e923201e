from pathlib import Path

import desk
import pytest


@pytest.fixture
def at_desk(tmp_path: Path) -> desk.Desk:
    return desk.Desk(tmp_path)
