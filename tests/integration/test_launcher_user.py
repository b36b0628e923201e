"""Launcher and daemon as two users, and what is left when either is killed."""

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import launchers
import pytest

from aibenchd import digests, errors
from aibenchd.devices import base, launching, local

DAEMON = """
import anyio, sys
from pathlib import PurePosixPath
from aibenchd.devices import base, launching

async def main():
    async with launching.Launcher(base.RunSettings()) as launcher:
        command = base.Command((sys.argv[1],), PurePosixPath("/"), shell=True, env={"PATH": "/usr/bin:/bin"})
        await launcher.run(command)

anyio.run(main)
"""
HIDDEN = "(setsid sh -c 'trap \"\" TERM HUP; echo $$ > {0}.part; mv {0}.part {0}; sleep 1000; sleep 1000' & )"


@pytest.fixture
def place() -> Iterator[Path]:
    with launchers.reachable_directory() as directory:
        yield directory


OTHER_USER = launchers.OTHER if os.geteuid() == 0 else {}
WITHOUT_CLONE = launching.PROGRAM.read_text().replace("SYS_CLONE3 = 435", "SYS_CLONE3 = 9999")


@pytest.fixture(params=["born into control groups", "joining control groups", "without control groups"])
async def launcher(request: pytest.FixtureRequest, place: Path) -> AsyncIterator[tuple[launching.Launcher, int]]:
    """A launcher, and its process."""
    options = {"joining control groups": {"source": WITHOUT_CLONE}, "without control groups": OTHER_USER}
    with launchers.listening(place / "socket", **options.get(request.param, {})) as process:
        async with launching.Launcher(base.RunSettings(launcher=place / "socket")) as launcher:
            has_groups = bool((await launcher.hello()).control_groups)
            if not has_groups and "without" not in request.param:
                pytest.skip("needs control groups of version 2, Linux 5.14, and the right to make groups")
            yield launcher, process.pid


async def test_each_program_has_its_own_control_group(launcher: tuple[launching.Launcher, int]) -> None:
    groups = (await launcher[0].hello()).control_groups

    completed = await launcher[0].run(launchers.script("cat /proc/self/cgroup; grep PPid /proc/$$/status"))

    supervisor = completed.stdout.split()[-1]
    assert _group(completed.stdout).endswith(f"/{Path(groups).name}/{supervisor}" if groups else _group(_OURS))


_OURS = Path("/proc/self/cgroup").read_text()


def _group(text: str) -> str:
    (group,) = (line[3:] for line in text.splitlines() if line.startswith("0::"))
    return group


async def _started(launcher: launching.Launcher, place: Path, tasks: anyio.abc.TaskGroup) -> tuple[list[int], list[str]]:
    """Start a program with a descendant that hides; their processes, and where its run's fault will be told."""
    place.chmod(0o777)
    faults: list[str] = []

    async def run() -> None:
        try:
            await launcher.run(launchers.script(HIDDEN.format(place / "hidden") + f"; echo $$ > {place / 'pid'}; sleep 1000"))
        except errors.HarnessError as error:
            faults.append(str(error))

    tasks.start_soon(run)
    return [int(await launchers.until_written(place / name)) for name in ("pid", "hidden")], faults


async def test_a_supervisor_that_is_killed_takes_its_program_with_it(
    launcher: tuple[launching.Launcher, int], place: Path
) -> None:
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            pids, faults = await _started(launcher[0], place, tasks)
            (supervisor,) = launchers.children(launcher[1])
            os.kill(supervisor, signal.SIGKILL)

    assert len(faults) == 1
    assert "the launcher died, or was killed, during a run" in faults[0]
    await launchers.until_gone(*pids, supervisor)
    assert (await launcher[0].run(launchers.command("true"))).code == 0


