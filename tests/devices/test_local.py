import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

import anyio
import launchers
import pytest

from aibenchd import digests, errors, plugins
from aibenchd.devices import base, local


def device(place: Path, **more: object) -> local.Local:
    settings = local.Settings.model_validate({"name": "here", "kind": "local", "minimum_free": "1MiB", **more})
    return local.Local(settings, place / "here", base.RunSettings())


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[base.Session]:
    async with device(tmp_path).session() as session:
        yield session


def shell(text: str, cwd: PurePosixPath, **more: object) -> base.Command:
    return base.Command((text,), cwd, shell=True, **more)  # type: ignore[arg-type]


def test_the_kind_is_installed() -> None:
    assert plugins.load("devices", "local") is local.Local


async def test_a_program_is_pushed_run_and_its_result_pulled(session: base.Session, tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\nread line < $1\necho $line > result\n")
    (tmp_path / "program").chmod(0o755)
    (tmp_path / "input").write_text("42\n")
    program, data = [
        await session.push(base.Push(tmp_path / name, digests.of_file(tmp_path / name), name)) for name in ("program", "input")
    ]
    work = await session.directory("trial")

    completed = await session.run(base.Command((str(program), str(data)), work))
    await session.pull(work / "result", tmp_path / "pulled")

    assert completed.code == 0, completed.stderr
    assert (tmp_path / "pulled").read_text() == "42\n"


async def test_a_directory_is_empty_again_whatever_a_program_left(session: base.Session) -> None:
    work = await session.directory("trial")
    await session.run(shell("mkdir -p a/b; touch a/b/c; ln -s / root; mkfifo pipe; chmod 0 a/b a .", work))

    assert await session.directory("trial") == work
    assert list(Path(work).iterdir()) == []
    assert (await session.run(shell("touch file", work))).code == 0


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b"])
async def test_a_directory_lies_where_directories_do(session: base.Session, name: str) -> None:
    with pytest.raises(errors.HarnessError, match="is no name of a file or directory"):
        await session.directory(name)


async def test_the_environment_is_small_and_the_commands_own_comes_last(tmp_path: Path) -> None:
    async with device(tmp_path, env={"OF": "device", "BOTH": "device"}).session() as session:
        work = await session.directory("trial")
        completed = await session.run(base.Command(("env",), work, env={"BOTH": "command", "OMP_NUM_THREADS": "2"}))

    assert dict(line.split("=", 1) for line in completed.stdout.splitlines()) == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(work),
        "TMPDIR": str(work),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OF": "device",
        "BOTH": "command",
    }


async def test_programs_run_on_the_devices_cpus(tmp_path: Path) -> None:
    cpu = max(os.sched_getaffinity(0))
    async with device(tmp_path, cpus=[cpu]).session() as session:
        completed = await session.run(shell("grep Cpus_allowed_list /proc/self/status", await session.directory("trial")))
        await session.disturb()

    assert completed.stdout.split()[1] == str(cpu)


async def test_one_program_at_a_time(session: base.Session) -> None:
    work = await session.directory("trial")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.run, shell("echo > begun; sleep 1000", work))
        await launchers.until_written(Path(work) / "begun")
        with pytest.raises(errors.HarnessError, match="here: run during run; a session serves one caller at a time"):
            await session.run(base.Command(("true",), work))
        tasks.cancel_scope.cancel()

    assert (await session.run(base.Command(("true",), work))).code == 0


async def test_a_session_that_is_over_does_nothing(tmp_path: Path) -> None:
    async with device(tmp_path).session() as session:
        work = await session.directory("trial")

    with pytest.raises(errors.HarnessError, match="run during the session's end"):
        await session.run(base.Command(("true",), work))


