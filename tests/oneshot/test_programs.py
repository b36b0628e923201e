from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import trees

from aibenchd import errors, settings
from aibenchd.oneshot import programs

CHOSEN = settings.RepositorySettings(name="p", url=".", framework="generic")


def made(directory: Path, **given: programs.Given) -> programs.Programs:
    return programs.Programs(CHOSEN, directory / "kept", given)


async def checked_out(repository: programs.Programs, commit: str, target: Path) -> dict[str, str]:
    await repository.check_out(commit, target)
    return {path.name: path.read_text() for path in target.iterdir()}


async def test_a_file_is_kept_as_it_was_when_it_was_named(tmp_path: Path) -> None:
    trees.write(tmp_path, {"new": "#!one", "helper": "#!other"})
    repository = made(tmp_path, a=programs.Given(tmp_path / "new", others={"convert": tmp_path / "helper"}))
    revision = await repository.resolve("a")
    (tmp_path / "new").write_text("#!two")
    assert await repository.resolve(revision.commit) == revision
    assert await checked_out(repository, revision.commit, tmp_path / "out") == {
        "generic_benchmark": "#!one",
        "convert": "#!other",
    }
    await repository.discard(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (await repository.resolve("a")).commit != revision.commit


async def test_a_directory_is_taken_whole(tmp_path: Path) -> None:
    trees.write(tmp_path / "build", {"engine": "#!run", "lib.so": "data"})
    repository = made(tmp_path, a=programs.Given(tmp_path / "build"))
    revision = await repository.resolve("a")
    found = await checked_out(repository, revision.commit, tmp_path / "out")
    assert found == {"generic_benchmark": "#!run", "engine": "#!run", "lib.so": "data"}


@pytest.mark.parametrize(("names", "said"), [((), "no executable"), (("a", "b"), r"several executables \(a, b\)")])
async def test_the_program_of_a_directory_must_be_clear(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    trees.write(tmp_path / "build", {"data": "x"} | dict.fromkeys(names, "#!x"))
    with pytest.raises(errors.CommandError, match=said):
        await made(tmp_path, a=programs.Given(tmp_path / "build")).resolve("a")


async def test_what_reports_say_of_it_may_be_given(tmp_path: Path) -> None:
    trees.write(tmp_path, {"new": "#!one"})
    when = datetime(2026, 1, 2, tzinfo=UTC)
    revision = await made(tmp_path, a=programs.Given(tmp_path / "new", commit="c" * 40, time=when)).resolve("a")
    assert (revision.commit, revision.time) == ("c" * 40, when)


async def test_others_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(errors.UnknownRevisionError):
        await made(tmp_path).resolve("a")
    with pytest.raises(errors.CommandError, match="No such file"):
        await made(tmp_path, a=programs.Given(tmp_path / "gone")).resolve("a")
