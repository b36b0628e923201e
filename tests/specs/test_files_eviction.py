"""What goes from the model cache, and what does not."""

from __future__ import annotations

import gc
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from aibenchd import errors, model, settings
from aibenchd.specs import eviction, files

LONG_AGO = 2 * eviction.RECENT_SECONDS  # seconds
SIZE = 100_000  # bytes, of each file


def benchmark(tmp_path: Path, name: str, **digests: str) -> model.Benchmark:
    """With one file of this host; ``digests`` in place of none."""
    source = tmp_path / "spec/net.json"
    source.parent.mkdir(exist_ok=True)
    (source.parent / name).write_bytes(body(name))
    file = {"filename": f"{name}.pb", "location": name, **digests}
    whole = {"name": "net", "format": "caffe2", "files": {"predict": file}}
    return model.Benchmark(whole, {"metric": "delay", "commands": ["x"]}, str(source))


def body(name: str) -> bytes:
    return name.encode().ljust(SIZE, b".")


def sha256(name: str) -> str:
    return hashlib.sha256(body(name)).hexdigest()


def cache(tmp_path: Path, **chosen: Any) -> files.ModelCache:
    return files.ModelCache(settings.ModelCacheSettings(**{"cache_size": "250kB", **chosen}), tmp_path / "cache")


async def fetched(tmp_path: Path, *names: str) -> None:
    """In the cache, in nobody's hands, last used long ago: the first before the second."""
    for place, name in enumerate(names):
        await cache(tmp_path).ensure(benchmark(tmp_path, name))
        used(tmp_path, name, LONG_AGO - place)
    gc.collect()


def used(tmp_path: Path, name: str, seconds_ago: float) -> None:
    when = time.time() - seconds_ago
    os.utime(tmp_path / "cache/.content/used" / sha256(name), (when, when))


def left(tmp_path: Path) -> set[str]:
    kept = {path.name for path in (tmp_path / "cache/.content/sha256").iterdir()}
    return {name for name in "abcdef" if sha256(name) in kept}


def links(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_symlink()]


async def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    await fetched(tmp_path, "a", "b", "c", "d")
    models = cache(tmp_path)
    assert await models.excess() == 150_000
    assert await models.trim([]) == 0
    assert (left(tmp_path), await models.excess()) == ({"c", "d"}, 0)


async def test_a_file_that_is_asked_for_again_is_not_the_least_recently_used(tmp_path: Path) -> None:
    await fetched(tmp_path, "a", "b", "c", "d")
    await cache(tmp_path).ensure(benchmark(tmp_path, "a"))
    await cache(tmp_path).trim([])
    assert left(tmp_path) == {"a", "d"}


async def test_nothing_goes_while_all_is_small_enough(tmp_path: Path) -> None:
    await fetched(tmp_path, "a", "b")
    assert await cache(tmp_path).trim([]) == 0
    assert left(tmp_path) == {"a", "b"}


async def test_what_somebody_has_in_hand_stays_and_goes_when_it_is_let_go(tmp_path: Path) -> None:
    await fetched(tmp_path, "a", "b", "c")
    models = cache(tmp_path, cache_size="1kB")
    held = await models.ensure(benchmark(tmp_path, "b"))
    used(tmp_path, "b", LONG_AGO)
    assert await models.trim([]) == SIZE - 1000
    assert (left(tmp_path), held.unchanged()) == ({"b"}, True)
    del held
    gc.collect()
    assert await models.trim([]) == 0
    assert left(tmp_path) == set()


async def test_what_was_used_within_the_hour_stays(tmp_path: Path) -> None:
    await fetched(tmp_path, "a", "b")
    used(tmp_path, "a", eviction.RECENT_SECONDS / 2)
    assert await cache(tmp_path, cache_size="1kB").trim([]) == SIZE - 1000
    assert left(tmp_path) == {"a"}


@pytest.mark.parametrize("digest", ["none", "sha256", "md5"])
async def test_what_experiments_need_stays(tmp_path: Path, digest: str) -> None:
    given = {"sha256": {"sha256": sha256("a")}, "md5": {"md5": hashlib.md5(body("a")).hexdigest()}, "none": {}}[digest]
    needed = benchmark(tmp_path, "a", **given)
    await cache(tmp_path).ensure(needed)
    used(tmp_path, "a", 2 * LONG_AGO)
    await fetched(tmp_path, "b")
    assert await cache(tmp_path, cache_size="1kB").trim([needed]) == SIZE - 1000
    assert left(tmp_path) == {"a"}