async def test_a_session_finds_what_an_earlier_one_pushed_and_no_work(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data")
    push = base.Push(tmp_path / "data", digests.of_file(tmp_path / "data"), "data")
    async with device(tmp_path).session() as session:
        first = await session.push(push)
        work = await session.directory("trial")
    inode = Path(first).stat().st_ino

    async with device(tmp_path).session() as session:
        assert not Path(work).exists()
        assert await session.push(push) == first
    assert Path(first).stat().st_ino == inode


async def test_nothing_outside_is_pulled(session: base.Session, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    work = await session.directory("trial")
    await session.run(shell(f"ln -s {tmp_path}/secret link; ln -s {tmp_path} directory; echo > plain; mkfifo pipe", work))

    for path, fault in {
        work / "link": "not inside",
        work / "directory" / "secret": "not inside",
        work / ".." / ".." / ".." / "secret": "not inside",
        PurePosixPath("/etc/passwd"): "not inside",
        work / "none": "the program has not written it",
        work / "plain" / "none": "the program has not written it",
        work / "pipe": "no plain file",
        work: "no plain file",
    }.items():
        with pytest.raises(errors.CommandError, match=fault):
            await session.pull(path, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


async def test_a_file_that_is_too_large_is_not_pulled(tmp_path: Path) -> None:
    async with device(tmp_path, pull_limit="1kB").session() as session:
        work = await session.directory("trial")
        await session.run(shell("head -c 1001 /dev/zero > large; head -c 1000 /dev/zero > small", work))
        await session.pull(work / "small", tmp_path / "pulled")

        with pytest.raises(errors.CommandError, match="large: 1001 bytes are more than the 1000 that pull_limit"):
            await session.pull(work / "large", tmp_path / "pulled")
    assert (tmp_path / "pulled").stat().st_size == 1000


async def test_remove_deletes_what_is_there_and_inside(session: base.Session, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("kept")
    work = await session.directory("trial")
    await session.run(shell(f"touch file; mkdir -p a/b; ln -s {tmp_path}/kept link", work))

    for name in ("file", "a", "link", "none", "none/none"):
        await session.remove(work / name)
    with pytest.raises(errors.CommandError, match="not inside"):
        await session.remove(PurePosixPath(tmp_path / "kept"))

    assert list(Path(work).iterdir()) == []
    assert (tmp_path / "kept" / "file").read_text() == "kept"


async def test_a_full_disk_is_an_unhealthy_device(tmp_path: Path) -> None:
    with pytest.raises(errors.DeviceLostError, match=r"here: \d+ bytes are free at .*, fewer than minimum_free"):
        async with device(tmp_path, minimum_free="1000000TiB").session():
            pass


async def test_cpus_that_the_host_lacks_are_an_unhealthy_device(tmp_path: Path) -> None:
    with pytest.raises(
        errors.DeviceLostError, match=r"here: .*CPUs 1023 cannot be used: \w+ \w+ \(or our cpuset\) has [0-9,-]+; mend cpus"
    ):
        async with device(tmp_path, cpus=[1023]).session():
            pass


async def test_a_directory_that_cannot_be_made_is_an_unhealthy_device(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("a file")

    with pytest.raises(errors.DeviceLostError, match=r"here: .*File exists"):
        async with device(tmp_path).session():
            pass


async def test_a_full_disk_met_later_is_the_harness_fault(
    session: base.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, **_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "mkdir", full)

    with pytest.raises(errors.HarnessError, match=r"here: directory: .*No space left on device"):
        await session.directory("trial")


async def test_health_looks_again(session: base.Session, tmp_path: Path) -> None:
    await session.health()
    launcher = launchers.own_launcher()
    os.kill(launcher, signal.SIGKILL)
    (tmp_path / "here" / "work" / "probe").rmdir()
    await launchers.until_gone(launcher)
    await session.health()


async def test_the_fingerprint_is_of_this_host(session: base.Session) -> None:
    fingerprint = await session.fingerprint()

    assert fingerprint["kernel"] == os.uname().release
    assert fingerprint["abi"] == os.uname().machine
    assert fingerprint["memory"].endswith("kB")


async def test_a_block_of_the_host_leaves_no_file_behind(session: base.Session, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*")), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        work = await session.directory("trial")
        await session.run(shell("mktemp; mktemp -d; echo out > result", work))
        await session.pull(work / "result", tmp_path / "pulled")
        await session.remove(work)
        (tmp_path / "pulled").unlink()

    assert (sorted(tmp_path.rglob("*")), len(list(Path("/proc/self/fd").iterdir()))) == before


USAGE = """usage: onnxruntime_runner [-h] (--model FILE | --module MODULE:FACTORY)
                          [--input-dims DIMS]
                          [--threads N]
"""


@pytest.mark.parametrize(
    ("stderr", "stdout", "said"),
    [
        (f"{USAGE}onnxruntime_runner: error: one of --model --module is required\n", "", "onnxruntime_runner: error: one of "),
        (f"warning:   slow\n{USAGE}", "", "warning: slow"),
        (
            USAGE,
            "",
            "usage: onnxruntime_runner [-h] (--model FILE | --module MODULE:FACTORY)\n[--input-dims DIMS]\n[--threads N]",
        ),
        ("first\n\n    last\n", "other", "first\nlast"),
        (f"{'x' * 400}\n{'y' * 200}\nend", "", f"{'y' * 200}\nend"),
        (f"{'x' * 400}\n{'y' * 600}", "", "y" * base.LAST_WORDS),
        ("  \n", "it says why", "it says why"),
    ],
)
def test_a_failure_has_the_last_rows_that_say_something(stderr: str, stdout: str, said: str) -> None:
    assert base.Completed(base.Ending.EXITED, 2, stdout, stderr, 1.0).failure.startswith(f"exit code 2: {said}")


def test_a_failure_that_says_nothing_is_its_exit_code() -> None:
    assert base.Completed(base.Ending.EXITED, 2, "\n", "", 1.0).failure == "exit code 2"
