"""An SSH device that is lost: killed, frozen, cut off in the middle of everything; nothing of ours stays there."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
import launchers
import pytest
import sshd

from aibenchd import digests, errors
from aibenchd.devices import base, ssh

QUICK = {"keepalive": "100ms", "lost_after": "1s"}  # a busy machine may take long to answer
REPLACED = "box: a newer session in the same directory ended this one: .* give each a directory of its own"
SLEEPER = "setsid sleep 1000 & echo $! > pid; echo $$ > begun; wait"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("box") / "ssh") as made:
        yield made


@pytest.fixture
async def wire(server: sshd.Sshd) -> AsyncIterator[sshd.Wire]:
    async with sshd.Wire(server.port).laid() as laid:
        yield laid


def behind(server: sshd.Sshd, wire: sshd.Wire, **more: Any) -> Any:
    """A device that is reached over the wire alone."""
    return server.device(port=wire.port, host_key=server.fingerprint(), **more)


def shell(text: str, cwd: PurePosixPath, **more: object) -> base.Command:
    return base.Command((text,), cwd, shell=True, **more)  # type: ignore[arg-type]


class Lost:
    """A program that runs when its device is lost: what it is made of, and what the session said."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.message = ""


async def losing(session: base.Session, server: sshd.Sshd, lose: Any) -> Lost:
    """Run a program, do what loses the device, and wait until the session says so and all of the program is gone."""
    lost, work = Lost(), await session.directory("trial")

    async def run() -> None:
        with pytest.raises(errors.DeviceLostError) as caught:
            await session.run(shell(SLEEPER, work))
        lost.message = str(caught.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        lost.pids = [int(await launchers.until_written(Path(work) / name)) for name in ("begun", "pid")]
        lose()
    for call in (session.health(), session.run(base.Command(("true",), work)), session.directory("again"), session.disturb()):
        with pytest.raises(errors.DeviceLostError):  # one that is half dead is never used again
            await call
    return lost


async def works(device: Any) -> None:
    """A new session can be had, and runs programs."""
    async with device.session() as session:
        work = await session.directory("trial")
        assert (await session.run(base.Command(("true",), work))).code == 0


async def test_the_servers_death_kills_the_program(tmp_path: Path) -> None:
    with sshd.running(tmp_path / "ssh") as server:
        device = server.device()
        async with device.session() as session:
            supervisor = server.supervisor()
            lost = await losing(session, server, server.stop)
            await launchers.until_gone(*lost.pids, supervisor)
        assert lost.message.startswith("box: its supervisor ended, or the connection to it")
        with pytest.raises(errors.DeviceLostError, match="it cannot be reached: Connection refused"):
            await device.reach()
        server.start()
        await works(device)


async def test_a_frozen_server_is_lost_and_its_program_killed(server: sshd.Sshd) -> None:
    async with server.device(**QUICK).session() as session:
        lost = await losing(session, server, lambda: server.signal(signal.SIGSTOP))
        try:
            await launchers.until_gone(*lost.pids)
        finally:
            server.signal(signal.SIGCONT)
    await launchers.until_gone(server.supervisor())
    await works(server.device())


async def test_a_cut_connection_kills_the_program(server: sshd.Sshd, wire: sshd.Wire) -> None:
    async with behind(server, wire).session() as session:
        lost = await losing(session, server, wire.cut)
        await launchers.until_gone(*lost.pids, server.supervisor())
    with pytest.raises(errors.DeviceLostError):
        await behind(server, wire).reach()
    wire.mend()
    await works(behind(server, wire))


async def test_a_connection_that_is_cut_without_a_word_kills_the_program(server: sshd.Sshd, wire: sshd.Wire) -> None:
    async with behind(server, wire, **QUICK).session() as session:
        lost = await losing(session, server, wire.stall)
        await launchers.until_gone(*lost.pids, server.supervisor())  # nothing passes yet: the device itself saw to it


async def test_a_slow_program_on_a_quiet_wire_is_not_lost(server: sshd.Sshd, wire: sshd.Wire) -> None:
    async with behind(server, wire, **QUICK).session() as session:
        work = await session.directory("trial")
        assert (await session.run(shell("sleep 2; echo done", work))).stdout == "done\n"
        await anyio.sleep(1.5)  # nor an idle session
        assert (await session.run(shell("sleep 0.5; echo done", work))).stdout == "done\n"


async def test_a_killed_supervisor_takes_its_program_along(server: sshd.Sshd) -> None:
    async with server.device().session() as session:
        lost = await losing(session, server, lambda: os.kill(server.supervisor(), signal.SIGKILL))
        await launchers.until_gone(*lost.pids)
    await works(server.device())


async def test_a_killed_guard_takes_all_along(server: sshd.Sshd) -> None:
    async with server.device().session() as session:
        supervisor = server.supervisor()
        guard = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
        lost = await losing(session, server, lambda: os.kill(guard, signal.SIGKILL))
        await launchers.until_gone(*lost.pids, supervisor)


async def test_a_frozen_supervisor_is_lost_and_the_next_session_sees_to_what_it_left(server: sshd.Sshd) -> None:
    async with server.device(**QUICK).session() as session:
        supervisor = server.supervisor()
        lost = await losing(session, server, lambda: os.kill(supervisor, signal.SIGSTOP))
    assert "nothing has come from it for 1 s" in lost.message
    await works(server.device())
    await launchers.until_gone(*lost.pids, supervisor)


async def test_a_newer_session_takes_the_place_of_an_older_one(server: sshd.Sshd) -> None:
    async with server.device().session() as older, anyio.create_task_group() as tasks:
        work = await older.directory("trial")
        tasks.start_soon(_lost, older.run(shell(SLEEPER, work)), REPLACED)
        pids = [int(await launchers.until_written(Path(work) / name)) for name in ("begun", "pid")]
        await works(server.device())
        await launchers.until_gone(*pids)


async def test_a_session_that_rests_is_told_that_a_newer_one_has_its_place(server: sshd.Sshd) -> None:
    async with server.device().session() as older:
        await works(server.device())
        await until_told(older)
        await _lost(older.health(), REPLACED)


async def test_a_session_that_rests_is_told_that_its_supervisor_was_killed(server: sshd.Sshd) -> None:
    async with server.device().session() as session:
        os.kill(server.supervisor(), signal.SIGKILL)
        await until_told(session)
        await _lost(session.health(), "box: its supervisor ended, or the connection to it")


async def until_told(session: Any) -> None:
    """Wait until it is known here that the supervisor has ended, with nobody asking for anything."""
    with anyio.fail_after(20):
        while not session._link._stream.ended:
            await anyio.sleep(0.01)


async def _lost(call: Any, match: str = "box: ") -> None:
    with pytest.raises(errors.DeviceLostError, match=match):
        await call


async def test_a_push_that_is_cut_in_the_middle_is_made_anew(server: sshd.Sshd, wire: sshd.Wire, tmp_path: Path) -> None:
    push = sshd.file(tmp_path / "model", os.urandom(8 << 20))
    async with behind(server, wire).session() as session:
        wire.cut_at = wire.carried + (3 << 20)
        with pytest.raises(errors.DeviceLostError, match="box: the connection broke"):
            await session.push(push)
        with pytest.raises(errors.DeviceLostError):
            await session.push(push)
    programs = server.home / "box" / "programs"
    assert not (programs / push.digest[:32]).exists()
    wire.mend()
    async with behind(server, wire).session() as session:
        assert not list((programs / ".incoming").iterdir())
        assert digests.of_file(Path(await session.push(push))) == push.digest


async def test_a_push_of_a_tree_that_is_cut_in_the_middle_is_lost(server: sshd.Sshd, wire: sshd.Wire, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    for number in range(20):
        (tmp_path / "build" / f"{number}").write_bytes(os.urandom(200_000))
    push = base.Push(tmp_path / "build", digests.of_tree(tmp_path / "build"), "build")
    async with behind(server, wire).session() as session:
        wire.cut_at = wire.carried + (1 << 20)
        with pytest.raises(errors.DeviceLostError, match="box: the connection broke"):
            await session.push(push)
    wire.mend()
    async with behind(server, wire).session() as session:
        assert digests.of_tree(Path(await session.push(push))) == push.digest


@pytest.mark.parametrize("pull", [False, True])
async def test_nothing_of_a_transfer_that_is_cancelled_goes_on(
    server: sshd.Sshd, wire: sshd.Wire, tmp_path: Path, pull: bool
) -> None:
    """What was under way has ended with it: nobody is left to be told that the connection breaks."""
    push, other = (sshd.file(tmp_path / name, os.urandom(8 << 20)) for name in ("model", "other"))
    async with behind(server, wire).session() as session:
        there, work = await session.push(push), await session.directory("trial")
        await session.run(base.Command(("cp", str(there), "out"), work))
        before = len(asyncio.all_tasks())
        async with anyio.create_task_group() as tasks:
            start = wire.carried
            tasks.start_soon(*((session.pull, work / "out", tmp_path / "pulled") if pull else (session.push, other)))
            with anyio.fail_after(20):
                while wire.carried < start + (1 << 20):
                    await anyio.sleep(0.001)
            wire.stall()
            tasks.cancel_scope.cancel()
        assert len(asyncio.all_tasks()) == before
        wire.mend()


async def test_a_push_that_stalls_is_lost(server: sshd.Sshd, wire: sshd.Wire, tmp_path: Path) -> None:
    push = sshd.file(tmp_path / "model", os.urandom(8 << 20))
    async with behind(server, wire, **QUICK).session() as session, anyio.create_task_group() as tasks:
        tasks.start_soon(_lost, session.push(push))
        start = wire.carried
        with anyio.fail_after(20):
            while wire.carried < start + (1 << 20):
                await anyio.sleep(0.001)
        wire.stall()


@pytest.mark.parametrize("pull", [False, True])
async def test_files_that_the_device_no_longer_takes_or_gives_are_lost(
    server: sshd.Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pull: bool
) -> None:
    """As where a disk hangs there, and the connection lives."""
    push = sshd.file(tmp_path / "model", os.urandom(8 << 20))
    async with server.device().session() as session:
        await session.push(sshd.file(tmp_path / "first", os.urandom(9)))
        work = await session.directory("trial")
        await session.run(shell("head -c 8000000 /dev/zero > out", work))
        (serving,) = [pid for pid in server.serving() if b"internal-sftp" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        monkeypatch.setattr(ssh, "STALL_SECONDS", 1.5)
        os.kill(serving, signal.SIGSTOP)
        with anyio.fail_after(60), pytest.raises(errors.DeviceLostError, match="box: its SFTP server has taken or given nothing"):
            await (session.pull(work / "out", tmp_path / "pulled") if pull else session.push(push))
        os.kill(serving, signal.SIGCONT)
    monkeypatch.undo()
    async with server.device().session() as session:
        assert digests.of_file(Path(await session.push(push))) == push.digest


async def test_a_push_that_is_cancelled_leaves_the_session_as_it_was(server: sshd.Sshd, wire: sshd.Wire, tmp_path: Path) -> None:
    push = sshd.file(tmp_path / "model", os.urandom(32 << 20))
    async with behind(server, wire).session() as session:
        async with anyio.create_task_group() as tasks:
            start = wire.carried
            tasks.start_soon(session.push, push)
            with anyio.fail_after(20):
                while wire.carried < start + (2 << 20):
                    await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()
        assert digests.of_file(Path(await session.push(push))) == push.digest


async def test_a_pull_that_is_cut_in_the_middle_leaves_what_was_there(server: sshd.Sshd, wire: sshd.Wire, tmp_path: Path) -> None:
    (tmp_path / "pulled").write_text("before")
    async with behind(server, wire).session() as session:
        work = await session.directory("trial")
        await session.run(shell("head -c 8000000 /dev/urandom > out", work))
        wire.cut_at = wire.carried + (2 << 20)
        with pytest.raises(errors.DeviceLostError, match="box: the connection broke"):
            await session.pull(work / "out", tmp_path / "pulled")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


async def test_output_that_is_cut_in_the_middle_is_lost(server: sshd.Sshd, wire: sshd.Wire) -> None:
    async with behind(server, wire).session() as session:
        work = await session.directory("trial")
        await session.health()
        wire.cut_at = wire.carried + (2 << 20)
        with pytest.raises(errors.DeviceLostError, match="box: its supervisor ended, or the connection to it"):
            await session.run(shell("head -c 8000000 /dev/zero", work))


async def test_a_run_that_is_cancelled_while_its_output_comes_leaves_the_session_as_it_was(
    server: sshd.Sshd, wire: sshd.Wire
) -> None:
    async with behind(server, wire).session() as session:
        work = await session.directory("trial")
        async with anyio.create_task_group() as tasks:
            start = wire.carried
            tasks.start_soon(session.run, shell("yes 1 | head -c 8000000", work))
            with anyio.fail_after(20):
                while wire.carried < start + (2 << 20):
                    await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()
        assert (await session.run(shell("echo well", await session.directory("trial")))).stdout == "well\n"


async def test_a_gate_that_dies_loses_the_device_behind_it(server: sshd.Sshd, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "gate") as gate:
        through = {"host": "127.0.0.1", "port": gate.port, "key_file": str(gate.key), "host_key": gate.fingerprint()}
        async with server.device(jump=[through]).session() as session:
            lost = await losing(session, server, gate.stop)
            await launchers.until_gone(*lost.pids, server.supervisor())


async def test_nothing_of_a_session_stays_on_either_side(server: sshd.Sshd) -> None:
    await works(server.device())
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        await works(server.device())
    await launchers.until_gone(server.supervisor())

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with anyio.fail_after(20):
        while server.serving():
            await anyio.sleep(0.01)


# ---- what only a machine of its own could show, shown in a namespace of its own


@pytest.fixture
def own_kernel(tmp_path: Path) -> Iterator[sshd.Sshd]:
    """A server that sees files of ours as its kernel's boot_id and frequencies."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs a mount namespace of its own: unshare -m")
    made = sshd.Sshd(tmp_path / "ssh")
    (tmp_path / "boot_id").write_text("first\n")
    cpus = tmp_path / "cpus"
    cpus.mkdir()
    for name in ("online", "possible", "present"):
        shutil.copy(f"/sys/devices/system/cpu/{name}", cpus)
    for cpu in sorted(os.sched_getaffinity(0)):
        cpufreq = cpus / f"cpu{cpu}" / "cpufreq"
        cpufreq.mkdir(parents=True)
        for name, text in {
            "scaling_governor": "powersave",
            "scaling_available_governors": "performance powersave",
            "cpuinfo_min_freq": "1000000",
            "cpuinfo_max_freq": "3000000",
            "scaling_min_freq": "1000000",
            "scaling_max_freq": "3000000",
        }.items():
            (cpufreq / name).write_text(f"{text}\n")
    mount = f'mount --bind "{tmp_path}/boot_id" {BOOT_ID} && mount --bind "{cpus}" /sys/devices/system/cpu && exec "$@"'
    made.around = ["unshare", "-m", "sh", "-c", mount, "sh"]
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("ending", ["", "kill $$", "exit 143"])
async def test_a_reboot_is_ordered_once_and_waited_for_until_another_boot_answers(
    own_kernel: sshd.Sshd, tmp_path: Path, ending: str
) -> None:
    """Also where the command is killed as its machine goes down."""
    push = sshd.file(tmp_path / "model", b"data")
    order = ["sh", "-c", f"echo >> {tmp_path}/orders; {ending}"]
    async with own_kernel.device(reboot_command=order, reboot_timeout="60s").session() as session:
        await session.push(push)
        before = own_kernel.supervisor()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.reboot)
            await launchers.until_gone(before)
            with anyio.fail_after(20):
                while not own_kernel.serving():  # it answers again while it is still going down
                    await anyio.sleep(0.01)
            own_kernel.stop()
            await anyio.sleep(0.5)
            (tmp_path / "boot_id").write_text("second\n")
            own_kernel.start()
        assert Path(await session.push(push)).read_bytes() == b"data"
        assert (await session.run(base.Command(("true",), await session.directory("trial")))).code == 0
    assert (tmp_path / "orders").read_text() == "\n"


async def test_a_reboot_that_comes_to_nothing_says_how_its_order_ended(own_kernel: sshd.Sshd) -> None:
    async with own_kernel.device(reboot_command=["sh", "-c", "kill $$"], reboot_timeout="3s").session() as session:
        with pytest.raises(errors.DeviceLostError, match=r"since it was rebooted \(sh -c kill \$\$: killed by signal 15\)"):
            await session.reboot()


async def test_one_that_does_not_come_back_is_lost(own_kernel: sshd.Sshd) -> None:
    async with own_kernel.device(reboot_command=["true"], reboot_timeout="3s").session() as session:
        with pytest.raises(errors.DeviceLostError, match="has not come back within 3 s since it was rebooted"):
            await session.reboot()


async def test_governor_and_frequency_are_set_and_undone(own_kernel: sshd.Sshd, tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    cpufreq = tmp_path / "cpus" / f"cpu{cpu}" / "cpufreq"
    names = ("scaling_governor", "scaling_min_freq", "scaling_max_freq")
    async with own_kernel.device(cpus=[cpu]).session() as session:
        before = await session.fingerprint()
        changes = await session.changes(base.Conditioning(governor="performance", frequency="mid"))
        for change in changes:
            await session.apply(change.do)
        set_to = [(cpufreq / name).read_text().strip() for name in names]
        during = await session.fingerprint()
        for change in reversed(changes):
            await session.apply(change.undo)
            await session.apply(change.undo)
        with pytest.raises(errors.CommandError, match=f"cpu{cpu} has no governor 'schedutil'; it has performance, powersave"):
            await session.changes(base.Conditioning(governor="schedutil"))

    assert set_to == ["performance", "2000000", "2000000"]
    assert (before["governor"], during["governor"], during["frequency"]) == ("powersave", "performance", "2000 MHz")
    assert [(cpufreq / name).read_text().strip() for name in names] == ["powersave", "1000000", "3000000"]


# ---- a bad network


@pytest.fixture
def far(tmp_path: Path) -> Iterator[sshd.Sshd]:
    """A server in a network namespace of its own."""
    made = sshd.Sshd(tmp_path / "ssh")
    name = f"aib{os.getpid() % 100000}"
    setup = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name],
        ["ip", "addr", "add", "198.51.100.1/30", "dev", f"{name}a"],
        ["ip", "link", "set", f"{name}a", "up"],
        ["ip", "-n", name, "addr", "add", "198.51.100.2/30", "dev", f"{name}b"],
        ["ip", "-n", name, "link", "set", f"{name}b", "up"],
    ]
    try:
        for command in setup:
            try:
                subprocess.run(command, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                said = getattr(error, "stderr", b"").decode().strip()
                pytest.skip(f"needs root, iproute2 and a kernel with namespaces and veth: {' '.join(command)}: {said}")
        made.configuration.write_text(
            made.configuration.read_text().replace("ListenAddress 127.0.0.1", "ListenAddress 198.51.100.2")
        )
        made.around, made.address, made.namespace = ["ip", "netns", "exec", name], "198.51.100.2", name
        made.start()
        yield made
    finally:
        made.stop()
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", f"{name}a"], check=False, capture_output=True)


@pytest.mark.alone  # the addresses
async def test_a_slow_and_lossy_way_is_no_reason_to_fail(far: sshd.Sshd, tmp_path: Path) -> None:
    device = f"{far.namespace}b"
    worsen = ["tc", "-n", far.namespace, "qdisc", "add", "dev", device, "root", "netem", "delay", "20ms", "loss", "1%"]
    if (done := subprocess.run(worsen, check=False, capture_output=True)).returncode:
        pytest.skip(f"needs a kernel with netem: {' '.join(worsen)}: {done.stderr.decode().strip()}")
    push = sshd.file(tmp_path / "model", os.urandom(1 << 20))
    async with far.device(host=far.address, host_key=far.fingerprint()).session() as session:
        copy = await session.push(push)
        work = await session.directory("trial")
        await session.run(shell(f"cp '{copy}' out", work))
        await session.pull(work / "out", tmp_path / "pulled")
    assert digests.of_file(tmp_path / "pulled") == push.digest


@pytest.mark.alone
async def test_a_way_that_swallows_everything_kills_the_program(far: sshd.Sshd) -> None:
    swallow = ["ip", "-n", far.namespace, "link", "set", f"{far.namespace}b", "down"]
    async with far.device(host=far.address, host_key=far.fingerprint(), **QUICK).session() as session:
        lost = await losing(session, far, lambda: subprocess.run(swallow, check=True))
        await launchers.until_gone(*lost.pids)
