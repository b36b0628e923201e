"""A developer's working tree: all of it is taken along, and nothing of it is touched. Real git, real hg."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import remotes

from aibenchd import errors, model, settings
from aibenchd.oneshot import worktrees


def git_of(url: Path, clone: Path) -> worktrees.Git:
    return worktrees.Git(settings.RepositorySettings(name="engine", url=str(url), framework="generic"), clone)


def hg_of(url: Path, clone: Path) -> worktrees.Mercurial:
    chosen = settings.RepositorySettings(name="engine", kind="hg", url=str(url), framework="generic", branch="tip")
    return worktrees.Mercurial(chosen, clone)


def everything(root: Path) -> dict[str, tuple[int, str]]:
    """Each file below a directory, with when it was written and its bytes' digest."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}


async def tree_of(repository: worktrees.Git | worktrees.Mercurial, revision: model.Revision, target: Path) -> dict[str, str]:
    await repository.check_out(revision.commit, target)
    files = (path for path in target.rglob("*") if path.is_file() and not {".git", ".hg"} & set(path.relative_to(target).parts))
    found = {str(path.relative_to(target)): path.read_text() for path in files}
    await repository.discard(target)
    return found


@pytest.fixture
def remote(tmp_path: Path) -> remotes.GitRemote:
    made = remotes.GitRemote(tmp_path / "my engine")
    made.commit("one", kept="same", changed="old", removed="x", **{".gitignore": "*.o\n"})
    return made


def edit(root: Path) -> None:
    (root / "changed").write_text("new")
    (root / "removed").unlink()
    (root / "below").mkdir()
    (root / "below" / "added").write_text("not known to it yet")
    (root / "engine.o").write_text("ignored")


async def test_changes_of_a_git_repository_are_a_commit_of_our_clone_alone(remote: remotes.GitRemote, tmp_path: Path) -> None:
    head = remote("rev-parse", "HEAD")
    edit(remote.path)
    (remote.path / ".git/info/exclude").parent.mkdir(exist_ok=True)
    (remote.path / ".git/info/exclude").write_text("notes\n")
    (remote.path / "notes").write_text("excluded")
    (remote.path / "staged").write_text("staged")
    os.utime(remote.path / "staged", (1_700_000_000, 1_700_000_000))  # so old that git does not look at it again
    remote("add", "staged")
    before = everything(remote.path)
    repository = git_of(remote.path, tmp_path / "clone")
    revision = await repository.resolve("WORKTREE")
    assert everything(remote.path) == before
    assert revision.parents == (head,)
    assert await tree_of(repository, revision, tmp_path / "out") == {
        ".gitignore": "*.o\n",
        "kept": "same",
        "changed": "new",
        "below/added": "not known to it yet",
        "staged": "staged",
    }
    assert await repository.resolve("WORKTREE") == revision  # so that it is built once
    (remote.path / "changed").write_text("newer")
    assert (await repository.resolve("WORKTREE")).commit != revision.commit


async def test_what_a_sparse_check_out_leaves_out_is_not_gone(remote: remotes.GitRemote, tmp_path: Path) -> None:
    remote.commit("below", below__file="x", other__file="y")
    remote("sparse-checkout", "set", "below")
    (remote.path / "changed").write_text("new")
    assert not (remote.path / "other").exists()
    repository = git_of(remote.path, tmp_path / "clone")
    found = await tree_of(repository, await repository.resolve("WORKTREE"), tmp_path / "out")
    assert (found["changed"], found["below/file"], found["other/file"]) == ("new", "x", "y")


async def test_a_clean_tree_is_the_commit_itself(remote: remotes.GitRemote, tmp_path: Path) -> None:
    head = remote("rev-parse", "HEAD")
    assert (await git_of(remote.path, tmp_path / "clone").resolve(".")).commit == head


