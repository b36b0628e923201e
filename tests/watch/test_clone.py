import stat

import anyio
import pytest

from aibenchd import errors
from aibenchd.watch import clone


def nothing():
    pass


async def test_the_directory_is_swept_once_per_process(tmp_path):
    swept = []
    held = clone.at(tmp_path / "clone")
    assert clone.at(tmp_path / "clone") is held
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(held.hold, lambda: swept.append(1))
    assert swept == [1]


async def test_a_sweep_that_fails_is_tried_again(tmp_path):
    held = clone.at(tmp_path / "clone")

    def fail():
        raise OSError(28, "No space left on device", str(tmp_path))

    with pytest.raises(errors.HarnessError, match="No space left"):
        await held.hold(fail)
    await held.hold(nothing)


async def test_a_directory_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.HarnessError, match="file/clone"):
        await clone.at(tmp_path / "file/clone").hold(nothing)


async def test_small_files_are_the_daemons_alone(tmp_path):
    held = clone.at(tmp_path)
    held.put(tmp_path / "gitconfig", "one")
    before = (tmp_path / "gitconfig").stat()
    held.put(tmp_path / "gitconfig", "one")
    assert (tmp_path / "gitconfig").stat().st_mtime_ns == before.st_mtime_ns
    held.put(tmp_path / "gitconfig", "two")
    assert (tmp_path / "gitconfig").read_text() == "two"
    assert stat.S_IMODE(before.st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "gitconfig"]
    with pytest.raises(errors.HarnessError, match="nowhere"):
        held.put(tmp_path / "nowhere/gitconfig", "x")
