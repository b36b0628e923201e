"""Real remotes on this host's disk, made and changed by the same command lines that a developer uses."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from aibenchd import settings
from aibenchd.watch import git, hg

WHO = "Ada <ada@example.org>"
EPOCH = 1_700_000_000  # 2023-11-14, a Tuesday


class GitRemote:
    """A git repository with a work tree, pushed to by nobody: commits are made in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time = EPOCH
        path.mkdir(parents=True)
        self("init", "--quiet", "--initial-branch=main")

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def __call__(self, *arguments: str, text: str = "") -> str:
        when = f"{self.time} +0200"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.org",
            "GIT_AUTHOR_DATE": when,
            "GIT_COMMITTER_DATE": when,
            "GIT_ALLOW_PROTOCOL": "file",
        }
        raw = text.encode(errors="surrogateescape")
        done = subprocess.run(["git", *arguments], cwd=self.path, env=environment, input=raw, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode(errors="replace").strip()

    def commit(self, subject: str = "change", **files: str) -> str:
        """Write files (``a__b`` is a/b), commit, and say the commit's id; each is a minute later than the last."""
        self.time += 60
        for name, content in (files or {"file": subject}).items():
            file = self.path / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        self("add", "--all")
        self("commit", "--quiet", "--allow-empty", "--message", subject)
        return self("rev-parse", "HEAD")


class HgRemote:
    """A Mercurial repository with a work tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time = EPOCH
        path.mkdir(parents=True)
        self("init")

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def __call__(self, *arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HGRCPATH": "/dev/null", "HGPLAIN": "1", "HGENCODING": "UTF-8"}
        command = ["hg", "--config", "extensions.strip=", *arguments]
        done = subprocess.run(command, cwd=self.path, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode(errors="replace").strip()

    def commit(self, subject: str = "change", **files: str) -> str:
        self.time += 60
        for name, content in (files or {"file": f"{subject} {self.time}"}).items():
            file = self.path / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        self("commit", "--addremove", "--quiet", "--user", WHO, "--date", f"{self.time} 0", "--message", subject)
        return self("identify", "--template", "{node}", "--rev", ".")


@pytest.fixture
def git_remote(tmp_path: Path) -> GitRemote:
    return GitRemote(tmp_path / "remote with space")


@pytest.fixture
def new_git_remote(tmp_path: Path) -> Callable[[str], GitRemote]:
    return lambda name: GitRemote(tmp_path / name)


@pytest.fixture
def hg_remote(tmp_path: Path) -> HgRemote:
    return HgRemote(tmp_path / "remote with space")


@pytest.fixture
def new_hg_remote(tmp_path: Path) -> Callable[[str], HgRemote]:
    return lambda name: HgRemote(tmp_path / name)


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