async def test_names_are_those_of_the_repository_itself(remote: remotes.GitRemote, tmp_path: Path) -> None:
    first = remote("rev-parse", "HEAD")
    second = remote.commit("two")
    remote("checkout", "--quiet", "--detach", first)
    loose = remote.commit("on no branch")
    repository = git_of(remote.path, tmp_path / "clone")
    found = [(await repository.resolve(name)).commit for name in ("HEAD", "HEAD~1", "main", loose[:12])]
    assert found == [loose, first, second, loose]
    for name in ("no such", "--all"):
        with pytest.raises(errors.UnknownRevisionError):
            await repository.resolve(name)


async def test_a_branch_of_its_own_remote_has_a_name_there(remote: remotes.GitRemote, tmp_path: Path) -> None:
    mine = remotes.GitRemote(tmp_path / "mine")
    mine("remote", "add", "origin", remote.url)
    theirs = remote.commit("theirs")
    mine("fetch", "--quiet", "origin")
    mine.commit("mine")
    assert (await git_of(mine.path, tmp_path / "clone").resolve("origin/main")).commit == theirs


async def test_a_linked_working_tree_has_changes_of_its_own(remote: remotes.GitRemote, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    remote("worktree", "add", "--quiet", "-b", "side", str(linked))
    (linked / "changed").write_text("here")
    assert worktrees.found(linked) == (linked, "git")
    repository = git_of(linked, tmp_path / "clone")
    assert (await tree_of(repository, await repository.resolve("WORKTREE"), tmp_path / "out"))["changed"] == "here"


async def test_changes_within_a_submodule_are_refused(remote: remotes.GitRemote, tmp_path: Path) -> None:
    child = remotes.GitRemote(tmp_path / "child")
    child.commit("child", file="x")
    remote("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(child.path), "sub")
    remote("commit", "--quiet", "-m", "with a submodule")
    repository = git_of(remote.path, tmp_path / "clone")
    (remote.path / "changed").write_text("new")
    assert (await tree_of(repository, await repository.resolve("WORKTREE"), tmp_path / "out"))["sub/file"] == "x"
    (remote.path / "sub" / "file").write_text("y")
    with pytest.raises(errors.CommandError, match=r"submodules have changes of their own \(sub\)"):
        await repository.resolve("WORKTREE")


@pytest.fixture
def hg_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[remotes.HgRemote]:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # where pip puts hg
    if not shutil.which("hg"):
        pytest.skip("hg is not installed (pip install mercurial)")
    made = remotes.HgRemote(tmp_path / "my engine")
    made.commit("one", kept="same", changed="old", removed="x", **{".hgignore": "syntax: glob\n*.o\n"})
    yield made
    made.close()


async def test_changes_of_a_mercurial_repository_are_a_commit_of_our_clone_alone(
    hg_remote: remotes.HgRemote, tmp_path: Path
) -> None:
    head = hg_remote("identify", "--template", "{node}", "--rev", ".")
    edit(hg_remote.path)
    hg_remote.close()  # it keeps caches of its own
    before = {name: what for name, what in everything(hg_remote.path).items() if "/cache/" not in name and "dirstate" not in name}
    repository = hg_of(hg_remote.path, tmp_path / "clone")
    revision = await repository.resolve("WORKTREE")
    after = everything(hg_remote.path)
    assert {name: after.get(name) for name in before} == before
    assert hg_remote("log", "--template", "{node} ") == head
    assert revision.parents == (head,)
    assert await tree_of(repository, revision, tmp_path / "out") == {
        ".hgignore": "syntax: glob\n*.o\n",
        "kept": "same",
        "changed": "new",
        "below/added": "not known to it yet",
    }
    assert await repository.resolve("WORKTREE") == revision
    assert (await repository.resolve("tip")).commit == head


async def test_a_clean_mercurial_tree_is_the_commit_itself(hg_remote: remotes.HgRemote, tmp_path: Path) -> None:
    head = hg_remote("identify", "--template", "{node}", "--rev", ".")
    repository = hg_of(hg_remote.path, tmp_path / "clone")
    assert (await repository.resolve("WORKTREE")).commit == head
    with pytest.raises(errors.UnknownRevisionError, match="no commit, tag, bookmark or branch 'none'"):
        await repository.resolve("none")
