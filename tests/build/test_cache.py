from __future__ import annotations

import errno
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aibenchd import digests, errors, model
from aibenchd.build import cache
from aibenchd.store import builds

PROGRAM = "generic_benchmark"
LIMIT = 1 << 20
FIRST = model.Revision("engine", "c" * 40, datetime(2026, 2, 3, tzinfo=UTC))
SECOND = model.Revision("engine", "d" * 40, datetime(2026, 2, 4, tzinfo=UTC))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """What a build left: a program that nobody made executable, and a library below."""
    directory = tmp_path / "output"
    (directory / "lib").mkdir(parents=True)
    (directory / PROGRAM).write_text("#!/bin/sh\n")
    (directory / "lib/data.txt").write_text("data")
    return directory


@pytest.fixture
def kept(tmp_path: Path) -> cache.Cache:
    return cache.Cache(tmp_path / "builds")


def _entry(**changes: object) -> builds.Entry:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    facts = {
        "id": 1,
        "repository": "engine",
        "commit": "c" * 40,
        "framework": "generic",
        "platform": "host",
        "copy": 0,
        "state": "building",
    }
    product = {"priority": 0, "digest": "", "directory": "", "program": "", "size": 0, "log": "", "reason": "", "meta": {}}
    times = {"queued_at": now, "started_at": now, "finished_at": None, "used_at": None}
    return builds.Entry(**{**facts, **product, **times, **changes})  # type: ignore[arg-type]


def test_a_build_is_copied_whole_and_its_program_made_executable(kept: cache.Cache, output: Path) -> None:
    staged = kept.stage(output, PROGRAM, LIMIT, "slot-0")
    assert os.access(staged.directory / PROGRAM, os.X_OK)
    assert (staged.directory / "lib/data.txt").read_text() == "data"
    assert staged.size == len("#!/bin/sh\n") + len("data")
    assert staged.digest == digests.of_tree(staged.directory)


def test_the_copy_does_not_change_with_what_the_build_left(kept: cache.Cache, output: Path) -> None:
    os.link(output / "lib/data.txt", output / "lib/again.txt")
    staged = kept.stage(output, PROGRAM, LIMIT, "slot-0")
    (output / "lib/again.txt").write_text("tampered")
    assert digests.of_tree(staged.directory) == staged.digest


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o640])
def test_the_digest_does_not_depend_on_the_umask(kept: cache.Cache, output: Path, mode: int) -> None:
    before = kept.stage(output, PROGRAM, LIMIT, "slot-0").digest
    (output / "lib/data.txt").chmod(mode)
    assert kept.stage(output, PROGRAM, LIMIT, "slot-0").digest == before


def test_an_executable_bit_is_part_of_the_digest(kept: cache.Cache, output: Path) -> None:
    before = kept.stage(output, PROGRAM, LIMIT, "slot-0").digest
    (output / "lib/data.txt").chmod(0o755)
    assert kept.stage(output, PROGRAM, LIMIT, "slot-0").digest != before


def test_relative_links_inside_are_kept(kept: cache.Cache, output: Path) -> None:
    (output / PROGRAM).rename(output / "lib/real")
    (output / PROGRAM).symlink_to("lib/real")
    (output / "lib/up").symlink_to("../lib/data.txt")
    staged = kept.stage(output, PROGRAM, LIMIT, "slot-0")
    assert (staged.directory / PROGRAM).is_symlink()
    assert os.access(staged.directory / "lib/real", os.X_OK)


@pytest.mark.parametrize(
    "text",
    ["/etc/passwd", "../../secret", "../../output/lib/data.txt", "hop/../../secret"],
    ids=["absolute", "above", "out and in again", "through another link"],
)
def test_a_link_that_leads_out_is_refused(kept: cache.Cache, output: Path, text: str) -> None:
    (output / "lib/hop").symlink_to(".")
    (output / "lib/link").symlink_to(text)
    with pytest.raises(errors.BuildError, match=r"the link lib/link leads out"):
        kept.stage(output, PROGRAM, LIMIT, "slot-0")


def test_a_program_that_is_a_link_to_the_outside_is_refused(kept: cache.Cache, output: Path) -> None:
    (output / PROGRAM).unlink()
    (output / PROGRAM).symlink_to("/bin/true")
    with pytest.raises(errors.BuildError, match=f"the link {PROGRAM} leads out"):
        kept.stage(output, PROGRAM, LIMIT, "slot-0")


