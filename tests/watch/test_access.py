import shlex
from pathlib import Path

import pytest

from aibenchd import errors, settings
from aibenchd.watch import access, submodules


@pytest.mark.parametrize("url", ["/srv/engine.git", "./engine", "engine", "file:///srv/engine.git", "a/b:c"])
def test_local(url):
    assert access.is_local(url)


@pytest.mark.parametrize("url", ["https://h/x", "git@h:x.git", "h:x/y", "ssh://h/x", "[::1]:x", "git://h/x"])
def test_elsewhere(url):
    assert not access.is_local(url)
    assert access.absolute(url) == url


def test_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert access.absolute("engine") == str(tmp_path / "engine")
    assert access.absolute("file:///x") == "file:///x"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://git.example.org/a/b.git", "https://git.example.org"),
        ("http://127.0.0.1:8080/a", "http://127.0.0.1:8080"),
        ("https://ada@git.example.org:8443/a", "https://git.example.org:8443"),
        ("ssh://git.example.org/a", ""),
        ("/srv/a", ""),
    ],
)
def test_origin(url, origin):
    assert access.origin(url) == origin


def test_ssh_command(monkeypatch, tmp_path):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "given %d"))
    chosen = settings.Credentials(ssh_key_file=Path("deploy"), known_hosts_file=Path("/etc/known hosts; x"))
    words = shlex.split(access.ssh_command(chosen))
    assert words[0] == "ssh"
    options = [words[index + 1] for index, word in enumerate(words) if word == "-o"]
    assert f'IdentityFile="{tmp_path}/given %%d/deploy"' in options
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"} <= set(options)
    assert 'UserKnownHostsFile="/etc/known hosts; x"' in options
    plain = access.ssh_command(settings.Credentials())
    assert "StrictHostKeyChecking=yes" in plain
    assert "KnownHostsFile" not in plain


def test_ssh_command_without_the_credential(monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(errors.CredentialError, match="CREDENTIALS_DIRECTORY"):
        access.ssh_command(settings.Credentials(ssh_key_file=Path("deploy")))
    with pytest.raises(errors.CredentialError, match="quote"):
        access.ssh_command(settings.Credentials(ssh_key_file=Path('/a"b')))


@pytest.mark.parametrize(
    ("url", "base", "resolved"),
    [
        ("https://h/x.git", "https://g/y", "https://h/x.git"),
        ("/srv/x", "https://g/y", "/srv/x"),
        ("../x", "https://h/a/y.git", "https://h/a/x"),
        ("../x/", "https://h/a/y.git/", "https://h/a/x"),
        ("../../b/x", "https://h/a/y", "https://h/b/x"),
        ("./x", "https://h/a/y", "https://h/a/y/x"),
        ("../x", "git@h:a/y", "git@h:a/x"),
        ("../x", "git@h:y", "git@h:x"),
        ("../../x", "git@h:a/y", "git@h:x"),
        ("../x", "/srv/y", "/srv/x"),
        ("../../x", "/srv/y", "/x"),
        ("../x", "file:///srv/y", "file:///srv/x"),
        ("../x", "ssh://h:2222/srv/y", "ssh://h:2222/srv/x"),
        ("../.././x", "ssh://h/srv/y", "ssh://h/x"),
    ],
)
def test_submodule_urls_are_relative_as_git_has_it(url, base, resolved):
    assert submodules.resolved(url, base) == resolved


@pytest.mark.parametrize(("url", "base"), [("../../../../x", "https://h/a"), ("../../x", "git@h:y"), ("../../../x", "/srv/y")])
def test_submodule_urls_do_not_climb_out(url, base):
    with pytest.raises(errors.HarnessError, match="climbs above"):
        submodules.resolved(url, base)
