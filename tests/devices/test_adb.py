"""Sessions on phones, through the real adb server, against a phone's side of the protocol that fails when it is told to."""

import contextlib
import json
import math
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import adbd
import anyio
import launchers
import pytest
import remotes

from aibenchd import digests, errors, plugins
from aibenchd.devices import adb, adbline, adbphone, adbstore, base, metering

BIG = 30 << 20

server, phone = adbd.shared_server, adbd.fresh_phone


@pytest.fixture
async def old_phone(tmp_path: Path) -> AsyncIterator[adbd.Phone]:
    """One from before Android 7, whose shells are terminals."""
    async with adbd.phone(tmp_path / "old", features="cmd") as phone:
        yield phone


def device(server: adbd.Server, phone: adbd.Phone | None, **more: object) -> adb.Adb:
    keys = {"address": phone.address} if phone else {}
    given = {"name": "pixel", "kind": "adb", "server_port": server.port, "minimum_free": "1MiB", **keys, **more}
    return adb.Adb(adb.Settings.model_validate(given), Path("/none"), base.RunSettings())


@pytest.fixture
async def session(server: adbd.Server, phone: adbd.Phone) -> AsyncIterator[base.Session]:
    async with device(server, phone).session() as session:
        yield session


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """Deadlines that a test can wait for. Around what is to fail alone: what is to work may take as long as the machine takes."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (adbphone, "ANSWER_SECONDS"),
            (adbphone, "SERVER_SECONDS"),
            (adbphone, "SETTLE_SECONDS"),
            (adbphone, "CONNECT_SECONDS"),
            (adbstore, "HASH_SECONDS"),
        ):
            patch.setattr(module, name, 1.5)
        patch.setattr(adbphone, "SLOWEST", 100 << 20)
        yield


def push_of(path: Path) -> base.Push:
    return base.Push(path, digests.of_tree(path) if path.is_dir() else digests.of_file(path), path.name)


def shell(text: str, cwd: PurePosixPath, **more: object) -> base.Command:
    return base.Command((text,), cwd, shell=True, **more)  # type: ignore[arg-type]


async def works(server: adbd.Server, phone: adbd.Phone) -> None:
    """A session can be had, nothing of before runs, and a program does."""
    with anyio.fail_after(30):
        async with device(server, phone).session() as session:
            completed = await session.run(shell("echo well", await session.directory("work")))
    assert completed.stdout == "well\n"
    await gone(phone)


async def gone(phone: adbd.Phone) -> None:
    """Wait until nothing runs there any more; what nobody asks after is ended by the phone itself, in its own time."""
    with anyio.fail_after(40):
        while phone.processes():
            await anyio.sleep(0.02)


async def running(phone: adbd.Phone, file: str = "begun") -> None:
    await launchers.until_written(phone.directory / "work/work" / file)


def test_the_kind_is_installed() -> None:
    assert plugins.load("devices", "adb") is adb.Adb


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "either a serial or an address"),
        ({"serial": "a", "address": "b:5555"}, "either a serial or an address"),
        ({"serial": "a", "directory": "tmp"}, "an absolute path on the phone"),
        ({"serial": "a", "directory": "/data/my files"}, "without spaces"),
    ],
)
def test_a_phone_is_named_in_one_way(keys: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        adb.Settings.model_validate({"name": "pixel", "kind": "adb", **keys})


# ---- what works


async def test_a_build_is_pushed_run_and_its_result_pulled(session: base.Session, tmp_path: Path) -> None:
    build = tmp_path / "build"
    (build / "lib").mkdir(parents=True)
    (build / "program").write_text('#!/bin/sh\ncat "${0%/*}/lib/data" - >result\necho $LD_LIBRARY_PATH\n')
    (build / "program").chmod(0o755)
    (build / "lib" / "data file").write_text("42\n")
    (build / "lib" / "data").symlink_to("data file")
    (build / "empty").mkdir()

    there = await session.push(push_of(build))
    work = await session.directory("work")
    completed = await session.run(base.Command((str(there / "program"),), work, env={"LD_LIBRARY_PATH": "/own"}))
    await session.pull(work / "result", tmp_path / "pulled")

    assert completed.failure == ""
    assert completed.stdout.startswith("/own:/")
    assert completed.stdout.endswith(f"/{there.relative_to('/data')}\n")
    assert (tmp_path / "pulled").read_text() == "42\n"


async def test_thirty_megabytes_go_there_once_and_come_back(server: adbd.Server, phone: adbd.Phone, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(range(256)) * (BIG // 256))
    for _ in range(2):
        async with device(server, phone).session() as session:
            there = await session.push(push_of(tmp_path / "big"))
            assert await session.push(push_of(tmp_path / "big")) == there
            work = await session.directory("work")
            assert (await session.run(base.Command(("cp", str(there), "copy"), work))).failure == ""
            await session.pull(work / "copy", tmp_path / "pulled")
            assert digests.of_file(tmp_path / "pulled") == digests.of_file(tmp_path / "big")
    assert sum(service == "sync:" for service in phone.services) == 5  # the supervisor twice, the file, and back twice


async def test_bytes_that_are_not_those_of_the_digest_are_sent_again(
    server: adbd.Server, phone: adbd.Phone, tmp_path: Path
) -> None:
    (tmp_path / "model").write_text("good")
    async with device(server, phone).session() as session:
        there = await session.push(push_of(tmp_path / "model"))
    (phone.root / there.relative_to("/")).write_text("evil")
    async with device(server, phone).session() as session:
        assert await session.push(push_of(tmp_path / "model")) == there
    assert (phone.root / there.relative_to("/")).read_text() == "good"


async def test_the_least_recently_used_goes(server: adbd.Server, phone: adbd.Phone, tmp_path: Path) -> None:
    files = [tmp_path / f"file{index}" for index in range(3)]
    for index, file in enumerate(files):
        file.write_bytes(bytes([index]) * (1 << 20))
    paths = []
    for file in files:
        async with device(server, phone, store_size="2560KiB").session() as session:
            paths.append(await session.push(push_of(file)))
    assert [(phone.root / path.relative_to("/")).exists() for path in paths] == [False, True, True]


async def test_a_phone_whose_ls_knows_no_order_keeps_to_its_size_too(
    server: adbd.Server, phone: adbd.Phone, tmp_path: Path
) -> None:
    """As Android 6's."""
    phone.script(
        "ls", "case $1 in -*) echo \"Unknown option '-t'. Aborting.\" >&2; exit 1 ;; esac\nfor one in *; do echo $one; done"
    )
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode() * (1 << 19))
        async with device(server, phone, store_size="1MiB").session() as session:
            pushed = await session.push(push_of(tmp_path / name))
    assert [path.name for path in (phone.directory / "programs").glob("[!.]*")] == [pushed.parent.name]


