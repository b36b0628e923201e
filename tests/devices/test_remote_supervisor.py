"""The program that is sent to devices, by itself and with the interpreters that devices have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
import sshd
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import digests
from aibenchd.devices import base, remote_supervisor, ssh_link

NAMES = st.sampled_from(["a", "a.b", "a-b", "A", "ab", "ü", "\N{EM DASH}", "z"])
ENTRIES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map(tuple), st.one_of(st.binary(max_size=9), st.none()), max_size=9
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("box") / "ssh") as made:
        yield made


def interpreter(version: str) -> str:
    """One of that version, of this machine's."""
    found = [*Path("/usr/bin").glob(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")]
    if not found:
        pytest.skip(f"needs Python {version}, such as by 'pyenv install {version}'")
    return str(found[0])


@given(entries=ENTRIES)
def test_digests_are_those_of_the_daemon(
    entries: dict[tuple[str, ...], bytes | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for parts, data in entries.items():
        path = root.joinpath(*parts)
        if any(parent.is_file() or parent.is_symlink() for parent in (path, *path.parents)) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            path.symlink_to("elsewhere")
        else:
            path.write_bytes(data)
            path.chmod(0o755 if len(data) % 2 else 0o644)
    mine = remote_supervisor.Digests(lambda: None)

    assert mine.of(str(root), 64 * "0") == digests.of_tree(root)


def test_a_link_in_the_place_of_what_was_pushed_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")
    (tmp_path / "link").symlink_to("file")
    mine = remote_supervisor.Digests(lambda: None)

    assert mine.of(str(tmp_path / "file"), 32 * "0") == digests.of_file(tmp_path / "file", "md5")
    assert mine.of(str(tmp_path / "link"), 64 * "0") == ""


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 11, 199, 200, 201])
def test_output_is_kept_from_both_ends_whatever_pieces_it_comes_in(limit: int) -> None:
    data = bytes(range(200))
    for piece in (1, 3, 7, 64, 200):
        output = remote_supervisor.Output(limit)
        for start in range(0, len(data), piece):
            os.write(output.writer, data[start : start + piece])
            output.drain(1)
        os.close(output.writer)
        kept, half = output.kept(), limit // 2
        output.close()

        whole = data[:half] + f"\n[{200 - limit} bytes cut here]\n".encode() + data[200 - limit + half :]
        assert kept == (data if limit >= 200 else whole)


def test_it_imports_the_standard_library_alone() -> None:
    probe = f"""
import runpy, sys
runpy.run_path({str(ssh_link.PROGRAM)!r})
print([name for name, module in sys.modules.items() if "site-packages" in str(module)])
"""
    completed = subprocess.run([sys.executable, "-IS", "-c", probe], capture_output=True, text=True, check=True)

    assert completed.stdout == "[]\n"


def test_it_ends_when_nobody_is_there() -> None:
    command = [sys.executable, "-IS", "-c", ssh_link.BOOTSTRAP]
    program = ssh_link.PROGRAM.read_bytes()
    done = subprocess.run(command, input=b"%d\n%b" % (len(program), program), capture_output=True, timeout=60, check=True)

    assert json.loads(done.stdout)["kernel"] == os.uname().release
    assert done.stderr == b""


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8", "3.9", "3.11", "3.13"])
async def test_every_python_since_3_6_will_do(version: str, server: sshd.Sshd, tmp_path: Path) -> None:
    (tmp_path / "build" / "ü").mkdir(parents=True)
    (tmp_path / "build" / "ü" / "run").write_text("#!/bin/sh\necho said; echo told >&2; echo kept > out; exec sleep $1\n")
    (tmp_path / "build" / "ü" / "run").chmod(0o755)
    push = base.Push(tmp_path / "build", digests.of_tree(tmp_path / "build"), "build")
    async with server.device(f"box-{version}", python=interpreter(version)).session() as session:
        program = await session.push(push) / "ü" / "run"
        await session.disturb()
        work = await session.directory("trial")
        ended = await session.run(base.Command((str(program), "0"), work))
        await session.pull(work / "out", tmp_path / "out")
        late = await session.run(base.Command((str(program), "1000"), work, timeout=0.1))
        await session.remove(work / "out")
        await session.health()
        facts = await session.fingerprint()

    assert (ended.code, ended.stdout, ended.stderr) == (0, "said\n", "told\n")
    assert ended.seconds < 60
    assert late.ending is base.Ending.TIMED_OUT
    assert (tmp_path / "out").read_text() == "kept\n"
    assert facts["kernel"] == os.uname().release


async def test_a_control_group_accounts_for_what_its_parent_does_not_wait_for(server: sshd.Sshd) -> None:
    base_group = next((Path(path) for path in remote_supervisor.base_groups()), None)
    if base_group is None or not os.access(base_group, os.W_OK):
        pytest.skip("needs control groups of version 2 that we may write to")
    unwaited = "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nif os.fork() == 0:\n"
    unwaited += "    while time.process_time() < 0.3: pass\n    os._exit(0)\ntime.sleep(1.5)\n"
    unwaited += "print(*(line for line in open('/proc/self/cgroup') if line.startswith('0::')))"
    async with server.device().session() as session:
        completed = await session.run(base.Command(("/usr/bin/python3", "-c", unwaited), await session.directory("trial")))

    assert completed.cpu_seconds > 0.25
    own = PurePosixPath(completed.stdout.strip().removeprefix("0::")).name
    assert own.startswith(remote_supervisor.GROUPS)
    assert not (base_group / own).exists()