async def test_a_launcher_that_is_killed_is_started_again_and_costs_no_run(place: Path) -> None:
    place.chmod(0o777)
    async with launching.Launcher(base.RunSettings()) as launcher:
        first = launchers.own_launcher()
        codes: list[int] = []

        async def run() -> None:
            text = f"echo > {place / 'begun'}; while [ ! -e {place / 'end'} ]; do sleep 0.01; done; exit 7"
            codes.append((await launcher.run(launchers.script(text))).code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await launchers.until_written(place / "begun")
            os.kill(first, signal.SIGKILL)
            await launchers.until_gone(first)
            assert (await launcher.run(launchers.command("true"))).code == 0
            (place / "end").touch()

        assert codes == [7]
        assert launchers.own_launcher() != first


async def test_what_a_killed_launcher_left_unsupervised_dies_when_the_next_one_starts(place: Path) -> None:
    async with launching.Launcher(base.RunSettings()) as launcher:
        groups = (await launcher.hello()).control_groups
        if not groups:
            pytest.skip("needs control groups of version 2 that this user may make groups in")
        async with anyio.create_task_group() as tasks:
            pids, faults = await _started(launcher, place, tasks)
            main = launchers.own_launcher()
            for pid in (main, *launchers.children(main)):
                os.kill(pid, signal.SIGKILL)
        assert faults
        await launchers.until_gone(main)

        await launcher.run(launchers.command("true"))

        await launchers.until_gone(*pids)
        assert not Path(groups).exists()


async def test_a_daemon_that_is_killed_takes_its_programs_with_it(place: Path) -> None:
    place.chmod(0o777)
    text = HIDDEN.format(place / "hidden") + f"; echo $$ > {place / 'pid'}; sleep 1000"
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, text])
    try:
        pids = [int(await launchers.until_written(place / name)) for name in ("pid", "hidden")]
        (own,) = launchers.children(daemon.pid)
        supervisors = launchers.children(own)
    finally:
        daemon.kill()
        daemon.wait()

    await launchers.until_gone(*pids, *supervisors, own)


