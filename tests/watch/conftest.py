"""Real remotes on this host's disk, made and changed by the same command lines that a developer uses."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import remotes

from aibenchd import settings
from aibenchd.watch import git, hg


@pytest.fixture
def new_hg_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], remotes.HgRemote]]:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # where pip puts hg
    if not shutil.which("hg"):
        pytest.skip("hg is not installed (pip install mercurial)")
    made: list[remotes.HgRemote] = []

    def make(name: str) -> remotes.HgRemote:
        made.append(remotes.HgRemote(tmp_path / name))
        return made[-1]

    yield make
    for remote in made:
        remote.close()


@pytest.fixture
def hg_remote(new_hg_remote: Callable[[str], remotes.HgRemote]) -> remotes.HgRemote:
    return new_hg_remote("remote with space")


@pytest.fixture
def git_remote(tmp_path: Path) -> remotes.GitRemote:
    return remotes.GitRemote(tmp_path / "remote with space")


@pytest.fixture
def new_git_remote(tmp_path: Path) -> Callable[[str], remotes.GitRemote]:
    return lambda name: remotes.GitRemote(tmp_path / name)


@pytest.fixture
def git_clone(tmp_path: Path) -> Callable[..., git.Git]:
    def make(url: str, directory: str = "clone of it", **more: object) -> git.Git:
        return git.Git(_settings(url, more), tmp_path / directory)

    return make


@pytest.fixture
def hg_clone(tmp_path: Path) -> Callable[..., hg.Mercurial]:
    def make(url: str, directory: str = "clone of it", **more: object) -> hg.Mercurial:
        return hg.Mercurial(_settings(url, {"kind": "hg", "branch": "default"} | more), tmp_path / directory)

    return make


def _settings(url: str, more: dict[str, object]) -> settings.RepositorySettings:
    known = {"name": "engine", "url": url, "framework": "generic", "timeout": "60s"}
    return settings.RepositorySettings.model_validate(known | more)
