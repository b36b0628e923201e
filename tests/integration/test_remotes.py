"""Private remotes behind real servers: SSH by key, HTTP by token; git and Mercurial; away, back, and not answering."""

import contextlib
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
import remotes
import structlog

from aibenchd import errors, settings
from aibenchd.watch import git, hg

TOKEN = "glpat-Xy42-very-secret"


@pytest.fixture
def clone(tmp_path):
    def make(kind, url, directory="clone of it", **more):
        known = {"name": "engine", "url": url, "framework": "generic", "timeout": "60s"}
        return kind(settings.RepositorySettings.model_validate(known | more), tmp_path / directory)

    return make


@pytest.fixture
def git_remote(tmp_path):
    return remotes.GitRemote(tmp_path / "served/engine")


@pytest.fixture
def hg_remote(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # where pip puts hg
    if not shutil.which("hg"):
        pytest.skip("hg is not installed (pip install mercurial)")
    remote = remotes.HgRemote(tmp_path / "served/engine")
    yield remote
    remote.close()


@pytest.fixture
def ssh(tmp_path):
    if not Path("/usr/sbin/sshd").exists():
        pytest.skip("sshd is not installed (apt-get install openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd wants it; its unit makes it
    made = remotes.Ssh(tmp_path / "ssh", remotes.free_port())
    with remotes.started(made.command, made.port):
        yield made


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "token of it"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def git_server(tmp_path):
    server = remotes.Guarded("oauth2", TOKEN, remotes.git_http(tmp_path / "served"))
    with remotes.serving(server):
        yield server


def holds(directory, secret):
    """The files below a directory that a secret is in."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if secret.encode() in path.read_bytes()]


def over_ssh(ssh, **more):
    return {"credentials": {"ssh_key_file": ssh.key, "known_hosts_file": ssh.known_hosts} | more}


async def test_git_over_ssh(ssh, git_remote, clone, tmp_path):
    inner = remotes.GitRemote(tmp_path / "served/inner")
    inner.commit("inner", deep="inner")
    git_remote("submodule", "--quiet", "add", "../inner", "inner")
    head = git_remote.commit()
    repository = clone(git.Git, ssh.url(git_remote.path), **over_ssh(ssh))
    assert await repository.fetch() == head
    await repository.check_out(head, tmp_path / "tree")
    assert (tmp_path / "tree/inner/deep").read_text() == "inner"


async def test_hg_over_ssh(ssh, hg_remote, clone, tmp_path):
    head = hg_remote.commit(here="x")
    url = ssh.url(Path(f"/{hg_remote.path}"))  # hg: a path from the root has two slashes
    repository = clone(hg.Mercurial, url, branch="default", **over_ssh(ssh))
    assert await repository.fetch() == head
    await repository.check_out(head, tmp_path / "tree")
    assert (tmp_path / "tree/here").read_text() == "x"


async def test_ssh_refuses_a_host_or_a_user_that_is_not_the_one(ssh, git_remote, clone):
    git_remote.commit()
    url = ssh.url(git_remote.path)
    with pytest.raises(errors.RemoteUnreachableError, match="Host key verification failed"):
        await clone(git.Git, url, **over_ssh(ssh, known_hosts_file=ssh.other_hosts)).fetch()
    with pytest.raises(errors.RemoteUnreachableError, match="Permission denied"):
        await clone(git.Git, url, **over_ssh(ssh, ssh_key_file=ssh.other_key)).fetch()


async def test_keys_from_systemd(ssh, git_remote, clone, monkeypatch):
    head = git_remote.commit()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(ssh.key.parent))
    credentials = {"ssh_key_file": ssh.key.name, "known_hosts_file": ssh.known_hosts.name}
    assert await clone(git.Git, ssh.url(git_remote.path), credentials=credentials).fetch() == head


async def test_git_over_http_with_a_token_that_nobody_sees(git_server, git_remote, clone, tmp_path, token_file):
    head = git_remote.commit()
    url = f"{git_server.origin}/engine/.git"
    with structlog.testing.capture_logs() as logs:
        repository = clone(git.Git, url, credentials={"token_file": token_file})
        assert await repository.fetch() == head
        token_file.write_text("another-token")
        git_server.token = "another-token"  # renewed
        head = git_remote.commit("second")
        assert await repository.fetch() == head
    assert git_server.served >= 4
    assert git_server.exposed == []
    for token in (TOKEN, "another-token"):
        assert holds(tmp_path / "clone of it", token) == []
        assert token not in str(logs)


async def test_a_wrong_token_is_refused_and_not_told(git_server, git_remote, clone, token_file):
    git_remote.commit()
    token_file.write_text("wrong-but-secret")
    url = f"{git_server.origin}/engine/.git"
    with pytest.raises(errors.RemoteUnreachableError, match="Authentication failed") as raised:
        await clone(git.Git, url, credentials={"token_file": token_file}).fetch()
    assert "wrong-but-secret" not in str(raised.value)
    with pytest.raises(errors.RemoteUnreachableError, match="could not read Username"):
        await clone(git.Git, url, "without").fetch()
    token_file.unlink()
    with pytest.raises(errors.CredentialError, match="token of it"):
        await clone(git.Git, url, credentials={"token_file": token_file}).fetch()


async def test_the_token_is_for_its_own_host_alone(git_server, git_remote, clone, tmp_path, token_file):
    inner = remotes.GitRemote(tmp_path / "elsewhere/inner")
    inner.commit()
    other = remotes.Guarded("oauth2", "other", remotes.git_http(tmp_path / "elsewhere"))
    with remotes.serving(other):
        git_remote("submodule", "--quiet", "add", inner.url, "inner")
        git_remote("config", "--file=.gitmodules", "submodule.inner.url", f"{other.origin}/inner/.git")
        head = git_remote.commit()
        repository = clone(git.Git, f"{git_server.origin}/engine/.git", credentials={"token_file": token_file})
        with pytest.raises(errors.RemoteUnreachableError, match="could not read Username"):
            await repository.check_out(head, tmp_path / "tree")
    assert other.seen
    assert set(other.seen) == {None}
    assert not (tmp_path / "tree").exists()


async def test_a_submodule_of_this_host_is_refused_to_a_remote_elsewhere(git_server, git_remote, clone, tmp_path, token_file):
    inner = remotes.GitRemote(tmp_path / "private")
    inner.commit()
    git_remote("submodule", "--quiet", "add", inner.url, "inner")
    head = git_remote.commit()
    repository = clone(git.Git, f"{git_server.origin}/engine/.git", credentials={"token_file": token_file})
    with pytest.raises(errors.RemoteUnreachableError, match="transport 'file' not allowed"):
        await repository.check_out(head, tmp_path / "tree")


async def test_large_files_over_http(git_server, git_remote, clone, tmp_path, token_file):
    if not shutil.which("git-lfs"):
        pytest.skip("git-lfs is not installed (apt-get install git-lfs)")
    git_remote("lfs", "install", "--local")
    git_remote("lfs", "track", "*.bin")
    head = git_remote.commit("large", **{"weights.bin": "w" * 5_000})
    repository = clone(git.Git, f"{git_server.origin}/engine/.git", credentials={"token_file": token_file})
    await repository.check_out(head, tmp_path / "tree")
    assert (tmp_path / "tree/weights.bin").read_text() == "w" * 5_000
    assert git_server.exposed == []
    assert holds(tmp_path / "clone of it", TOKEN) == []


async def test_hg_over_http_with_a_token(hg_remote, clone, tmp_path, token_file):
    head = hg_remote.commit(here="x")
    port = remotes.free_port()
    serve = ["hg", "--repository", str(hg_remote.path), "serve", "--address", "127.0.0.1", "--port", str(port)]
    server = remotes.Guarded("ada", TOKEN, remotes.forward_to(port))
    credentials = {"token_file": token_file, "username": "ada"}
    with remotes.started(serve, port, HGRCPATH="/dev/null"), remotes.serving(server):
        repository = clone(hg.Mercurial, f"{server.origin}/", branch="default", credentials=credentials)
        assert await repository.fetch() == head
        with pytest.raises(errors.UnknownRevisionError, match="default"):
            await clone(hg.Mercurial, f"{server.origin}/", branch="nope", credentials=credentials).fetch()
        token_file.write_text("wrong-but-secret")
        with pytest.raises(errors.RemoteUnreachableError) as raised:
            await repository.fetch()
    assert "wrong-but-secret" not in str(raised.value)
    assert server.exposed == []
    kept = holds(tmp_path / "clone of it", "wrong-but-secret")
    assert [(path.name, path.stat().st_mode & 0o777) for path in kept] == [("hgrc", 0o600)]
    assert holds(tmp_path / "clone of it", TOKEN) == []


async def test_a_server_that_vanishes_and_returns(git_remote, clone, tmp_path, token_file):
    head = git_remote.commit()
    server = remotes.Guarded("oauth2", TOKEN, remotes.git_http(tmp_path / "served"))
    repository = clone(git.Git, f"{server.origin}/engine/.git", credentials={"token_file": token_file})
    with remotes.serving(server):
        assert await repository.fetch() == head
    head = git_remote.commit("while it was away")
    with pytest.raises(errors.RemoteUnreachableError, match=r"(?i)connect"):
        await repository.fetch()
    back = remotes.Guarded("oauth2", TOKEN, server.answer, port=server.server_port)
    with remotes.serving(back):
        assert await repository.fetch() == head


@pytest.mark.parametrize("kind", [git.Git, hg.Mercurial])
async def test_a_server_that_does_not_answer(clone, kind, hg_remote):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        repository = clone(kind, f"http://127.0.0.1:{silent.getsockname()[1]}/engine", timeout="1s")
        with pytest.raises(errors.RemoteUnreachableError, match="did not end within 1 s"):
            await repository.fetch()


async def test_a_server_that_breaks_off(git_remote, clone, tmp_path, token_file):
    git_remote.commit("large", file="".join(f"{number}\n" for number in range(50_000)))
    whole = remotes.git_http(tmp_path / "served")

    def broken(handler, body):
        if handler.path.endswith("git-upload-pack") and server.breaks and b"want " in body:
            server.breaks -= 1
            handler.wfile.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-result\r\n\r\n000dpackfile\n0100"
            )
            handler.close_connection = True
        else:
            whole(handler, body)

    server = remotes.Guarded("oauth2", TOKEN, broken)
    server.breaks = 1
    repository = clone(git.Git, f"{server.origin}/engine/.git", credentials={"token_file": token_file})
    with remotes.serving(server):
        with pytest.raises(errors.RemoteUnreachableError):
            await repository.fetch()
        assert await repository.fetch() == git_remote("rev-parse", "HEAD")