@launchers.needs_root
async def test_programs_run_as_the_user_that_is_configured(place: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    async with launching.Launcher(base.RunSettings(user="nobody")) as launcher:
        identity = await launcher.hello()
        completed = await launcher.run(launchers.script("id -u; id -g; id -G; cat /proc/self/status"))

    assert (identity.uid, identity.gid) == (nobody.pw_uid, nobody.pw_gid)
    assert completed.stdout.splitlines()[:3] == [str(nobody.pw_uid), str(nobody.pw_gid), str(nobody.pw_gid)]
    assert "CapPrm:\t0000000000000000" in completed.stdout
    assert "NoNewPrivs:\t1" in completed.stdout


@launchers.needs_root
async def test_that_user_cannot_reach_the_daemons_state_nor_end_its_launcher(place: Path) -> None:
    state = place / "state"
    state.mkdir(mode=0o700)
    (state / "journal").write_text("of the daemon")
    async with launching.Launcher(base.RunSettings(user="nobody")) as launcher:
        completed = await launcher.run(
            launchers.script(f"cat {state}/journal; touch {state}/x; kill -9 -1; kill -9 {os.getpid()}")
        )

        assert completed.stdout == ""
        assert completed.stderr.count("Permission denied") == 2
        assert (await launcher.run(launchers.command("true"))).code == 0


async def test_a_user_without_that_right_cannot_be_configured(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(errors.HarnessError, match="only a daemon that is root can run programs as nobody"):
        async with launching.Launcher(base.RunSettings(user="nobody")):
            pass


@launchers.needs_root
async def test_a_user_that_is_not_there_is_named(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(errors.HarnessError, match="user no-such-user is not known on this host"):
        async with launching.Launcher(base.RunSettings(user="no-such-user")):
            pass


async def test_a_launcher_that_is_not_there_is_named_with_the_way_out(place: Path) -> None:
    with pytest.raises(errors.HarnessError, match=r"socket: No such file or directory; start its socket unit: systemctl"):
        async with launching.Launcher(base.RunSettings(launcher=place / "socket")):
            pass


@launchers.needs_root
async def test_only_the_daemons_user_and_root_may_start_programs(place: Path) -> None:
    with launchers.listening(place / "socket", "for=daemon", **launchers.OTHER):
        for user, may in (("daemon", True), ("games", False), ("nobody", False), ("root", True)):
            os.seteuid(pwd.getpwnam(user).pw_uid)
            try:
                assert await _may_start_programs(place / "socket") == may, user
            finally:
                os.seteuid(0)


async def _may_start_programs(path: Path) -> bool:
    try:
        async with launching.Launcher(base.RunSettings(launcher=path)):
            return True
    except errors.HarnessError as error:
        if "may not start programs here" not in str(error):
            raise
        return False


async def test_orphans_are_buried_while_their_program_runs(launcher: tuple[launching.Launcher, int], place: Path) -> None:
    place.chmod(0o777)
    orphans = f"for i in 1 2 3 4 5 6 7 8 9; do (true & sleep 0.01 & ); done; sleep 0.1; echo > {place / 'begun'}; exec sleep 1000"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(launcher[0].run, launchers.script(orphans))
        await launchers.until_written(place / "begun")
        (supervisor,) = launchers.children(launcher[1])
        with anyio.fail_after(20):
            while len(launchers.children(supervisor)) > 1:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


def test_a_caller_that_talks_nonsense_is_told_so_and_does_no_harm(place: Path) -> None:
    with launchers.listening(place / "socket"):
        for nonsense in (b"\0\0\0\2{}", b"\0\0\0\5hello", b"\xff\xff\xff\xff", b"\0\0", b"\0\0\0\x10" + b'{"kind": "none"}', b""):
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(place / "socket"))
                caller.sendall(nonsense)
                caller.shutdown(socket.SHUT_WR)
                assert "fault" in json.loads(caller.recv(9_999))


@launchers.needs_root
@pytest.mark.parametrize("way", ["user", "launcher"])
async def test_a_local_device_works_with_programs_of_another_user(place: Path, way: str) -> None:
    program = place / "program"
    program.write_text(
        "#!/bin/sh\nid -un\numask 077\necho secret > result\nmkdir -p deep/er\ntouch deep/er/file\nchmod 0 deep/er deep\n"
    )
    program.chmod(0o700)
    push = base.Push(program, digests.of_file(program), "program")
    run = base.RunSettings(user="nobody") if way == "user" else base.RunSettings(launcher=place / "socket")
    settings = local.Settings(name="here", kind="local", minimum_free="1MiB")
    with launchers.listening(place / "socket", **launchers.OTHER):
        async with local.Local(settings, place / "here", run).session() as session:
            pushed = await session.push(push)
            work = await session.directory("work")
            completed = await session.run(base.Command((str(pushed),), work))
            await session.pull(work / "result", place / "pulled")
            await session.directory("work")
            overwrite = await session.run(base.Command((f"echo > {pushed}; rm -f {pushed}",), work, shell=True))

    assert completed.stdout == "nobody\n"
    assert (place / "pulled").read_text() == "secret\n"
    assert list(Path(work).iterdir()) == []
    assert overwrite.stderr.count("Permission denied") == 2
    assert digests.of_file(Path(pushed)) == push.digest


@launchers.needs_root
async def test_a_local_device_that_its_programs_cannot_reach_is_lost(place: Path) -> None:
    place.chmod(0o700)
    settings = local.Settings(name="here", kind="local", minimum_free="1MiB")

    with pytest.raises(errors.DeviceLostError, match=r"here: .*cannot enter .*Permission denied; it needs search permission"):
        async with local.Local(settings, place / "here", base.RunSettings(user="nobody")).session():
            pass


UNPRIVILEGED_DAEMON = """
import anyio, os, sys
from pathlib import Path
from aibenchd import digests
from aibenchd.devices import base, local

async def main(place):
    os.umask(0o077)
    settings = local.Settings(name="here", kind="local", minimum_free="1MiB")
    run = base.RunSettings(launcher=place / "socket")
    program = place / "state" / "program"
    program.write_text("#!/bin/sh\\numask 077; id -un > result; mkdir -p a/b; : > a/b/c; chmod 0 a/b a\\n")
    program.chmod(0o700)
    push = base.Push(program, digests.of_file(program), "program")
    async with local.Local(settings, place / "state" / "devices" / "here", run).session() as session:
        work = await session.directory("work")
        completed = await session.run(base.Command((str(await session.push(push)),), work))
        await session.pull(work / "result", place / "state" / "pulled")
        await session.directory("work")
        print(completed.stderr, (place / "state" / "pulled").read_text(), os.listdir(work), end="")

anyio.run(main, Path(sys.argv[1]))
"""


@launchers.needs_root
def test_a_daemon_without_rights_shares_files_with_its_programs_by_a_group(place: Path) -> None:
    """The daemon is a member of the group that programs run as, and neither of the two is root."""
    state = place / "state"
    state.mkdir(mode=0o711)
    state.chmod(0o711)
    os.chown(state, pwd.getpwnam("games").pw_uid, -1)
    with launchers.listening(place / "socket", "for=games", **launchers.OTHER):
        daemon = subprocess.run(
            [launchers.python_of_all(), "-c", UNPRIVILEGED_DAEMON, str(place)],
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            user="games",
            group="games",
            extra_groups=["nogroup"],
        )
    if "ModuleNotFoundError" in daemon.stderr:
        pytest.skip("needs aibenchd and its libraries where the user games can read them")

    assert (daemon.stdout, daemon.stderr) == (" nobody\n []", "")
