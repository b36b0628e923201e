import contextlib
import os
import shutil
import signal
from datetime import UTC, datetime

import anyio
import pytest

from aibenchd import errors


async def every(line):
    async with contextlib.aclosing(line) as revisions:
        return [revision async for revision in revisions]


async def test_history_is_the_first_parent_line_newest_first(hg_remote, hg_clone):
    root = hg_remote.commit("root")
    hg_remote("branch", "side")
    side = hg_remote.commit("side", other="x")
    hg_remote("update", "--quiet", "default")
    second = hg_remote.commit("second\nbody", third="x")
    hg_remote("merge", "--quiet", "side")
    merge = hg_remote.commit("merge")
    repository = hg_clone(hg_remote.url)
    assert await repository.fetch() == merge
    line = await every(repository.history(merge))
    assert [(one.commit, one.position, one.subject) for one in line] == [
        (merge, 3, "merge"),
        (second, 2, "second"),
        (root, 1, "root"),
    ]
    assert (line[0].parents, line[2].parents) == ((second, side), ())
    assert line[1].time == datetime.fromtimestamp(1_700_000_180, UTC)
    assert (line[1].author, line[1].repository) == ("Ada <ada@example.org>", "engine")
    assert [one.commit for one in await every(repository.history(merge, after=root))] == [merge, second]
    assert not await repository.on_line(merge, side)
    assert await repository.on_line(merge, root)
    assert not await repository.on_line(root, merge)
    assert not await repository.on_line(merge, "1" * 40)
    with pytest.raises(errors.UnknownRevisionError):
        await every(repository.history("1" * 40))


async def test_path_filters_see_what_a_merge_brought_in(hg_remote, hg_clone):
    hg_remote.commit("root", docs__a="x")
    hg_remote.commit("code", src__deep__a="x")
    hg_remote.commit("tests", src__tests__c="x")
    hg_remote("branch", "side")
    hg_remote.commit("side", src__d="x")
    hg_remote("update", "--quiet", "default")
    hg_remote.commit("docs", docs__c="x")
    hg_remote("merge", "--quiet", "side")
    hg_remote.commit("merge", docs__c="y")
    repository = hg_clone(hg_remote.url, paths={"include": ["src/**"], "exclude": ["src/tests/"]})
    line = await every(repository.history(await repository.fetch()))
    assert [one.subject for one in line if one.relevant] == ["merge", "code"]


async def test_odd_words(hg_remote, hg_clone):
    hg_remote.commit('é "quoted" \\ \N{SNOWMAN}', **{"with space": "x", "tab\t": "x"})
    repository = hg_clone(hg_remote.url, paths={"include": ["tab\t"]})
    (revision,) = await every(repository.history(await repository.fetch()))
    assert revision.subject == 'é "quoted" \\ \N{SNOWMAN}'
    assert revision.relevant


async def test_branch_is_a_bookmark_or_a_named_branch(hg_remote, hg_clone):
    root = hg_remote.commit("root")
    hg_remote("bookmark", "--inactive", "stable")
    head = hg_remote.commit("head")
    repository = hg_clone(hg_remote.url, branch="stable")
    assert await repository.fetch() == root
    hg_remote("bookmark", "--force", "--inactive", "--rev", head, "stable")
    assert await repository.fetch() == head
    hg_remote("bookmark", "--force", "--inactive", "--rev", root, "stable")
    assert await repository.fetch() == root
    hg_remote("bookmark", "--delete", "stable")
    hg_remote("bookmark", "--inactive", "next")
    with pytest.raises(errors.UnknownRevisionError, match=r"no bookmark or branch 'stable'.*next.*default"):
        await repository.fetch()
    hg_remote("branch", "stable")
    named = hg_remote.commit("named")
    assert await repository.fetch() == named


async def test_resolve(hg_remote, hg_clone):
    first = hg_remote.commit("first")
    hg_remote("bookmark", "--inactive", "mark")
    hg_remote("tag", "--user", "Ada", "v1")
    second = hg_remote("identify", "--template", "{node}", "--rev", "tip")
    repository = hg_clone(hg_remote.url)
    await repository.fetch()
    for name, commit in (("mark", first), (first[:9], first), ("default", second)):
        assert (await repository.resolve(name)).commit == commit
    assert (await repository.resolve("v1")).position == 1
    for name in ("nope", "", "0000000", "-1", "all()", 'x"', "\0"):
        with pytest.raises(errors.UnknownRevisionError):
            await repository.resolve(name)


async def test_a_stripped_head_is_followed_and_kept(hg_remote, hg_clone, tmp_path):
    root = hg_remote.commit("root")
    lost = hg_remote.commit("lost")
    repository = hg_clone(hg_remote.url)
    assert await repository.fetch() == lost
    hg_remote("strip", "--quiet", "--no-backup", lost)
    assert await repository.fetch() == root
    new = hg_remote.commit("new")
    assert await repository.fetch() == new
    assert not await repository.on_line(new, lost)
    await repository.check_out(lost, tmp_path / "tree")
    assert (tmp_path / "tree/file").read_text().startswith("lost")


async def test_work_trees(hg_remote, hg_clone, tmp_path):
    first = hg_remote.commit("first", a__b="1")
    second = hg_remote.commit("second", a__b="2")
    repository = hg_clone(hg_remote.url)
    async with anyio.create_task_group() as group:
        group.start_soon(repository.check_out, first, tmp_path / "one")
        group.start_soon(repository.check_out, second, tmp_path / "two")
    assert [(tmp_path / tree / "a/b").read_text() for tree in ("one", "two")] == ["1", "2"]
    (tmp_path / "one/leftover").write_text("x")
    await repository.check_out(second, tmp_path / "one")
    assert not (tmp_path / "one/leftover").exists()
    for tree in ("one", "two"):
        await repository.discard(tmp_path / tree)
        assert not (tmp_path / tree).exists()
    with pytest.raises(errors.UnknownRevisionError):
        await repository.check_out("1" * 40, tmp_path / "one")
    assert not (tmp_path / "one").exists()


