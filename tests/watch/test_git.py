import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from aibenchd import errors
from aibenchd.watch import clone


async def every(line):
    async with contextlib.aclosing(line) as revisions:
        return [revision async for revision in revisions]


async def test_fetch_follows_the_branch(git_remote, git_clone):
    first = git_remote.commit()
    repository = git_clone(git_remote.url)
    assert await repository.fetch() == first
    second = git_remote.commit()
    assert await repository.fetch() == second


async def test_a_relative_or_plain_path_is_a_remote_too(git_remote, git_clone, monkeypatch):
    head = git_remote.commit()
    monkeypatch.chdir(git_remote.path.parent)
    assert await git_clone(str(git_remote.path)).fetch() == head
    assert await git_clone(git_remote.path.name, "other").fetch() == head


async def test_history_is_the_first_parent_line_newest_first(git_remote, git_clone):
    root = git_remote.commit("root")
    git_remote("checkout", "--quiet", "-b", "side")
    side = git_remote.commit("side", other="x")
    git_remote("checkout", "--quiet", "main")
    second = git_remote.commit("second")
    git_remote("merge", "--quiet", "--no-ff", "--message", "merge", "side")
    merge = git_remote("rev-parse", "HEAD")
    repository = git_clone(git_remote.url)
    line = await every(repository.history(await repository.fetch()))
    assert [(one.commit, one.position, one.subject) for one in line] == [
        (merge, 3, "merge"),
        (second, 2, "second"),
        (root, 1, "root"),
    ]
    assert line[0].parents == (second, side)
    assert line[2].parents == ()
    assert line[1].time == datetime.fromtimestamp(1_700_000_180, UTC)
    assert line[1].author == "Ada <ada@example.org>"
    assert line[1].repository == "engine"
    assert [one.commit for one in await every(repository.history(merge, after=root))] == [merge, second]
    assert not await repository.on_line(merge, side)
    assert await repository.on_line(merge, root)
    assert not await repository.on_line(root, merge)
    assert not await repository.on_line(merge, "0" * 40)


async def test_history_of_an_unknown_commit(git_remote, git_clone):
    git_remote.commit()
    repository = git_clone(git_remote.url)
    await repository.fetch()
    with pytest.raises(errors.UnknownRevisionError, match="0000"):
        await every(repository.history("0" * 40))


async def test_path_filters_see_what_changed_relative_to_the_first_parent(git_remote, git_clone):
    git_remote.commit("root", docs__a="x")
    git_remote.commit("code", src__deep__a="x")
    git_remote.commit("both", src__b="x", docs__b="x")
    git_remote.commit("tests", src__tests__c="x")
    git_remote("checkout", "--quiet", "-b", "side")
    git_remote.commit("side", src__d="x")
    git_remote("checkout", "--quiet", "main")
    git_remote.commit("docs", docs__c="x")
    git_remote("merge", "--quiet", "--no-ff", "--message", "merge", "side")
    git_remote.commit("empty", docs__c="x")
    repository = git_clone(git_remote.url, paths={"include": ["src/**"], "exclude": ["src/tests/"]})
    line = await every(repository.history(await repository.fetch()))
    assert [one.subject for one in line if one.relevant] == ["merge", "both", "code"]
    assert {one.subject for one in line if not one.relevant} == {"empty", "docs", "tests", "root"}
    every_one = git_clone(git_remote.url)
    assert all(one.relevant for one in await every(every_one.history(await every_one.fetch())))