def test_a_missing_program_is_said(kept: cache.Cache, output: Path) -> None:
    (output / PROGRAM).unlink()
    with pytest.raises(errors.BuildError, match=f"did not make {PROGRAM}"):
        kept.stage(output, PROGRAM, LIMIT, "slot-0")


def test_a_directory_is_no_program(kept: cache.Cache, output: Path) -> None:
    (output / PROGRAM).unlink()
    (output / PROGRAM).mkdir()
    with pytest.raises(errors.BuildError, match=f"{PROGRAM} is no file"):
        kept.stage(output, PROGRAM, LIMIT, "slot-0")


def test_a_pipe_is_refused_and_not_waited_for(kept: cache.Cache, output: Path) -> None:
    os.mkfifo(output / "lib/pipe")
    with pytest.raises(errors.BuildError, match="lib/pipe is neither a file"):
        kept.stage(output, PROGRAM, LIMIT, "slot-0")


def test_a_build_larger_than_the_cache_is_refused_before_it_is_copied(kept: cache.Cache, output: Path) -> None:
    os.truncate(output / "lib/data.txt", 1 << 40)  # sparse: nobody has so much
    with pytest.raises(errors.BuildError, match=r"more than builds\.cache_size"):
        kept.stage(output, PROGRAM, LIMIT, "slot-0")


def test_a_refused_build_leaves_nothing(kept: cache.Cache, output: Path) -> None:
    os.mkfifo(output / "lib/pipe")
    with pytest.raises(errors.BuildError):
        kept.stage(output, PROGRAM, LIMIT, "slot-0")
    assert not list((kept.directory / cache.INCOMING).iterdir())


def test_a_full_disk_is_not_the_revisions_fault(kept: cache.Cache, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(errors.HarnessError, match="No space left on device; look at the disk"):
        kept.stage(output, PROGRAM, LIMIT, "slot-0")
    assert not list((kept.directory / cache.INCOMING).iterdir())


def test_a_settled_build_takes_the_place_of_what_was_there(kept: cache.Cache, output: Path) -> None:
    place = kept.place(_entry(), FIRST)
    place.mkdir(parents=True)
    (place / "left by a crash").touch()
    kept.settle(kept.stage(output, PROGRAM, LIMIT, "slot-0"), place)
    assert sorted(path.name for path in place.iterdir()) == [PROGRAM, "lib"]


def test_the_layout_is_by_the_day_of_the_commit_in_utc(kept: cache.Cache) -> None:
    late = model.Revision("engine", "c" * 40, datetime.fromisoformat("2026-02-03T23:30:00-05:00"))
    place = kept.place(_entry(platform="android/arm64"), late)
    assert place == kept.directory / "engine/generic/android/arm64/2026/02/04" / ("c" * 40)


def test_one_commit_in_two_repositories_has_two_places(kept: cache.Cache) -> None:
    assert kept.place(_entry(), FIRST) != kept.place(_entry(repository="fork"), FIRST)


def test_removal_takes_empty_days_along_but_nothing_of_others(kept: cache.Cache) -> None:
    first, second = kept.place(_entry(), FIRST), kept.place(_entry(), SECOND)
    for place in (first, second):
        place.mkdir(parents=True)
    kept.remove([str(first)])
    assert not first.parent.exists()
    assert second.is_dir()


def test_removal_touches_nothing_outside(kept: cache.Cache, output: Path) -> None:
    kept.remove([str(output), ""])
    assert (output / PROGRAM).exists()


def test_a_sweep_removes_what_is_unknown_and_names_what_is_gone(kept: cache.Cache, output: Path) -> None:
    known = kept.place(_entry(), FIRST)
    kept.settle(kept.stage(output, PROGRAM, LIMIT, "slot-0"), known)
    kept.stage(output, PROGRAM, LIMIT, "slot-1")
    unknown = known.with_name("d" * 40)
    unknown.mkdir()
    gone = known.with_name("e" * 40)
    assert kept.sweep([str(known), str(gone), str(output)]) == {str(gone), str(output)}
    assert (known / PROGRAM).exists()
    assert not unknown.exists()
    assert not (kept.directory / cache.INCOMING).exists()
    assert (output / PROGRAM).exists()


def test_a_sweep_of_a_cache_that_is_not_there_finds_all_gone(kept: cache.Cache) -> None:
    assert kept.sweep(["/nowhere"]) == {"/nowhere"}