async def test_a_link_out_of_what_is_pushed_is_refused(session: base.Session, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "link").symlink_to("../../etc/passwd")
    with pytest.raises(errors.CommandError, match="a link to"):
        await session.push(push_of(tmp_path / "build"))


ENDINGS = [
    ("exit 0", base.Ending.EXITED, 0),
    ("exit 3", base.Ending.EXITED, 3),
    ("exit 127", base.Ending.EXITED, 127),
    ("kill -9 $$", base.Ending.SIGNALLED, 9),
    ("kill -11 $$", base.Ending.SIGNALLED, 11),
]


@pytest.mark.parametrize(("text", "ending", "code"), ENDINGS)
async def test_how_a_program_ended(session: base.Session, text: str, ending: base.Ending, code: int) -> None:
    completed = await session.run(shell(f"echo out; echo err >&2; {text}", await session.directory("work")))
    assert (completed.ending, completed.code, completed.stdout) == (ending, code, "out\n")
    assert completed.stderr.startswith("err\n")


@pytest.mark.parametrize(("text", "ending", "code"), ENDINGS)
async def test_how_a_program_ended_on_an_old_phone(
    server: adbd.Server, old_phone: adbd.Phone, text: str, ending: base.Ending, code: int
) -> None:
    async with device(server, old_phone).session() as session:
        completed = await session.run(shell(f"echo out; echo more; {text}", await session.directory("work")))
    assert (completed.ending, completed.code) == (ending, code)
    assert completed.stdout.startswith("out\nmore\n")


async def test_a_program_has_its_environment_directory_and_cpus(server: adbd.Server, phone: adbd.Phone) -> None:
    async with device(server, phone, env={"A": "device", "B": "it's"}, cpus=[0]).session() as session:
        work = await session.directory("work")
        text = 'echo "$A $B $C"; pwd; grep Cpus_allowed_list /proc/self/status; cat'
        completed = await session.run(shell(text, work, env={"C": "a b\nc"}))
        await session.disturb()
    assert completed.stdout.split("\n")[:2] == ["device it's a b", "c"]
    assert completed.stdout.split("\n")[2].endswith(str(work))
    assert completed.stdout.split("\n")[3].split()[1] == "0"
    assert completed.seconds < 5
    assert completed.cpu_seconds < 5


async def test_output_is_bounded_and_what_is_cut_is_said(session: base.Session) -> None:
    text = "echo begin; i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; echo end"
    completed = await session.run(shell(text, await session.directory("work"), output_limit=1000))
    assert completed.stdout.startswith("begin\n")
    assert completed.stdout.endswith("end\n")
    assert "bytes cut here]" in completed.stdout
    assert len(completed.stdout) < 1100
    assert completed.code == 0


async def test_a_directory_is_empty_again_whatever_a_program_left(session: base.Session, phone: adbd.Phone) -> None:
    work = await session.directory("work")
    await session.run(shell("mkdir -p a/b; echo >a/b/c; ln -s / root; chmod 0 a/b a", work))
    assert await session.directory("work") == work
    assert list((phone.directory / "work/work").iterdir()) == []
    with pytest.raises(errors.HarnessError, match="is left alone"):
        await session.remove(PurePosixPath("/data/local"))
    await session.remove(work)
    assert not (phone.directory / "work/work").exists()


async def test_nothing_outside_is_pulled(session: base.Session, tmp_path: Path) -> None:
    work = await session.directory("work")
    await session.run(shell("ln -s /etc/passwd link; echo >plain", work))
    for path, fault in {
        work / "link": "not inside",
        PurePosixPath("/etc/passwd"): "not inside",
        work / "none": "has not written it",
        work: "no plain file",
    }.items():
        with pytest.raises(errors.CommandError, match=fault):
            await session.pull(path, tmp_path / "pulled")