async def test_subrepositories(new_hg_remote, hg_clone, tmp_path):
    outer, inner = new_hg_remote("outer"), new_hg_remote("outer/inner")
    inner.commit("inner", deep="inner")
    commit = outer.commit("outer", **{".hgsub": "inner = inner\n"})
    await hg_clone(outer.url).check_out(commit, tmp_path / "tree")
    assert (tmp_path / "tree/inner/deep").read_text() == "inner"


DIE_WHILE_PULLING = """
import os, signal, sys
from mercurial import extensions, transaction
def uisetup(ui):
    def close(original, self):
        os.kill(os.getpid(), signal.SIGKILL)
    extensions.wrapfunction(transaction.transaction, "close", close)
"""


async def test_a_pull_that_was_killed_is_rolled_back(hg_remote, hg_clone, tmp_path):
    hg_remote.commit("first")
    repository = hg_clone(hg_remote.url)
    await repository.fetch()
    head = hg_remote.commit("second")
    mirror = tmp_path / "clone of it/mirror"
    (tmp_path / "die.py").write_text(DIE_WHILE_PULLING)
    command = ["hg", "--config", f"extensions.die={tmp_path / 'die.py'}", "--repository", str(mirror), "pull", hg_remote.url]
    dead = await anyio.run_process(command, check=False, env={**os.environ, "HGRCPATH": "/dev/null"})
    assert dead.returncode == -signal.SIGKILL
    assert (mirror / ".hg/store/journal").exists()
    assert await repository.fetch() == head


@pytest.mark.parametrize("damage", ["half cloned", "store cut short", "journal cut short"])
async def test_a_damaged_clone_is_made_anew(hg_remote, hg_clone, tmp_path, damage):
    hg_remote.commit("first")
    repository = hg_clone(hg_remote.url)
    mirror = tmp_path / "clone of it/mirror"
    if damage == "half cloned":
        (mirror.with_name("mirror.partial") / ".hg").mkdir(parents=True)
    else:
        await repository.fetch()
    if damage == "store cut short":
        for index in mirror.glob(".hg/store/00*.i"):
            os.truncate(index, 10)
    if damage == "journal cut short":
        (mirror / ".hg/store/journal").write_bytes(b"00changelog.i")
    head = hg_remote.commit("second")
    assert await repository.fetch() == head
    assert (await repository.resolve(head)).position == 2


async def test_a_fetch_that_is_cancelled_leaves_a_clone_that_works(hg_remote, hg_clone, tmp_path):
    head = hg_remote.commit()
    repository = hg_clone(hg_remote.url)
    for tenths in range(1, 8, 2):
        with anyio.move_on_after(tenths / 10):
            await repository.fetch()
    assert await repository.fetch() == head
    with anyio.move_on_after(0.2):
        await repository.check_out(head, tmp_path / "tree")
    await repository.check_out(head, tmp_path / "tree")


async def test_a_remote_that_vanishes_and_returns(hg_remote, hg_clone):
    head = hg_remote.commit()
    repository = hg_clone(hg_remote.url)
    away = hg_remote.path.rename(hg_remote.path.with_name("away"))
    with pytest.raises(errors.RemoteUnreachableError, match="not found"):
        await repository.fetch()
    away.rename(hg_remote.path)
    assert await repository.fetch() == head
    hg_remote.path.rename(away)
    with pytest.raises(errors.RemoteUnreachableError, match="not found"):
        await repository.fetch()
    assert (await repository.resolve(head)).commit == head


async def test_another_repository_at_the_same_url(hg_remote, hg_clone, new_hg_remote):
    hg_remote.commit("one")
    repository = hg_clone(hg_remote.url)
    await repository.fetch()
    hg_remote.close()
    shutil.rmtree(hg_remote.path)
    head = new_hg_remote(hg_remote.path.name).commit("two")
    assert await repository.fetch() == head


async def test_hg_is_not_installed(hg_clone, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(errors.HarnessError, match="hg is not installed"):
        await hg_clone("file:///x").fetch()


async def test_what_a_merge_brought_in_is_a_line_from_the_merge_base_on(hg_remote, hg_clone):
    root = hg_remote.commit("root")
    hg_remote.commit("before", before="1")
    hg_remote("bookmark", "side")
    hg_remote("update", "--quiet", root)
    second = hg_remote.commit("second", docs__second="x")
    hg_remote("update", "--quiet", "side")
    hg_remote("merge", "--quiet", "--rev", second)
    taken = hg_remote.commit("take the branch in", taken="x")
    hg_remote.commit("after", after="2")
    hg_remote("update", "--quiet", second)
    third = hg_remote.commit("third", third="x")
    hg_remote("merge", "--quiet", "--rev", "side")
    merge = hg_remote.commit("merge", merge="x")
    repository = hg_clone(hg_remote.url, paths={"exclude": ["docs/**"]})
    await repository.fetch()
    (line,) = await repository.sides(merge, third, 100)
    assert [(one.subject, one.relevant) for one in line] == [("second", False), ("take the branch in", True), ("after", True)]
    assert [[one.subject for one in side] for side in await repository.sides(taken, second, 100)] == [["root", "before"]]
    assert [[one.subject for one in side] for side in await repository.sides(merge, third, 1)] == [["second", "after"]]
    assert await repository.sides(second, root, 100) == []