async def test_odd_paths_subjects_and_authors(git_remote, git_clone):
    names = [b"a\nb", b"\nlead", b"with space", b"\xff\xfe", b"tab\t", b'"quoted"']
    for name in names:
        Path(os.fsdecode(os.fsencode(git_remote.path) + b"/" + name)).write_bytes(b"x")
    git_remote("add", "--all")
    tree = git_remote("write-tree")
    who = "J\udcf6rg <j@example.org> 1700000000 +0100"
    raw = f"tree {tree}\nauthor {who}\ncommitter {who}\n\ncaf\udce9 \x01\n\nbody"
    git_remote("update-ref", "refs/heads/main", git_remote("hash-object", "-w", "-t", "commit", "--stdin", text=raw))
    git_remote("commit", "--quiet", "--allow-empty", "--allow-empty-message", "--message", "")
    for glob, relevant in (
        ("a\nb", True),
        ("\nlead", True),
        ("lead", False),
        ("*space", True),
        (os.fsdecode(b"\xff*"), True),
        ("none", False),
    ):
        repository = git_clone(git_remote.url, paths={"include": [glob]})
        empty, odd = await every(repository.history(await repository.fetch()))
        assert odd.relevant is relevant, glob
        assert odd.author == "J\N{REPLACEMENT CHARACTER}rg <j@example.org>"
        assert odd.subject == "caf\N{REPLACEMENT CHARACTER} \x01"
        assert (empty.subject, empty.relevant) == ("", False)