async def test_a_file_that_went_is_fetched_again(tmp_path: Path) -> None:
    await fetched(tmp_path, "a", "b", "c")
    await cache(tmp_path, cache_size="0B").trim([])
    assert left(tmp_path) == set()
    found = await cache(tmp_path).ensure(benchmark(tmp_path, "a"))
    assert found.files["predict"].path.read_bytes() == body("a")


async def test_a_directory_goes_as_a_whole(tmp_path: Path) -> None:
    benchmark(tmp_path, "a")
    (tmp_path / "spec/tree").mkdir()
    (tmp_path / "spec/tree/b").write_bytes(body("b"))
    (tmp_path / "spec/tree/c").write_bytes(body("c"))
    file = {"filename": "tree", "location": "tree"}
    whole = {"name": "net", "format": "caffe2", "files": {"predict": file}}
    source = str(tmp_path / "spec/net.json")
    models = cache(tmp_path, cache_size="150kB")
    digest = (await models.ensure(model.Benchmark(whole, {"metric": "delay", "commands": ["x"]}, source))).files["predict"].digest
    gc.collect()
    mark = tmp_path / "cache/.content/used" / digest
    os.utime(mark, (1, 1))
    assert await models.excess() == 50_000
    assert await models.trim([]) == 0
    assert list((tmp_path / "cache/.content/sha256").iterdir()) == []


async def test_links_to_what_is_gone_go_too_and_nothing_else(tmp_path: Path) -> None:
    await cache(tmp_path).ensure(benchmark(tmp_path, "a", md5=hashlib.md5(body("a")).hexdigest()))
    await fetched(tmp_path, "a", "b")
    mine = tmp_path / "cache/caffe2/mine"
    mine.symlink_to("nowhere")
    (tmp_path / "cache/caffe2/net/notes").write_text("a person's")
    assert len(links(tmp_path)) == 6  # md5, seen and view of a; seen and view of b; mine
    (tmp_path / "cache/.content/sha256" / sha256("a")).unlink()
    await cache(tmp_path).trim([])
    assert sorted(path.name for path in links(tmp_path)) == sorted(["b.pb", "mine", hashed(tmp_path / "spec/b")])
    assert [path.name for path in (tmp_path / "cache/.content/used").iterdir()] == [sha256("b")]
    assert (tmp_path / "cache/caffe2/net/notes").exists()


def hashed(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()


async def test_directories_that_are_empty_by_that_go_after_an_hour(tmp_path: Path) -> None:
    await fetched(tmp_path, "a")
    (tmp_path / "cache/.content/sha256" / sha256("a")).unlink()
    await cache(tmp_path).trim([])
    net = tmp_path / "cache/caffe2/net"
    assert net.is_dir()  # a link may be on its way there
    os.utime(net, (1, 1))
    await cache(tmp_path).trim([])
    assert not net.exists()


async def test_downloads_that_nobody_goes_on_with_go_after_a_week(tmp_path: Path) -> None:
    partial = tmp_path / "cache/.content/partial"
    (partial / "tree.d").mkdir(parents=True)
    (partial / "tree.d/weights").write_bytes(b"x")
    (tmp_path / "generate/crashed/output").mkdir(parents=True)
    for name in ("old", "new"):
        (partial / name).write_bytes(b"x")
    for path in (partial / "old", partial / "tree.d", tmp_path / "generate/crashed"):
        os.utime(path, (1, 1))
    await cache(tmp_path).trim([])
    assert [path.name for path in partial.iterdir()] == ["new"]
    assert list((tmp_path / "generate").iterdir()) == []


async def test_an_experiment_that_an_older_version_planned_and_this_one_does_not_understand_needs_nothing(tmp_path: Path) -> None:
    await fetched(tmp_path, "a", "b")
    odd = model.Benchmark({"name": "net", "files": {"a": {"filename": 7}}}, {"metric": "delay", "commands": ["x"]}, "/net.json")
    assert await cache(tmp_path, cache_size="0B").trim([odd]) == 0
    assert left(tmp_path) == set()


async def test_a_cache_that_is_not_there_has_nothing_to_let_go(tmp_path: Path) -> None:
    assert (await cache(tmp_path).excess(), await cache(tmp_path).trim([])) == (0, 0)
    assert not (tmp_path / "cache").exists()


async def test_a_file_that_is_larger_than_the_cache_can_be_used_all_the_same(tmp_path: Path) -> None:
    models = cache(tmp_path, cache_size="1kB")
    found = await models.ensure(benchmark(tmp_path, "a"))
    assert await models.trim([]) == SIZE - 1000
    assert found.unchanged()
    with pytest.raises(errors.ModelFileError, match=r"models\.max_file_size"):
        await cache(tmp_path, max_file_size="1kB").ensure(benchmark(tmp_path, "b"))
