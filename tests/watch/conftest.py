"""Real remotes on this host's disk, made and changed by the same command lines that a developer uses."""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
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
    """A Mercurial repository with a work tree, worked on through one command server, which saves hg's start each time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time = EPOCH
        path.mkdir(parents=True)
        self._environment = {"PATH": os.environ["PATH"], "HGRCPATH": "/dev/null", "HGPLAIN": "1", "HGENCODING": "UTF-8"}
        subprocess.run(["hg", "init"], cwd=path, env=self._environment, check=True)
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def __call__(self, *arguments: str) -> str:
        server = self._serving()
        request = "\0".join(arguments).encode()
        server.stdin.write(b"runcommand\n" + struct.pack(">I", len(request)) + request)
        server.stdin.flush()
        said = {b"o": b"", b"e": b"", b"r": b""}
        while not said[b"r"]:
            channel, text = self._read()
            said[channel] += text
        assert said[b"r"] in (struct.pack(">i", 0), struct.pack(">i", 1)), said[b"e"].decode()
        return said[b"o"].decode(errors="replace").strip()

    def commit(self, subject: str = "change", **files: str) -> str:
        """As of a :class:`GitRemote`."""
        self.time += 60
        for name, content in (files or {"file": f"{subject} {self.time}"}).items():
            file = self.path / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        self("commit", "--addremove", "--quiet", "--user", WHO, "--date", f"{self.time} 0", "--message", subject)
        return self("identify", "--template", "{node}", "--rev", ".")

    def close(self) -> None:
        """Let go of the repository: it may be moved away then."""
        if self._server is not None:
            self._server.stdin.close()
            self._server.stdout.close()
            self._server.wait()
            self._server = None

    def _serving(self) -> "subprocess.Popen[bytes]":
        if self._server is None:
            command = ["hg", "--config", "extensions.strip=", "serve", "--cmdserver", "pipe"]
            pipe = subprocess.PIPE
            self._server = subprocess.Popen(command, cwd=self.path, env=self._environment, stdin=pipe, stdout=pipe)
            self._read()  # its greeting
        return self._server

    def _read(self) -> tuple[bytes, bytes]:
        channel, size = struct.unpack(">cI", self._server.stdout.read(5))
        return channel, self._server.stdout.read(size)


@pytest.fixture
def new_hg_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], HgRemote]]:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # where pip puts hg
    if not shutil.which("hg"):
        pytest.skip("hg is not installed (pip install mercurial)")
    made: list[HgRemote] = []

    def make(name: str) -> HgRemote:
        made.append(HgRemote(tmp_path / name))
        return made[-1]

    yield make
    for remote in made:
        remote.close()


@pytest.fixture
def hg_remote(new_hg_remote: Callable[[str], HgRemote]) -> HgRemote:
    return new_hg_remote("remote with space")


@pytest.fixture
def git_remote(tmp_path: Path) -> GitRemote:
    return GitRemote(tmp_path / "remote with space")


@pytest.fixture
def new_git_remote(tmp_path: Path) -> Callable[[str], GitRemote]:
    return lambda name: GitRemote(tmp_path / name)


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
