"""A device behind a real SSH server: what is pushed, run, pulled and read there."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path, PurePosixPath

import anyio
import launchers
import pytest
import sshd

from aibenchd import digests, errors
from aibenchd.devices import base


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("box") / "ssh") as made:
        yield made


@pytest.fixture
async def session(server: sshd.Sshd) -> AsyncIterator[base.Session]:
    async with server.device().session() as session:
        yield session


def shell(text: str, cwd: PurePosixPath, **more: object) -> base.Command:
    return base.Command((text,), cwd, shell=True, **more)  # type: ignore[arg-type]


async def test_a_program_is_pushed_run_and_its_result_pulled(session: base.Session, tmp_path: Path) -> None:
    program = sshd.file(
        tmp_path / "program", b"#!/bin/sh\nread line < $1\necho $line > result\necho said; echo told >&2\n", 0o755
    )
    pushed = [await session.push(one) for one in (program, sshd.file(tmp_path / "input", b"42\n"))]
    work = await session.directory("trial")

    completed = await session.run(base.Command(tuple(map(str, pushed)), work))
    await session.pull(work / "result", tmp_path / "pulled")

    assert (completed.ending, completed.code) == (base.Ending.EXITED, 0), completed.stderr
    assert (completed.stdout, completed.stderr) == ("said\n", "told\n")
    assert (tmp_path / "pulled").read_text() == "42\n"


async def test_what_a_session_keeps_here_lies_below_the_devices_own_directory_and_goes(
    server: sshd.Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    device = server.device("kept")
    left = device.state_directory / "told" / "left"
    left.parent.mkdir(parents=True)
    left.write_text("by an earlier life that was killed")
    async with device.session() as session:
        assert (await session.state())["load"]
        assert not left.exists()
        assert (device.state_directory / "told" / "proc" / "loadavg").exists()
    assert not list(device.state_directory.iterdir())


async def test_the_environment_is_small_and_the_commands_own_comes_last(server: sshd.Sshd) -> None:
    async with server.device(env={"OF": "device", "BOTH": "device"}).session() as session:
        work = await session.directory("trial")
        completed = await session.run(base.Command(("env",), work, env={"BOTH": "command", "ß": "ü \n"}))

    assert completed.stdout.replace("ü \n", "ü") == "".join(
        f"{name}={value}\n"
        for name, value in {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": work,
            "TMPDIR": work,
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": 1,
            "MKL_NUM_THREADS": 1,
            "PYTHONDONTWRITEBYTECODE": 1,
            "OF": "device",
            "BOTH": "command",
            "ß": "ü",
        }.items()
    )


async def test_how_programs_end_is_told(session: base.Session) -> None:
    work = await session.directory("trial")
    exited = await session.run(shell("exit 7", work))
    signalled = await session.run(shell("kill -SEGV $$", work))
    late = await session.run(shell("echo begun; sleep 1000", work, timeout=0.2))
    absent = await session.run(base.Command(("no-such-program",), work))
    closed = await session.run(base.Command((str(work),), work))

    assert (exited.ending, exited.code) == (base.Ending.EXITED, 7)
    assert (signalled.ending, signalled.code) == (base.Ending.SIGNALLED, 11)
    assert (late.ending, late.stdout) == (base.Ending.TIMED_OUT, "begun\n")
    assert late.seconds >= 0.2
    assert (absent.code, absent.stderr) == (127, "no-such-program: No such file or directory\n")
    assert (closed.code, closed.stderr) == (126, f"{work}: Permission denied\n")


async def test_the_kernel_accounts_for_all_its_processes(session: base.Session) -> None:
    work = await session.directory("trial")
    busy = "import time, os; a = b'x' * (64 << 20)\nwhile time.process_time() < 0.3: pass"
    completed = await session.run(base.Command(("sh", "-c", f'/usr/bin/python3 -c "{busy}" & wait'), work))
    small = await session.run(base.Command(("true",), work))

    assert completed.code == 0, completed.stderr
    assert completed.seconds > 0.25
    assert 0.25 < completed.cpu_seconds < 10
    assert completed.peak_bytes > 64 << 20
    assert not small.peak_bytes > 32 << 20
    assert small.cpu_seconds < 0.2


async def test_output_is_kept_from_both_ends(session: base.Session) -> None:
    work = await session.directory("trial")
    completed = await session.run(shell("seq 1000000; echo last", work, output_limit=1000))

    whole = "".join(f"{number}\n" for number in range(1, 1000001)) + "last\n"
    assert completed.stdout == f"{whole[:500]}\n[{len(whole) - 1000} bytes cut here]\n{whole[-500:]}"


async def test_large_output_arrives_whole(session: base.Session) -> None:
    work = await session.directory("trial")
    completed = await session.run(
        shell("head -c 8000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' y >&2", work)
    )

    assert (completed.stdout, completed.stderr) == (8000000 * "x", 3000000 * "y")


async def test_nothing_of_a_program_outlives_it(session: base.Session) -> None:
    work = await session.directory("trial")
    escapes = "setsid sh -c 'trap \"\" TERM HUP; echo $$ > pid; exec sleep 1000' & while [ ! -s pid ]; do sleep 0.01; done"
    completed = await session.run(shell(escapes, work))

    assert completed.code == 0
    assert not Path(f"/proc/{Path(work, 'pid').read_text().strip()}").exists()


async def test_cancelling_kills_all_of_a_program_and_the_session_goes_on(session: base.Session) -> None:
    work = await session.directory("trial")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.run, shell("setsid sleep 1000 & echo $! > pid; echo $$ > begun; wait", work))
        pids = [int(await launchers.until_written(Path(work) / name)) for name in ("begun", "pid")]
        with pytest.raises(errors.HarnessError, match="box: run during run; a session serves one caller at a time"):
            await session.run(base.Command(("true",), work))
        tasks.cancel_scope.cancel()

    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert (await session.run(base.Command(("true",), work))).code == 0


async def test_programs_run_on_the_devices_cpus(server: sshd.Sshd) -> None:
    cpu = max(os.sched_getaffinity(0))
    async with server.device(cpus=[cpu]).session() as session:
        work = await session.directory("trial")
        await session.disturb()
        completed = await session.run(shell("grep Cpus_allowed_list /proc/self/status", work))
        elsewhere = [one for one in sorted(os.sched_getaffinity(0)) if one != cpu]
        chosen = await session.run(shell("grep Cpus_allowed_list /proc/self/status", work, cpus=tuple(elsewhere[:1]) or (cpu,)))

    assert completed.stdout.split()[1] == str(cpu)
    assert chosen.stdout.split()[1] == str(elsewhere[0] if elsewhere else cpu)


async def test_a_directory_is_empty_again_whatever_a_program_left(session: base.Session) -> None:
    work = await session.directory("trial")
    await session.run(shell("mkdir -p a/b; touch a/b/c; ln -s / root; mkfifo pipe; chmod 0 a/b a .", work))

    assert await session.directory("trial") == work
    listed = await session.run(shell("ls -A; touch file", work))

    assert (listed.code, listed.stdout) == (0, "")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b"])
async def test_a_directory_lies_where_directories_do(session: base.Session, name: str) -> None:
    with pytest.raises(errors.HarnessError, match="is no name of a file or directory"):
        await session.directory(name)


async def test_a_directory_that_cannot_be_made_fails_what_comes_next(session: base.Session, server: sshd.Sshd) -> None:
    shutil.rmtree(server.home / "box" / "work")
    work = await session.directory("trial")
    with pytest.raises(errors.HarnessError, match=r"box: run: .*No such file or directory"):
        await session.run(base.Command(("true",), work))


async def test_a_tree_is_pushed_with_its_links_and_modes(session: base.Session, tmp_path: Path) -> None:
    source = tmp_path / "build"
    (source / "lib" / "deep").mkdir(parents=True)
    (source / "empty ü").mkdir()
    for name, data, mode in (
        ("program", b"#!/bin/sh\ncat lib/data", 0o755),
        ("lib/data", b"data", 0o644),
        ("lib/none", b"", 0o600),
    ):
        (source / name).write_bytes(data)
        (source / name).chmod(mode)
    (source / "lib" / "deep" / "up").symlink_to("../../program")
    (source / "libs").symlink_to("lib")
    push = base.Push(source, digests.of_tree(source), "build")

    copy = await session.push(push)

    assert digests.of_tree(Path(copy)) == push.digest
    assert (await session.run(base.Command((str(copy / "program"),), copy))).stdout == "data"
    assert os.access(copy / "program", os.X_OK)
    assert Path(copy / "program").stat().st_mode & 0o222 == 0


async def test_a_link_that_leads_out_is_refused(session: base.Session, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "link").symlink_to("/etc/passwd")
    with pytest.raises(errors.CommandError, match="which is not in what is pushed"):
        await session.push(base.Push(tmp_path / "build", "0" * 64, "build"))


async def test_what_is_no_file_is_refused(session: base.Session, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    os.mkfifo(tmp_path / "build" / "pipe")
    with pytest.raises(errors.CommandError, match="pipe: neither a file nor a directory"):
        await session.push(base.Push(tmp_path / "build", "0" * 64, "build"))


async def test_what_lies_there_is_not_sent_again(server: sshd.Sshd, tmp_path: Path) -> None:
    push = sshd.file(tmp_path / "model", os.urandom(100_000))
    async with server.device().session() as session:
        first = await session.push(push)
        inode = Path(first).stat().st_ino
        push.source.unlink()
        assert await session.push(push) == first
    async with server.device().session() as session:
        assert await session.push(push) == first
    assert Path(first).stat().st_ino == inode


async def test_an_md5_is_a_digest_too_and_paths_are_of_equal_length(session: base.Session, tmp_path: Path) -> None:
    push = sshd.file(tmp_path / "model", b"data")
    by_sha256 = await session.push(push)
    by_md5 = await session.push(base.Push(push.source, digests.of_file(push.source, "md5"), "model"))

    assert Path(by_md5).read_bytes() == b"data"
    assert len(str(by_md5)) == len(str(by_sha256))


async def test_a_copy_that_was_changed_is_made_again(session: base.Session, tmp_path: Path) -> None:
    push = sshd.file(tmp_path / "program", b"data")
    copy = Path(await session.push(push))
    copy.chmod(0o600)
    copy.write_bytes(b"atad")

    assert Path(await session.push(push)).read_bytes() == b"data"


async def test_bytes_that_are_not_those_of_the_digest_are_never_there(session: base.Session, tmp_path: Path) -> None:
    push = sshd.file(tmp_path / "program", b"before")
    push.source.write_bytes(b"after it")
    with pytest.raises(errors.HarnessError, match=rf"its digest on the device is [0-9a-f]{{64}}, not {push.digest}"):
        await session.push(push)
    push.source.write_bytes(b"before")
    assert Path(await session.push(push)).read_bytes() == b"before"


async def test_the_least_recently_used_goes_first_and_never_what_is_in_use(server: sshd.Sshd, tmp_path: Path) -> None:
    pushes = [sshd.file(tmp_path / f"data{number}", os.urandom(400_000)) for number in range(3)]
    paths = []
    for push in pushes:
        async with server.device("small", store_size="1MB").session() as session:
            paths.append(Path(await session.push(push)))
            await session.push(pushes[0])

    assert [path.exists() for path in paths] == [True, False, True]


async def test_nothing_outside_is_pulled_or_removed(session: base.Session, tmp_path: Path) -> None:
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
    for path in (work / "directory" / "secret", PurePosixPath(tmp_path / "secret"), work.parent):
        with pytest.raises(errors.CommandError, match="not inside"):
            await session.remove(path)
    assert not (tmp_path / "pulled").exists()
    assert (tmp_path / "secret").exists()


async def test_remove_deletes_what_is_there(session: base.Session, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    work = await session.directory("trial")
    await session.run(shell(f"touch file; mkdir -p a/b; ln -s {tmp_path} link", work))

    for name in ("file", "a", "link", "none", "none/none"):
        await session.remove(work / name)

    assert list(Path(work).iterdir()) == []
    assert (tmp_path / "kept").exists()


async def test_large_files_go_both_ways(session: base.Session, tmp_path: Path) -> None:
    push = sshd.file(tmp_path / "model", os.urandom(9_000_001))
    copy = await session.push(push)
    work = await session.directory("trial")
    await session.run(shell(f"cp '{copy}' out; chmod 0 out", work))
    await session.pull(work / "out", tmp_path / "pulled")

    assert digests.of_file(tmp_path / "pulled") == push.digest
    assert not list(tmp_path.glob(".*partial"))


async def test_a_file_that_is_too_large_is_not_pulled(server: sshd.Sshd, tmp_path: Path) -> None:
    async with server.device(pull_limit="1kB").session() as session:
        work = await session.directory("trial")
        await session.run(shell("head -c 1001 /dev/zero > large; head -c 1000 /dev/zero > small", work))
        await session.pull(work / "small", tmp_path / "pulled")
        with pytest.raises(errors.CommandError, match="large: 1001 bytes are more than the 1000 that pull_limit"):
            await session.pull(work / "large", tmp_path / "pulled")
    assert (tmp_path / "pulled").stat().st_size == 1000


async def test_a_session_that_is_over_does_nothing(server: sshd.Sshd) -> None:
    async with server.device().session() as session:
        work = await session.directory("trial")
    with pytest.raises(errors.HarnessError, match="run during the session's end"):
        await session.run(base.Command(("true",), work))


async def test_the_fingerprint_is_of_the_device(session: base.Session) -> None:
    fingerprint = await session.fingerprint()

    assert fingerprint["kernel"] == os.uname().release
    assert fingerprint["abi"] == os.uname().machine
    assert fingerprint["memory"].endswith("kB")
    assert float((await session.state())["load"]) >= 0
    await session.health()


async def test_a_frequency_that_cannot_be_set_is_told(session: base.Session) -> None:
    if Path("/sys/devices/system/cpu/cpu0/cpufreq").exists():
        pytest.skip("this machine's frequency can be set, and tests leave it alone")
    with pytest.raises(errors.CommandError, match="the frequency of cpu0 cannot be set: /sys/devices"):
        await session.changes(base.Conditioning(governor="performance"))
    assert await session.changes(base.Conditioning()) == ()
    with pytest.raises(errors.HarnessError, match=r"apply: /sys/.*/scaling_governor cannot be set to performance: "):
        await session.apply({"verb": "set-governor", "cpus": [0], "governor": "performance"})
    with pytest.raises(errors.HarnessError, match="knows no action 'fly'"):
        await session.apply({"verb": "fly"})


async def test_a_reboot_that_is_not_permitted_is_told(server: sshd.Sshd) -> None:
    async with server.device(reboot_command=["sh", "-c", "echo you may not >&2; exit 1"]).session() as session:
        with pytest.raises(errors.CommandError, match=r"exit code 1: you may not; let .* do that, such as with a rule of sudo"):
            await session.reboot()
        await session.health()