async def test_what_a_program_made_unreadable_is_its_own_fault(session: base.Session, phone: adbd.Phone, tmp_path: Path) -> None:
    work = await session.directory("work")
    await session.run(shell("echo 42 >result; chmod 0 result", work))
    await session.pull(work / "result", tmp_path / "pulled")
    assert (tmp_path / "pulled").read_text() == "42\n"
    phone.script("wc", "echo 'result: I/O error' >&2; exit 1")
    with pytest.raises(errors.CommandError, match="cannot be read"):
        await session.pull(work / "result", tmp_path / "pulled")


async def test_what_is_larger_than_the_limit_is_not_pulled(server: adbd.Server, phone: adbd.Phone, tmp_path: Path) -> None:
    async with device(server, phone, pull_limit="1KiB").session() as session:
        work = await session.directory("work")
        await session.run(shell("dd if=/dev/zero of=large bs=2048 count=1", work))
        with pytest.raises(errors.CommandError, match=r"more than pull_limit \(1024\)"):
            await session.pull(work / "large", tmp_path / "pulled")


async def test_the_phones_log_of_a_programs_time_comes_with_it(server: adbd.Server, phone: adbd.Phone) -> None:
    (phone.root / "phone/logcat").write_text("11-24 13:00:00.000 1 1 I Bench: PyTorchObserver {}\n")
    async with device(server, phone, logcat=True).session() as session:
        completed = await session.run(shell("echo out", await session.directory("work")))
    assert completed.stdout == "out\n"
    assert "PyTorchObserver {}" in completed.stderr


async def test_a_session_that_is_over_does_nothing(server: adbd.Server, phone: adbd.Phone) -> None:
    async with device(server, phone).session() as session:
        work = await session.directory("work")
    with pytest.raises(errors.HarnessError, match="run during the session's end"):
        await session.run(base.Command(("true",), work))


async def test_many_sessions_at_once(server: adbd.Server, tmp_path: Path) -> None:
    async def one(index: int) -> None:
        async with adbd.phone(tmp_path / str(index)) as phone, device(server, phone).session() as session:
            completed = await session.run(shell(f"echo {index}", await session.directory("work")))
            assert completed.stdout == f"{index}\n"

    async with anyio.create_task_group() as tasks:
        for index in range(8):
            tasks.start_soon(one, index)


# ---- what is read


async def test_a_phone_tells_what_it_is_and_how_it_is(session: base.Session, phone: adbd.Phone) -> None:
    phone.heat(3, 61.5)
    fingerprint, state = await session.fingerprint(), await session.state()
    assert {name: fingerprint[name] for name in ("model", "release", "sdk", "abi", "os", "governor")} == {
        "model": "Model T",
        "release": "14",
        "sdk": "34",
        "abi": "x86_64",
        "os": "Android 14",
        "governor": "schedutil",
    }
    assert "0123456789" not in str(fingerprint)
    assert len(fingerprint["hash"]) == 16
    assert (state["temperature"], state["battery"], state["throttled"]) == (
        "61.5",
        "87",
        "Android's thermal status is severe",
    )
    assert float(state["load"]) >= 0


# ---- what is stopped


async def test_a_timeout_kills_all_that_a_program_started(session: base.Session, phone: adbd.Phone) -> None:
    work = await session.directory("work")
    text = "(setsid sleep 1000 &) ; sleep 1001 & echo >begun; sleep 1002"
    completed = await session.run(shell(text, work, timeout=0.5))
    assert completed.ending is base.Ending.TIMED_OUT
    assert completed.failure.startswith("timed out")
    assert not phone.processes()


async def test_a_timeout_on_an_old_phone(server: adbd.Server, old_phone: adbd.Phone) -> None:
    async with device(server, old_phone).session() as session:
        completed = await session.run(shell("sleep 1000 & sleep 1001", await session.directory("work"), timeout=0.5))
        assert completed.ending is base.Ending.TIMED_OUT
        assert not old_phone.processes()


async def test_what_a_program_leaves_running_is_killed(session: base.Session, phone: adbd.Phone) -> None:
    completed = await session.run(shell("setsid sleep 1000 >/dev/null & sleep 1001 &", await session.directory("work")))
    assert completed.code == 0
    assert not phone.processes()