async def test_the_users_and_the_hosts_configuration_change_nothing(git_remote, git_clone, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[log]\nshowSignature = true\ndecorate = full\n[color]\nui = always\n[format]\npretty = oneline\n"
        '[url "file:///nowhere"]\ninsteadOf = file://\n[core]\nhooksPath = /nowhere\n[diff]\nnoprefix = true\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    commit = git_remote.commit("subject")
    repository = git_clone(git_remote.url)
    line = await every(repository.history(await repository.fetch()))
    assert [(one.commit, one.subject) for one in line] == [(commit, "subject")]


async def test_resolve(git_remote, git_clone):
    first = git_remote.commit("first")
    git_remote("tag", "--annotate", "--message", "release", "v1")
    second = git_remote.commit("second")
    git_remote("branch", "topic/one")
    repository = git_clone(git_remote.url)
    await repository.fetch()
    for name, commit in (
        ("v1", first),
        (first, first),
        (first[:9], first),
        ("main", second),
        ("topic/one", second),
    ):
        revision = await repository.resolve(name)
        assert (revision.commit, revision.repository) == (commit, "engine")
    assert (await repository.resolve("v1")).position == 1
    for name in ("nope", "", "-x", "--all", "a b", "\0", "0" * 7):
        with pytest.raises(errors.UnknownRevisionError):
            await repository.resolve(name)


async def test_a_commit_that_no_branch_leads_to_is_asked_for_by_its_id(git_remote, git_clone):
    git_remote.commit("main")
    git_remote("checkout", "--quiet", "--detach")
    request = git_remote.commit("request")
    git_remote("update-ref", "refs/pull/1/head", request)
    git_remote("checkout", "--quiet", "main")
    repository = git_clone(git_remote.url)
    await repository.fetch()
    assert (await repository.resolve(request)).subject == "request"
    with pytest.raises(errors.UnknownRevisionError, match="not in"):
        await repository.resolve("1" * 40)


async def test_an_absent_branch_names_those_that_there_are(git_remote, git_clone):
    repository = git_clone(git_remote.url, branch="release")
    with pytest.raises(errors.UnknownRevisionError, match="none at all"):
        await repository.fetch()
    git_remote.commit()
    git_remote("branch", "next")
    with pytest.raises(errors.UnknownRevisionError, match=r"no branch 'release'.*main"):
        await repository.fetch()
    git_remote("branch", "release")
    assert await repository.fetch() == git_remote("rev-parse", "release")
    git_remote("branch", "-D", "release")
    with pytest.raises(errors.UnknownRevisionError, match="next"):
        await repository.fetch()


async def test_a_rewritten_branch_keeps_what_it_was(git_remote, git_clone, tmp_path):
    git_remote.commit("root")
    lost = git_remote.commit("lost")
    repository = git_clone(git_remote.url)
    assert await repository.fetch() == lost
    git_remote("reset", "--quiet", "--hard", "HEAD~1")
    new = git_remote.commit("new")
    git_remote("reflog", "expire", "--expire=now", "--all")
    git_remote("gc", "--quiet", "--prune=now")
    assert await repository.fetch() == new
    mirror = tmp_path / "clone of it/mirror.git"
    subprocess.run(["git", f"--git-dir={mirror}", "gc", "--quiet", "--prune=now"], check=True)
    await repository.check_out(lost, tmp_path / "tree")
    assert (tmp_path / "tree/file").read_text() == "lost"


async def test_a_branch_may_become_a_directory_of_branches(git_remote, git_clone):
    git_remote.commit()
    git_remote("branch", "topic")
    repository = git_clone(git_remote.url)
    await repository.fetch()
    git_remote("branch", "-D", "topic")
    git_remote("branch", "topic/one")
    git_remote("tag", "moving")
    head = await repository.fetch()
    git_remote.commit()
    git_remote("tag", "--force", "moving")
    assert await repository.fetch() != head
    assert (await repository.resolve("moving")).commit != head


async def test_work_trees_are_made_and_leave_nothing(git_remote, git_clone, tmp_path):
    first = git_remote.commit("first", a__b="1")
    git_remote("tag", "v1")
    second = git_remote.commit("second", a__b="2")
    repository = git_clone(git_remote.url)
    await repository.fetch()
    trees = {tmp_path / f"trees/{number}": commit for number, commit in enumerate([first, second] * 3)}
    (tmp_path / "trees").mkdir()
    async with anyio.create_task_group() as group:
        for tree, commit in trees.items():
            group.start_soon(repository.check_out, commit, tree)
            group.start_soon(repository.fetch)
    assert [(tree / "a/b").read_text() for tree in trees] == ["1", "2"] * 3
    described = await anyio.run_process(["git", "describe", "--tags"], cwd=tmp_path / "trees/1")
    assert described.stdout.decode().startswith("v1-1-g")
    (tmp_path / "trees/0/a/build output").mkdir()
    for tree in trees:
        await repository.discard(tree)
    assert not list((tmp_path / "trees").iterdir())
    assert not list((tmp_path / "clone of it/trees").iterdir())
    await repository.discard(tmp_path / "trees/0")  # not there: nothing to do


async def test_check_out_of_an_unknown_commit_leaves_nothing(git_remote, git_clone, tmp_path):
    git_remote.commit()
    repository = git_clone(git_remote.url)
    with pytest.raises(errors.UnknownRevisionError):
        await repository.check_out("1" * 40, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert not list((tmp_path / "clone of it/trees").iterdir())


async def test_check_out_spares_what_is_not_its_own(git_remote, git_clone, tmp_path):
    commit = git_remote.commit()
    repository = git_clone(git_remote.url)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/thesis").write_text("x")
    with pytest.raises(errors.HarnessError, match="was not made by this clone"):
        await repository.check_out(commit, tmp_path / "tree")
    assert (tmp_path / "tree/thesis").exists()


async def test_a_work_tree_that_a_crash_left_is_replaced(git_remote, git_clone, tmp_path):
    commit = git_remote.commit()
    repository = git_clone(git_remote.url)
    await repository.check_out(commit, tmp_path / "tree")
    (tmp_path / "tree/leftover").write_text("x")
    await repository.check_out(commit, tmp_path / "tree")
    assert not (tmp_path / "tree/leftover").exists()
    shutil.rmtree(tmp_path / "tree")
    (tmp_path / "tree").mkdir()
    await repository.check_out(commit, tmp_path / "tree")
    assert (tmp_path / "tree/file").exists()


CHECK_OUT_AND_DIE = """
import os, signal, sys, anyio
from pathlib import Path
from aibenchd import settings
from aibenchd.watch import git
url, directory, commit, target = sys.argv[1:]
async def main():
    repository = git.Git(settings.RepositorySettings(name="engine", url=url, framework="generic"), Path(directory))
    await repository.check_out(commit, Path(target))
    os.kill(os.getpid(), signal.SIGKILL)
anyio.run(main)
"""


async def test_a_new_daemon_clears_what_a_killed_one_left(git_remote, git_clone, tmp_path):
    commit = git_remote.commit()
    arguments = [git_remote.url, str(tmp_path / "clone of it"), commit, str(tmp_path / "tree")]
    dead = await anyio.run_process([sys.executable, "-c", CHECK_OUT_AND_DIE, *arguments], check=False)
    assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()
    assert (tmp_path / "tree/file").exists()
    mirror = tmp_path / "clone of it/mirror.git"
    locks = [mirror / name for name in ("packed-refs.lock", "config.lock", "HEAD.lock", "refs/heads/main.lock")]
    for lock in locks:
        lock.touch()
    (mirror / "objects/pack/tmp_pack_x").write_text("x")
    head = git_remote.commit()
    repository = git_clone(git_remote.url)
    assert await repository.fetch() == head
    assert not (tmp_path / "tree").exists()
    assert not any(path.exists() for path in [*locks, mirror / "objects/pack/tmp_pack_x"])
    await repository.check_out(commit, tmp_path / "tree")


async def test_a_program_that_outlived_a_killed_daemon_is_not_disturbed(git_remote, git_clone, tmp_path):
    head = git_remote.commit()
    (tmp_path / "clone of it").mkdir()
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    async with await anyio.open_process([sys.executable, "-c", hold, str(tmp_path / "clone of it/in-use")]) as other:
        await other.stdout.receive()
        repository = git_clone(git_remote.url)
        with pytest.raises(errors.HarnessError, match="in use by another daemon"):
            await repository.fetch()
        await other.stdin.aclose()
        await other.wait()
        assert await repository.fetch() == head


@pytest.mark.parametrize("damage", ["half made", "no refs", "pack cut short", "ref cut short", "empty"])
async def test_a_damaged_clone_is_made_anew(git_remote, git_clone, tmp_path, damage):
    head = git_remote.commit()
    mirror = tmp_path / "clone of it/mirror.git"
    repository = git_clone(git_remote.url)
    if damage != "half made":
        await repository.fetch()
    match damage:
        case "half made":
            (mirror / "objects").mkdir(parents=True)
            (mirror / "HEAD").write_text("ref: refs/he")
        case "no refs":
            shutil.rmtree(mirror / "refs")
        case "pack cut short":
            subprocess.run(["git", f"--git-dir={mirror}", "repack", "-adq"], check=True)
            (pack,) = mirror.glob("objects/pack/*.pack")
            pack.chmod(0o600)
            os.truncate(pack, 20)
            shutil.rmtree(mirror / "objects/info")
            head = git_remote.commit()
        case "ref cut short":
            (mirror / "refs/heads/main").write_text("")
        case "empty":
            shutil.rmtree(mirror)
    assert await repository.fetch() == head
    await repository.check_out(head, tmp_path / "tree")


async def test_a_fetch_that_is_cancelled_leaves_a_clone_that_works(git_remote, git_clone, monkeypatch, tmp_path):
    head = git_remote.commit()
    repository = git_clone(git_remote.url)
    for tenths in range(6):
        with anyio.move_on_after(tenths / 100):
            await repository.fetch()
    assert await repository.fetch() == head
    for tenths in range(6):
        with anyio.move_on_after(tenths / 100):
            await repository.check_out(head, tmp_path / "tree")
    await repository.check_out(head, tmp_path / "tree")
    await repository.discard(tmp_path / "tree")


async def test_a_remote_that_vanishes_and_returns(git_remote, git_clone):
    git_remote.commit()
    repository = git_clone(git_remote.url)
    head = await repository.fetch()
    away = git_remote.path.rename(git_remote.path.with_name("away"))
    with pytest.raises(errors.RemoteUnreachableError, match="does not appear to be a git repository"):
        await repository.fetch()
    assert (await repository.resolve(head)).commit == head  # what is here can still be built
    away.rename(git_remote.path)
    assert await repository.fetch() == head


async def test_passwords_in_urls_are_never_told(git_clone):
    with pytest.raises(errors.RemoteUnreachableError) as raised:
        await git_clone("http://ada:hunter22@127.0.0.1:1/x.git").fetch()
    assert "hunter22" not in str(raised.value)


async def test_submodules_are_filled_in_from_mirrors_that_are_kept(new_git_remote, git_clone, tmp_path):
    inner, middle, outer = (new_git_remote(name) for name in ("inner", "middle", "outer"))
    inner.commit("inner", deep="inner")
    middle("submodule", "--quiet", "add", "../inner", "third party/inner")
    middle.commit("middle", here="middle")
    outer("submodule", "--quiet", "add", "../middle", "sub/middle")
    outer("submodule", "--quiet", "add", inner.url, "other")
    commit = outer.commit("outer", top="outer")
    repository = git_clone(outer.url)
    await repository.check_out(commit, tmp_path / "tree")
    for name, text in (
        ("top", "outer"),
        ("sub/middle/here", "middle"),
        ("sub/middle/third party/inner/deep", "inner"),
        ("other/deep", "inner"),
    ):
        assert (tmp_path / "tree" / name).read_text() == text
    await repository.discard(tmp_path / "tree")
    submodules = tmp_path / "clone of it/submodules"
    assert len(list(submodules.glob("*.git"))) == 2  # inner is the same for both
    for remote in (inner, middle):
        remote.path.rename(remote.path.with_name(f"{remote.path.name} away"))
    await repository.check_out(commit, tmp_path / "tree")
    without = git_clone(outer.url, "bare of them", submodules=False)
    await without.check_out(commit, tmp_path / "bare tree")
    assert not list((tmp_path / "bare tree/other").iterdir())


async def test_a_submodule_whose_commit_is_on_no_branch(new_git_remote, git_clone, tmp_path):
    inner, outer = new_git_remote("inner"), new_git_remote("outer")
    inner.commit("inner")
    inner("checkout", "--quiet", "-b", "hidden")
    hidden = inner.commit("hidden")
    outer("submodule", "--quiet", "add", "../inner", "inner")
    inner("checkout", "--quiet", "main")
    inner("update-ref", "refs/hidden/one", hidden)
    inner("branch", "-D", "hidden")
    commit = outer.commit("outer")
    repository = git_clone(outer.url)
    await repository.check_out(commit, tmp_path / "tree")
    assert (tmp_path / "tree/inner/file").read_text() == "hidden"


def needs_lfs():
    if not shutil.which("git-lfs"):
        pytest.skip("git-lfs is not installed (apt-get install git-lfs)")


def with_large_file(remote):
    remote("lfs", "install", "--local")
    remote("lfs", "track", "*.bin")
    return remote.commit("large", **{"weights.bin": "w" * 5_000})


async def test_large_files_are_fetched(git_remote, git_clone, tmp_path):
    needs_lfs()
    commit = with_large_file(git_remote)
    await git_clone(git_remote.url).check_out(commit, tmp_path / "tree")
    assert (tmp_path / "tree/weights.bin").read_text() == "w" * 5_000
    assert [file for file in tmp_path.glob("clone of it/mirror.git/lfs/objects/**/*") if file.is_file()]  # kept for the next
    await git_clone(git_remote.url, "other", large_files=False).check_out(commit, tmp_path / "pointers")
    assert "git-lfs" in (tmp_path / "pointers/weights.bin").read_text()


async def test_large_files_without_git_lfs_say_so(git_remote, git_clone, tmp_path, monkeypatch):
    plain = git_remote.commit("plain")
    commit = git_remote.commit("large", **{"sub__.gitattributes": "*.bin filter=lfs diff=lfs\n"})
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "sh"):
        (programs / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(programs))
    repository = git_clone(git_remote.url)
    await repository.check_out(plain, tmp_path / "plain")
    with pytest.raises(errors.HarnessError, match="git-lfs is not installed"):
        await repository.check_out(commit, tmp_path / "tree")


async def test_git_is_not_installed(git_clone, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(errors.HarnessError, match="git is not installed"):
        await git_clone("file:///x").fetch()


async def test_another_url_for_the_same_clone(new_git_remote, git_clone):
    one, two = new_git_remote("one"), new_git_remote("two")
    first, second = one.commit("one"), two.commit("two")
    assert await git_clone(one.url).fetch() == first
    assert await git_clone(two.url).fetch() == second


def test_remove_takes_what_a_build_made_read_only(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/c").write_text("x")
    (tree / "a/link").symlink_to("/")
    for directory in (tmp_path, tree, tree / "a", tree / "a/b"):
        os.chown(directory, 65534, 65534) if os.geteuid() == 0 else None
    (tree / "a/b").chmod(0o500)
    (tree / "a").chmod(0o500)
    if os.geteuid() == 0:
        for parent in tmp_path.parents:
            if parent.name.startswith(("pytest-", "popen-")):  # a worker's directory is one deeper
                parent.chmod(0o755)
        os.seteuid(65534)
    try:
        clone.remove(tree)
    finally:
        os.seteuid(os.getuid())
    assert not tree.exists()


def commits(count):
    """A long history for git fast-import."""
    for number in range(count):
        yield f"commit refs/heads/main\ncommitter Ada <ada@example.org> {1_700_000_000 + number} +0000\ndata 8\n{number:08}\n"
        yield f"M 644 inline {'src' if number % 100 == 0 else 'docs'}/file\ndata 8\n{number:08}\n"


async def test_a_long_history_is_streamed(git_remote, git_clone):
    git_remote("fast-import", "--quiet", text="".join(commits(20_000)))
    repository = git_clone(git_remote.url, paths={"include": ["src/**"]})
    head = await repository.fetch()
    positions = itertools.count(20_000, -1)
    relevant = 0
    tracemalloc.start()
    async with contextlib.aclosing(repository.history(head)) as line:
        async for revision in line:
            assert revision.position == next(positions)
            relevant += revision.relevant
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (next(positions), relevant) == (0, 200)
    assert peak < 2 << 20  # the 20,000 together are ten times that


def subjects(sides):
    return [[one.subject for one in line] for line in sides]


def merged(remote, *branches, message="merge"):
    remote.time += 60
    remote("merge", "--quiet", "--no-ff", "--message", message, *branches)
    return remote("rev-parse", "HEAD")


async def test_what_a_merge_brought_in_is_a_line_from_the_merge_base_on(git_remote, git_clone):
    root = git_remote.commit("root")
    git_remote("checkout", "--quiet", "-b", "side")
    git_remote.commit("one", one="1")
    git_remote.commit("two", two="2")
    git_remote("checkout", "--quiet", "main")
    second = git_remote.commit("second", second="x")
    merge = merged(git_remote, "side")
    repository = git_clone(git_remote.url)
    (line,) = await repository.sides(merge, second, 100)
    assert [one.subject for one in line] == ["root", "one", "two"]
    assert (line[0].commit, line[1].parents, line[1].author) == (root, (root,), "Ada <ada@example.org>")
    assert subjects(await repository.sides(merge, second, 1)) == [["root", "two"]]  # only so many
    assert await repository.sides(second, root, 100) == []  # no merge


async def test_each_side_of_an_octopus_is_a_line(git_remote, git_clone):
    root = git_remote.commit("root")
    for name in ("a", "b"):
        git_remote("checkout", "--quiet", "-b", name, root)
        git_remote.commit(name, **{name: "x"})
    git_remote("checkout", "--quiet", "main")
    merge = merged(git_remote, "a", "b")
    assert subjects(await git_clone(git_remote.url).sides(merge, root, 100)) == [["root", "a"], ["root", "b"]]


async def test_a_side_that_took_the_branch_in_begins_where_it_did(git_remote, git_clone):
    """What came before that is inside the merge that took it in, and is no part of the line."""
    git_remote.commit("root")
    git_remote("checkout", "--quiet", "-b", "side")
    git_remote.commit("before", before="1")
    git_remote("checkout", "--quiet", "main")
    second = git_remote.commit("second", docs__second="x")
    git_remote("checkout", "--quiet", "side")
    taken = merged(git_remote, "main", message="take main in")
    git_remote.commit("after", after="2")
    git_remote("checkout", "--quiet", "main")
    merge = merged(git_remote, "side")
    repository = git_clone(git_remote.url, paths={"exclude": ["docs/**"]})
    (line,) = await repository.sides(merge, second, 100)
    assert [(one.subject, one.relevant) for one in line] == [("second", False), ("take main in", True), ("after", True)]
    assert subjects(await repository.sides(taken, second, 100)) == [["root", "before"]]


async def test_a_history_that_has_nothing_in_common_is_no_side(git_remote, git_clone):
    root = git_remote.commit("root")
    git_remote("checkout", "--quiet", "--orphan", "other")
    git_remote.commit("other", other="x")
    git_remote("checkout", "--quiet", "main")
    git_remote("merge", "--quiet", "--no-ff", "--allow-unrelated-histories", "--message", "merge", "other")
    assert await git_clone(git_remote.url).sides(git_remote("rev-parse", "HEAD"), root, 100) == []
