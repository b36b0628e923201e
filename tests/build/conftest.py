"""What build scripts are run on."""

from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository's working tree, empty yet."""
    directory = tmp_path / "a source"
    directory.mkdir()
    return directory


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Where a script is to leave the program; its directory is there."""
    (tmp_path / "an output").mkdir()
    return tmp_path / "an output/benchmark"