async def test_a_phone_without_setsid(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.without("setsid")
    async with device(server, phone).session() as session:
        work = await session.directory("work")
        assert (await session.run(shell("command -v setsid", work))).failure
        completed = await session.run(shell("sleep 1000 & sleep 1001", work, timeout=0.3))
        assert completed.ending is base.Ending.TIMED_OUT
        assert not phone.processes()


async def test_a_phone_without_toybox_says_what_it_lacks_and_blames_no_program(server: adbd.Server, phone: adbd.Phone) -> None:
    """As Android 5, which had a few programs of its own."""
    phone.features = "cmd"
    phone.without("env", "find", "readlink", "sha256sum", "stat")
    said = "its shell has no env, find, readlink, stat; Android has them all from 7 on"
    with pytest.raises(errors.DeviceLostError, match=said):
        async with device(server, phone).session():
            pass
    with pytest.raises(errors.DeviceLostError, match=said):
        await device(server, phone).reach()


async def test_a_phone_that_cannot_hash_says_so(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.without("sha256sum", "sha1sum", "md5sum")
    with pytest.raises(
        errors.DeviceLostError, match="none of the programs sha256sum sha1sum md5sum, by which files are verified"
    ):
        async with device(server, phone).session():
            pass


async def test_trials_are_held_to_cpus_by_taskset_alone(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.without("taskset")
    with pytest.raises(errors.DeviceLostError, match="it has no taskset, so trials cannot be held to cpus; remove them"):
        async with device(server, phone, cpus=[0]).session():
            pass
    async with device(server, phone).session() as session:
        assert (await session.run(shell("echo well", await session.directory("work")))).stdout == "well\n"


async def test_cancellation_kills_it(session: base.Session, phone: adbd.Phone) -> None:
    work = await session.directory("work")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.run, shell("sleep 1000 & echo >begun; sleep 1001", work))
        await running(phone)
        with pytest.raises(errors.HarnessError, match="pixel: run during run; a session serves one caller at a time"):
            await session.run(base.Command(("true",), work))
        tasks.cancel_scope.cancel()
    assert not phone.processes()
    assert (await session.run(shell("echo again", work))).stdout == "again\n"


async def test_a_cancelled_push_leaves_a_session_that_works(session: base.Session, phone: adbd.Phone, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * BIG)
    phone.faults.append(adbd.Fault("sync", "hang", 1 << 20))
    with anyio.move_on_after(1) as scope:
        await session.push(push_of(tmp_path / "big"))
    assert scope.cancelled_caught
    there = await session.push(push_of(tmp_path / "big"))
    assert (phone.root / there.relative_to("/")).stat().st_size == BIG


# ---- what breaks


@pytest.mark.parametrize("what", ["drop", "garbage", "close", "hang"])
async def test_a_push_that_breaks(server: adbd.Server, phone: adbd.Phone, tmp_path: Path, what: str) -> None:
    (tmp_path / "big").write_bytes(b"x" * BIG)
    async with device(server, phone).session() as session:
        phone.faults.append(adbd.Fault("sync", what, 1 << 20))
        with hurried(), pytest.raises((errors.DeviceLostError, errors.HarnessError)):
            await session.push(push_of(tmp_path / "big"))
    assert not list((phone.directory / "programs").glob("[0-9a-f]*/big"))
    await works(server, phone)


@pytest.mark.parametrize("what", ["drop", "garbage", "close", "hang"])
async def test_a_pull_that_breaks_leaves_what_was_there(
    server: adbd.Server, phone: adbd.Phone, tmp_path: Path, what: str
) -> None:
    pulled = tmp_path / "here" / "pulled"
    pulled.parent.mkdir()
    pulled.write_text("before")
    async with device(server, phone).session() as session:
        work = await session.directory("work")
        await session.run(shell(f"dd if=/dev/zero of=big bs={BIG} count=1", work))
        phone.faults.append(adbd.Fault("sync", what, 1 << 20))
        with hurried(), pytest.raises((errors.DeviceLostError, errors.HarnessError)):
            await session.pull(work / "big", pulled)
    assert pulled.read_text() == "before"
    assert list(pulled.parent.iterdir()) == [pulled]
    await works(server, phone)


async def test_a_line_that_drops_during_a_run_kills_it(server: adbd.Server, phone: adbd.Phone) -> None:
    async with device(server, phone).session() as session, anyio.create_task_group() as tasks:
        work = await session.directory("work")
        tasks.start_soon(_drop_when_running, phone)
        with pytest.raises(errors.DeviceLostError, match="pixel: "):
            await session.run(shell("(setsid sleep 1000 &); sleep 1001 & echo >begun; sleep 1002", work))
        await gone(phone)
    await works(server, phone)


async def test_on_a_line_that_is_half_open_a_run_ends_by_itself_and_on_one_that_is_quiet_it_does_not(
    server: adbd.Server, phone: adbd.Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not adbd.shell().endswith("mksh"):
        pytest.skip("mksh, Android's own shell, is not installed; this host's knows no read -t")
    monkeypatch.setattr(adbphone, "BEAT_SECONDS", 0.3)
    monkeypatch.setattr(adbphone, "SILENCE_SECONDS", 3.0)
    async with device(server, phone).session() as session, anyio.create_task_group() as tasks:
        work = await session.directory("work")
        completed = await session.run(shell("sleep 5; echo well", work))
        assert (completed.code, completed.stdout) == (0, "well\n")
        tasks.start_soon(_deafen_when_running, phone)
        with pytest.raises(errors.DeviceLostError, match="pixel: "):
            await session.run(shell("(setsid sleep 1000 &); sleep 1001 & echo >begun; sleep 1002", work))
    await works(server, phone)


async def _deafen_when_running(phone: adbd.Phone) -> None:
    """Nothing comes there any more, until all that ran has ended; the server does not know."""
    await running(phone)
    phone.mute = True
    await gone(phone)
    phone.mute = False
    phone.drop()


async def _drop_when_running(phone: adbd.Phone) -> None:
    await running(phone)
    phone.drop()


async def test_a_phone_that_hangs_in_a_run_is_lost_in_time(server: adbd.Server, phone: adbd.Phone) -> None:
    async with device(server, phone).session() as session:
        work = await session.directory("work")
        phone.faults.append(adbd.Fault("shell", "hang"))
        with hurried(), pytest.raises(errors.DeviceLostError, match="did not end although it was told to"):
            await session.run(shell("echo >begun; echo said; sleep 1000", work, timeout=0.3))
    await works(server, phone)


async def test_garbage_in_place_of_output_is_no_output(server: adbd.Server, phone: adbd.Phone) -> None:
    async with device(server, phone).session() as session:
        work = await session.directory("work")
        phone.faults.append(adbd.Fault("shell", "garbage"))
        with pytest.raises(errors.DeviceLostError, match="garbage"):
            await session.run(shell("echo said", work))
    await works(server, phone)


async def test_a_thread_that_waits_for_a_server_that_is_frozen_is_freed(tmp_path: Path) -> None:
    with adbd.server(tmp_path) as frozen:
        frozen.signal(signal.SIGSTOP)
        try:
            with hurried(), pytest.raises(errors.DeviceLostError, match=r"does not answer: no answer within .* restart it: "):
                async with device(frozen, None, serial="none").session():
                    pass
        finally:
            frozen.signal(signal.SIGCONT)


async def test_a_call_that_is_cancelled_frees_its_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        line = adbline.Line("127.0.0.1", listening.getsockname()[1])
        with anyio.move_on_after(0.2) as scope:
            await line.call(lambda client: client.server_version(), 1000)
        assert scope.cancelled_caught


async def test_what_a_killed_session_left_running_is_killed_by_the_next(server: adbd.Server, phone: adbd.Phone) -> None:
    """Its line hangs, so that the phone does not learn of it."""
    tag = f"AIBENCHD_RUN={phone.directory}:0"
    left = subprocess.Popen(["sleep", "1000"], env={"PATH": "/usr/bin:/bin", **dict([tag.split("=", 1)])})
    try:
        await works(server, phone)
        assert left.wait(10) == -signal.SIGKILL
    finally:
        left.kill()
        left.wait()


# ---- what is wrong with a phone, and what is to be done


async def lost(one: adb.Adb) -> str:
    with pytest.raises(errors.DeviceLostError) as caught, anyio.fail_after(40):
        await one.reach()
    with pytest.raises(errors.DeviceLostError), anyio.fail_after(40):
        async with one.session():
            pass
    return str(caught.value)


async def test_no_server_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent, unit = adbd.Server(tmp_path), tmp_path / "aibenchd-adb.service"
    monkeypatch.setattr(adbphone, "UNITS", (unit,))
    said = await lost(device(absent, None, serial="none"))
    told = f"the adb server at 127.0.0.1:{absent.port} does not answer: Connection refused; start or restart it: "
    assert f"{told}adb start-server" in said
    unit.touch()
    assert f"{told}systemctl restart aibenchd-adb" in await lost(device(absent, None, serial="none"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", absent.port), 1)


async def test_a_phone_that_is_not_there_and_those_that_are(
    server: adbd.Server, phone: adbd.Phone, session: base.Session
) -> None:
    absent = device(server, None, serial="0A1B2C")
    said = await lost(absent)
    assert "pixel: 0A1B2C is not there" in said
    assert f"{phone.address} (device)" in said
    with pytest.raises(errors.DeviceLostError) as caught:
        await absent.reach()
    assert errors.keys_of(caught.value) == ("serial",)
    with pytest.raises(errors.DeviceLostError, match="fewer than minimum_free") as caught:  # where an earlier session was
        await device(server, phone, minimum_free="900000GiB").reach()
    assert errors.keys_of(caught.value) == ("minimum_free",)


async def test_a_phone_in_the_network_that_is_off(server: adbd.Server, tmp_path: Path) -> None:
    said = await lost(device(server, None, address=f"127.0.0.1:{remotes.free_port()}"))
    assert "is the phone on, in this network, and debugging over it on?" in said


async def test_a_phone_whose_line_has_just_dropped_is_found(server: adbd.Server, phone: adbd.Phone) -> None:
    """The server shows the stale line for a moment, and that it is connected."""
    for moment in range(16):
        await device(server, phone).reach()
        phone.drop()
        await anyio.sleep(moment * 0.005)


async def test_a_phone_that_does_not_trust_this_host(server: adbd.Server, tmp_path: Path) -> None:
    async with adbd.phone(tmp_path / "phone", trusts=False) as phone:
        assert "accept the key on the phone's screen" in await lost(device(server, phone))
        phone.trusts = True
        phone.drop()
        await works(server, phone)


async def test_a_phone_that_is_offline(server: adbd.Server, tmp_path: Path) -> None:
    async with adbd.phone(tmp_path / "phone", mute=True) as phone:
        with hurried():
            assert "pixel: " in await lost(device(server, phone))
        phone.mute = False
        phone.drop()
        await works(server, phone)


async def test_two_phones_of_one_serial_number(server: adbd.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real server cannot be had to show two over the network."""
    monkeypatch.setattr(adbline.Client, "rows", lambda self: [("same", "device"), ("same", "device")])
    assert "two phones with one serial number" in await lost(device(server, None, serial="same"))


async def test_a_server_that_is_replaced_by_another_version(
    server: adbd.Server, phone: adbd.Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with device(server, phone).session() as session:
        await session.health()
        monkeypatch.setattr(adbline.adbutils.AdbClient, "server_version", lambda self: 39)
        with pytest.raises(errors.DeviceLostError, match=r"version 39 in place of 41: two adb of different versions"):
            await session.health()


async def test_a_server_that_is_started_anew_is_found_again(tmp_path: Path, phone: adbd.Phone) -> None:
    with adbd.server(tmp_path) as server:
        async with device(server, phone).session() as session:
            server.stop()
            with hurried(), pytest.raises(errors.DeviceLostError, match="does not answer"):
                await session.directory("work")
        server.start()
        await works(server, phone)


async def test_a_phone_that_is_still_starting(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.set(**{"sys.boot_completed": ""})
    with pytest.raises(errors.DeviceLostError, match="Android has not started yet"):
        async with device(server, phone).session():
            pass


async def test_a_phone_that_is_full(server: adbd.Server, phone: adbd.Phone) -> None:
    with pytest.raises(errors.DeviceLostError, match=r"fewer than minimum_free .*; free some, or lower store_size"):
        async with device(server, phone, minimum_free="900000GiB").session():
            pass


# ---- what is changed


WISHES = base.Conditioning(frequency="max", governor="performance")
BEFORE = ("schedutil", "300000", "1800000")


async def test_frequency_is_set_and_put_back_as_root(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.script("su", adbd.SU)
    async with device(server, phone).session() as session:
        changes = await session.changes(WISHES)
        assert phone.frequencies() == BEFORE
        for change in changes:
            await session.apply(change.do)
            await session.apply(change.do)
        assert phone.frequencies() == ("performance", "1800000", "1800000")
        assert phone.frequencies("policy4") == ("performance", "2800000", "2800000")
        assert await session.changes(WISHES) == []
        assert (await session.fingerprint())["frequency"] == "1800 MHz, 2800 MHz"
    async with device(server, phone).session() as session:  # another, as after a crash
        for change in reversed(changes):
            await session.apply(change.undo)
            await session.apply(change.undo)
        assert "frequency" not in await session.fingerprint()
    assert phone.frequencies() == BEFORE


def limit(phone: adbd.Phone, policy: str, khz: int) -> None:
    """Have its kernel tell another highest frequency."""
    (phone.root / f"sys/devices/system/cpu/cpufreq/{policy}/scaling_max_freq").write_text(f"{khz}\n")


@pytest.mark.parametrize(
    ("status", "kind", "state"), [(1, "thermal-cpufreq-0", 0), (0, "thermal-cpufreq-3", 2), (0, "cpufreq-cpu0", 1)]
)
async def test_what_heat_has_lowered_is_put_back_as_it_was_set(
    server: adbd.Server, phone: adbd.Phone, status: int, kind: str, state: int
) -> None:
    phone.root_adbd = True
    phone.heat(status, 60.0)
    phone.cool(kind, state)
    limit(phone, "policy0", 900000)
    async with device(server, phone).session() as session:
        changes = await session.changes(base.Conditioning(frequency="min", governor="performance"))
        for change in changes:
            await session.apply(change.do)
        assert phone.frequencies() == ("performance", "300000", "300000")
        for change in reversed(changes):
            await session.apply(change.undo)
        assert phone.frequencies() == BEFORE

        phone.heat(0, 35.0)
        phone.cool(kind, 0)
        limit(phone, "policy0", 1500000)  # somebody's own
        assert (await session.changes(WISHES))[0].undo["high"] == 1500000
        phone.cool("cpufreq-cpu0", 1)
        limit(phone, "policy0", 900000)
        assert (await session.changes(WISHES))[0].undo["high"] == 1500000


# The kernel's own part: while it is hot, no limit above 900 MHz can be reached.
CAP = """
{su}
code=$?
for file in scaling_min_freq scaling_max_freq; do
    place={root}/sys/devices/system/cpu/cpufreq/policy0/$file
    [ $(cat $place) -le 900000 ] || echo 900000 >$place
done
exit $code
"""


async def test_heat_that_lowers_what_is_set_is_its_state_and_no_fault(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.script("su", CAP.replace("{su}", adbd.SU.replace("exec", "")))
    phone.heat(2, 80.0)
    limit(phone, "policy0", 900000)
    async with device(server, phone).session() as session:
        changes = await session.changes(WISHES)
        for change in changes:
            await session.apply(change.do)
        assert phone.frequencies() == ("performance", "900000", "900000")
        assert (await session.fingerprint())["frequency"] == "1800 MHz, 2800 MHz"
        throttled = "Android's thermal status is moderate; the cluster of CPU 0 is held at 900 MHz, no longer at 1800 MHz"
        assert (await session.state())["throttled"] == throttled
        for change in reversed(changes):
            await session.apply(change.undo)
        assert (await session.state())["throttled"] == "Android's thermal status is moderate"
    assert phone.frequencies() == ("schedutil", "300000", "900000")


async def test_a_cluster_that_comes_on_is_told_not_to_be_held(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.root_adbd = True
    big, away = (phone.root / "sys/devices/system/cpu/cpufreq" / name for name in ("policy4", "off"))
    big.rename(away)
    async with device(server, phone).session() as session:
        for change in await session.changes(WISHES):
            await session.apply(change.do)
        assert (await session.fingerprint())["frequency"] == "1800 MHz"
        away.rename(big)
        assert (await session.fingerprint())["frequency"] == "1800 MHz, not held: the cluster of CPU 4"
        for change in await session.changes(WISHES):
            await session.apply(change.do)
        assert (await session.fingerprint())["frequency"] == "1800 MHz, 2800 MHz"


@pytest.mark.parametrize(
    ("wanted", "khz"), [("min", 300000), ("mid", 900000), ("max", 1800000), ("1000000000", 900000), ("1", 300000)]
)
async def test_each_way_to_name_a_frequency(server: adbd.Server, phone: adbd.Phone, wanted: str, khz: int) -> None:
    phone.root_adbd = True
    async with device(server, phone).session() as session:
        for change in await session.changes(base.Conditioning(frequency=wanted)):
            await session.apply(change.do)
    assert phone.frequencies() == ("schedutil", str(khz), str(khz))


async def test_adbd_becomes_root_where_it_may_and_is_put_back(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.set(**{"ro.debuggable": "1"})
    async with device(server, phone).session() as session:
        changes = await session.changes(WISHES)
        for change in changes:
            await session.apply(change.do)
        assert phone.root_adbd
        assert phone.frequencies()[0] == "performance"
        for change in reversed(changes):
            await session.apply(change.undo)
    assert not phone.root_adbd
    assert phone.frequencies() == BEFORE


async def test_a_phone_that_cannot_be_had_as_asked_is_told_before_it_is_used(server: adbd.Server, phone: adbd.Phone) -> None:
    asked = {"min_battery": 1, "max_temperature": 100}
    await device(server, phone, conditioning=asked, stay_awake=True, screen_off=True).reach()
    with pytest.raises(errors.CommandError, match="can only be set by root"):
        await device(server, phone, conditioning={"governor": "performance", **asked}).reach()


async def test_a_phone_without_root_has_its_frequency(session: base.Session) -> None:
    with pytest.raises(errors.CommandError, match="can only be set by root"):
        await session.changes(WISHES)
    assert await session.changes(base.Conditioning()) == []


async def test_a_frequency_that_does_not_stay_is_told(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.script(
        "su", f"{adbd.SU.replace('exec', '')}; echo 600000 >{phone.root}/sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq"
    )
    async with device(server, phone).session() as session:
        (change, *_) = await session.changes(WISHES)
        with pytest.raises(errors.HarnessError, match="something on the phone sets it too"):
            await session.apply(change.do)


async def test_screen_sleep_and_radios_are_put_back(server: adbd.Server, phone: adbd.Phone) -> None:
    def now() -> tuple[str, list[str]]:
        settings = sorted(f"{path.name}={path.read_text().strip()}" for path in (phone.root / "phone/settings").iterdir())
        return (phone.root / "phone/dumpsys/power").read_text(), settings

    async with device(server, phone, screen_off=True, stay_awake=True, airplane_mode=True).session() as session:
        changes = await session.changes(base.Conditioning())
        for change in changes:
            await session.apply(change.do)
        assert now() == ("mWakefulness=Asleep\n", ["airplane_mode_on=1", "stay_on_while_plugged_in=15"])
        assert await session.changes(base.Conditioning()) == []
        for change in reversed(changes):
            await session.apply(change.undo)
        assert now() == ("mWakefulness=Awake\n", ["airplane_mode_on=0"])
        with pytest.raises(errors.HarnessError, match="knows no action 'frob'"):
            await session.apply({"verb": "frob"})


async def test_perf_events_are_let_through_to_profile_and_kept_away_again(server: adbd.Server, phone: adbd.Phone) -> None:
    phone.script("setprop", adbd.SETPROP)
    async with device(server, phone).session() as session:
        assert await session.changes_to_profile() == ()  # Android 9 and before keep none away
        phone.set(**{"security.perf_harden": "1"})
        (change,) = await session.changes_to_profile()
        for action, value in ((change.do, "0"), (change.do, "0"), (change.undo, "1")):
            await session.apply(action)
            assert f"security.perf_harden={value}\n" in (phone.root / "phone/properties").read_text()


async def test_a_property_that_stays_as_it_is_is_refused(server: adbd.Server, phone: adbd.Phone) -> None:
    """As on old Androids, without a word and with success."""
    phone.script("setprop", "exit 0")
    phone.set(**{"security.perf_harden": "1"})
    async with device(server, phone).session() as session:
        (change,) = await session.changes_to_profile()
        with pytest.raises(errors.CommandError, match=r"security\.perf_harden cannot be set to 0: it is '1'"):
            await session.apply(change.do)


async def test_a_trace_that_was_left_there_goes_with_the_next_session(server: adbd.Server, phone: adbd.Phone) -> None:
    traces = phone.root / "data/misc/perfetto-traces"
    traces.mkdir(parents=True)
    for name in ("aibenchd-trace", "of-another"):
        (traces / name).write_bytes(b"trace")
    async with device(server, phone).session():
        assert [path.name for path in traces.iterdir()] == ["of-another"]


async def test_a_phone_is_started_anew(server: adbd.Server, phone: adbd.Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "BOOT_POLL_SECONDS", 0.2)
    async with device(server, phone).session() as session:
        before = (phone.root / "proc/sys/kernel/random/boot_id").read_text()
        await session.reboot()
        assert (phone.root / "proc/sys/kernel/random/boot_id").read_text() != before
        assert (await session.run(shell("echo well", await session.directory("work")))).stdout == "well\n"


# ---- its battery as a meter


async def of_battery(session: base.Session, phone: adbd.Phone, *told: str) -> metering.Energy:
    """What its meter says where its battery tells these, before and after."""
    file = phone.root / "phone/dumpsys/battery"
    meter = metering.make(base.MeterSettings(kind="battery"), on_this_host=False).of(session)
    file.write_text(told[0])
    async with meter.metering({}) as energy:
        file.write_text(told[1])
    return energy


async def test_a_battery_lost_its_charge_at_its_voltage(session: base.Session, phone: adbd.Phone) -> None:
    energy = await of_battery(
        session, phone, "  Charge counter: 2875000\n  voltage: 4200\n", "  Charge counter: 2872000\n  voltage: 4000\n"
    )
    assert energy.joules == pytest.approx(3000 * 3.6e-3 * 4.1)
    assert energy.seconds > 0


async def test_of_a_gauge_that_did_not_move_nothing_is_claimed(session: base.Session, phone: adbd.Phone) -> None:
    for after in (2875000, 2875900):  # and one that is not quite sure
        told = [f"  Charge counter: {charge}\n  voltage: 4200\n" for charge in (2875000, after)]
        assert math.isnan((await of_battery(session, phone, *told)).joules)


async def test_a_battery_that_is_charged_or_silent_is_named(session: base.Session, phone: adbd.Phone) -> None:
    with pytest.raises(errors.HarnessError, match="is being charged: unplug it"):
        await of_battery(session, phone, "  Charge counter: 10\n  voltage: 4200\n", "  Charge counter: 2010\n  voltage: 4200\n")
    with pytest.raises(errors.HarnessError, match="does not tell its battery's charge and voltage"):
        await of_battery(session, phone, "  voltage: 4200\n", "")


# ---- apps

APP = base.App("org.example.bench", ".Main")
REPORTS = """
echo starting
printf 'PyTorchObserver {"options": %s}\\n' "$(cat $1)"
"""


async def started(session: base.Session, tmp_path: Path, text: str, *words: str, timeout: float = 20) -> base.Completed:
    (tmp_path / "program").write_text(text)
    program = await session.push(push_of(tmp_path / "program"))
    command = base.Command((str(program), *words), await session.directory("work"), timeout=timeout)
    return await session.run(session.app_command(APP, command))


async def test_an_app_is_installed_handed_its_options_and_read_in_the_log(
    session: base.Session, phone: adbd.Phone, tmp_path: Path
) -> None:
    for _ in range(2):
        completed = await started(session, tmp_path, REPORTS, "--net", "a.pb", "--iter=50", "--warm", "--input", r"x\ny \\ 'z'")
        assert completed.failure == ""
        (line,) = [row for row in completed.stdout.splitlines() if "PyTorchObserver" in row]
        told = json.loads(line.partition("PyTorchObserver ")[2])["options"]
        assert told == {"input": r"x\ny \\ 'z'", "iter": "50", "net": "a.pb", "warm": "true"}
    assert not (phone.directory / "app").exists()
    assert (await session.run(shell("echo a program", await session.directory("work")))).stdout == "a program\n"


async def test_an_app_that_dies_has_failed(session: base.Session, tmp_path: Path) -> None:
    completed = await started(session, tmp_path, "echo began; exit 1")
    assert (completed.ending, completed.code) == (base.Ending.EXITED, 1)
    assert "began" in completed.stdout


async def test_an_app_that_does_not_end_is_stopped(session: base.Session, phone: adbd.Phone, tmp_path: Path) -> None:
    completed = await started(session, tmp_path, "sleep 1000", timeout=3)
    assert completed.ending is base.Ending.TIMED_OUT
    await gone(phone)


async def test_an_app_that_a_killed_session_left_is_stopped_by_the_next(
    server: adbd.Server, phone: adbd.Phone, session: base.Session, tmp_path: Path
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_suppressed, started(session, tmp_path, "sleep 1000"))
        await launchers.until_written(phone.root / "phone/pid")
        (phone.directory / "app").rename(phone.directory / "kept")  # so that this session does not stop it
        tasks.cancel_scope.cancel()
    assert phone.processes()
    (phone.directory / "kept").rename(phone.directory / "app")
    await works(server, phone)


async def _suppressed(work: Coroutine[Any, Any, base.Completed]) -> None:
    await work


async def test_an_app_is_no_shells_command(session: base.Session) -> None:
    with pytest.raises(errors.CommandError, match="is a shell's"):
        session.app_command(APP, shell("echo > x", PurePosixPath("/")))
