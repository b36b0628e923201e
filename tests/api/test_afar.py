"""A daemon on another host: a real sshd, the real client on both sides of it, and a real status socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import sshd
import statusd
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import events
from aibenchd.api import afar, call

USER = pwd.getpwuid(os.geteuid()).pw_name
CLIENT = [sys.executable, "-m", "aibenchd.api.client"]
pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed (apt-get install openssh-client)")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[sshd.Sshd]:
    """A host on which ``aibenchctl`` is on the PATH of whoever logs in."""
    with sshd.running(tmp_path / "host") as server:
        yield server


def client(host: sshd.Sshd, *words: str, path: Path | None = None) -> tuple[list[str], dict[str, str]]:
    """The command line ``aibenchctl -H ssh://… WORDS``, and its environment."""
    address = f"ssh://{USER}@127.0.0.1:{host.port}{path or ''}"
    key = host.key.with_name("key")  # ssh expands what a % stands for in the name of one
    key.write_bytes(host.key.read_bytes())
    key.chmod(0o600)
    known = f"ssh -F /dev/null -i '{key}' -o 'UserKnownHostsFile=\"{host.known_hosts}\"' -o BatchMode=yes"
    return [*CLIENT, "-H", address, *words], {**os.environ, "AIBENCHD_SSH": known, "AIBENCHD_SOCKET": "/nowhere"}


async def ask(host: sshd.Sshd, *words: str, path: Path | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``aibenchctl -H ssh://… WORDS``."""
    argv, env = client(host, *words, path=path)
    told = await anyio.run_process(argv, check=False, env=env)
    return told.returncode, told.stdout.decode(), told.stderr.decode()


async def test_every_kind_of_command_goes_through_ssh(host: sshd.Sshd, daemon: statusd.Daemon) -> None:
    code, out, complaint = await ask(host, "status", path=daemon.path)
    assert (code, complaint) == (0, "")
    assert "lab-host" in out
    assert await ask(host, "-s", str(daemon.path), "pause") == (0, "paused: yes\n", "")
    assert daemon.controls.asked[-1][0] == "pause"
    code, _, complaint = await ask(host, "show", "77", path=daemon.path)
    there = f"aibenchctl -H ssh://{USER}@127.0.0.1:{host.port}{daemon.path}"  # as it was called, so that it can be pasted
    assert (code, complaint) == (3, f"aibenchctl: there is no experiment 77; '{there} experiments' lists them\n")


async def test_events_come_through_as_they_happen(host: sshd.Sshd, daemon: statusd.Daemon) -> None:
    argv, env = client(host, "events", path=daemon.path)
    async with await anyio.open_process(argv, env=env, stderr=None) as listening, anyio.create_task_group() as tasks:
        assert listening.stdout is not None

        async def publish() -> None:
            while True:
                daemon.house.events.publish(events.Event("experiment.decided", {"id": 7}))
                await anyio.sleep(0.05)

        tasks.start_soon(publish)
        with anyio.fail_after(60):
            seen = await listening.stdout.receive()
        tasks.cancel_scope.cancel()
        host.stop()
    assert b"experiment.decided id=7" in seen


async def test_a_daemon_that_is_not_there_is_told_by_the_other_side(host: sshd.Sshd, tmp_path: Path) -> None:
    code, _, complaint = await ask(host, "status", path=tmp_path / "none.sock")
    assert code == 4
    assert f"{tmp_path}/none.sock: aibenchd does not run there" in complaint
    assert "'aibenchctl dial' ended with 4" in complaint.splitlines()[-1]


async def test_where_there_is_no_client_on_the_other_side_it_says_what_to_do(tmp_path: Path) -> None:
    with sshd.running(tmp_path / "bare", "SetEnv PATH=/usr/bin:/bin") as bare:
        code, _, complaint = await ask(bare, "status")
    assert code == 4
    assert "there is no aibenchctl on ssh://" in complaint.splitlines()[-1]


async def test_where_ssh_is_not_let_in_it_says_so(host: sshd.Sshd) -> None:
    host.stop()
    code, _, complaint = await ask(host, "status")
    assert code == 4
    assert "Connection refused" in complaint
    assert f"ssh did not reach ssh://{USER}@127.0.0.1:{host.port}" in complaint.splitlines()[-1]


@pytest.mark.parametrize("said", ["Welcome to the lab!", "load 200 today"])
async def test_a_shell_that_prints_before_the_answer_is_told_of(daemon: statusd.Daemon, tmp_path: Path, said: str) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "{said}"\nexec {sys.executable} -m aibenchd.api.client -s {daemon.path} dial\n')
    ssh.chmod(0o755)
    environment = {**os.environ, "AIBENCHD_SSH": str(ssh)}
    told = await anyio.run_process([*CLIENT, "-H", "ssh://lab", "status"], check=False, env=environment)
    assert told.returncode == 4
    assert b"from ssh://lab is not aibenchd's answer: its shell must print nothing" in told.stderr


def test_what_to_run_in_place_of_ssh_is_named_where_it_cannot_be_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBENCHD_SSH", "ssh 'unbalanced")
    with pytest.raises(ValueError, match="AIBENCHD_SSH: cannot be split"):
        afar.words("ssh://lab")


async def test_a_copy_of_the_journal_lies_on_the_daemons_host(host: sshd.Sshd, daemon: statusd.Daemon) -> None:
    code, _, complaint = await ask(host, "backup", "copy.db", path=daemon.path)
    assert (code, "expected an absolute path on ssh://" in complaint) == (3, True)


@pytest.mark.parametrize(
    ("address", "words", "path"),
    [
        ("ssh://lab", ["--", "lab"], ""),
        ("ssh://me@lab:2222/run/a.sock", ["-l", "me", "-p", "2222", "--", "lab"], "/run/a.sock"),
        ("ssh://[::1]:22/", ["-p", "22", "--", "::1"], ""),
        ("ssh://[fe80::1]", ["--", "fe80::1"], ""),
    ],
)
def test_an_address_is_a_command_line(address: str, words: list[str], path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIBENCHD_SSH", raising=False)
    assert afar.words(address) == (["ssh", "-T", *words], path)


@pytest.mark.parametrize(
    "address",
    ["lab", "http://lab", "ssh://", "ssh://@lab", "ssh://lab:", "ssh://lab:0", "ssh://-oProxyCommand=x", "ssh://lab:99999"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="expected ssh://"):
        afar.words(address)
    told = subprocess.run([*CLIENT, "-H", address, "status"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr.count("\n")) == (3, 1)


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=20))
def test_no_address_becomes_an_option_of_ssh(text: str) -> None:
    try:
        words, _ = afar.words(f"ssh://{text}")
    except ValueError:
        return
    assert words[-2] == "--"
    assert not words[-1].startswith("-")
    assert "-o" not in words


def test_ssh_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBENCHD_SSH", "/nowhere/ssh")
    with pytest.raises(call.Unreachable, match="ssh cannot be run"):
        afar.Daemon("ssh://lab", None).get("/v1/status")
