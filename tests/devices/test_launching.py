import math
import os
import resource
import signal
from pathlib import Path

import anyio
import launchers
import pytest

from aibenchd import errors
from aibenchd.devices import base, launching

DAEMON = "(setsid sh -c 'trap \"\" TERM HUP INT; echo $$ > {0}.part; mv {0}.part {0}; sleep 1000; sleep 1000' & )"
MIB = 1 << 20


@pytest.mark.parametrize("code", [0, 1, 3, 255])
async def test_an_exit_status_is_told_as_it_is(launcher: launching.Launcher, code: int) -> None:
    completed = await launcher.run(launchers.script(f"echo out; echo err >&2; exit {code}"))

    assert (completed.ending, completed.code) == (base.Ending.EXITED, code)
    assert (completed.stdout, completed.stderr) == ("out\n", "err\n")


async def test_a_signal_is_told_by_its_number(launcher: launching.Launcher) -> None:
    completed = await launcher.run(launchers.script("kill -SEGV $$"))

    assert (completed.ending, completed.code) == (base.Ending.SIGNALLED, signal.SIGSEGV)


async def test_a_program_that_is_not_there_fails_as_in_a_shell(launcher: launching.Launcher) -> None:
    completed = await launcher.run(launchers.command("no-such-program"))

    assert (completed.ending, completed.code) == (base.Ending.EXITED, 127)
    assert completed.stderr == "no-such-program: No such file or directory\n"


async def test_a_program_that_cannot_be_executed_fails_as_in_a_shell(launcher: launching.Launcher, place: Path) -> None:
    (place / "data").write_text("no program")

    completed = await launcher.run(launchers.command(str(place / "data")))

    assert (completed.ending, completed.code) == (base.Ending.EXITED, 126)
    assert "Permission denied" in completed.stderr


async def test_a_directory_that_is_not_there_is_the_harness_fault(launcher: launching.Launcher) -> None:
    with pytest.raises(errors.HarnessError, match="cannot enter /nowhere: No such file or directory"):
        await launcher.run(launchers.command("true", cwd="/nowhere"))


async def test_cpus_are_bound_and_those_that_are_not_there_refused(launcher: launching.Launcher) -> None:
    cpu = max(os.sched_getaffinity(0))

    completed = await launcher.run(launchers.script("grep Cpus_allowed_list /proc/self/status", cpus=(cpu,)))

    assert completed.stdout.split() == ["Cpus_allowed_list:", str(cpu)]
    with pytest.raises(errors.HarnessError, match=r"CPUs 1023 cannot be used: \w+ \w+ \(or our cpuset\) has [0-9,-]+; mend cpus"):
        await launcher.run(launchers.command("true", cpus=(cpu, 1023)))


async def test_the_environment_is_exactly_what_was_given(launcher: launching.Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBENCHD_SECRET", "of the daemon")

    completed = await launcher.run(launchers.command("/usr/bin/env", env={"A": "1", "NAME WITH SPACE": "é\n\udcff"}))

    assert completed.stdout == "A=1\nNAME WITH SPACE=é\n\ufffd\n"


async def test_a_program_has_three_files_and_ordinary_signals(launcher: launching.Launcher) -> None:
    completed = await launcher.run(
        launchers.script("ls /proc/$$/fd; readlink /proc/$$/fd/0; ulimit -c; umask; cat /proc/self/status")
    )

    lines = completed.stdout.splitlines()
    assert lines[:6] == ["0", "1", "2", "/dev/null", "0", "0007"]
    (ignored,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigIgn:"))
    assert ignored & ~(1 << 31 | 1 << 32) == 0  # 32 and 33 are the C library's own, and not to be set
    assert "SigBlk:\t0000000000000000" in lines


async def test_a_program_leads_a_session_of_its_own(launcher: launching.Launcher) -> None:
    completed = await launcher.run(launchers.python("import os; print(os.getpid() == os.getsid(0) == os.getpgid(0))"))

    assert completed.stdout == "True\n"


async def test_a_program_dies_before_the_daemon_where_memory_runs_out(launcher: launching.Launcher) -> None:
    completed = await launcher.run(launchers.command("cat", "/proc/self/oom_score_adj"))

    assert completed.stdout == "500\n"


async def test_arguments_and_output_need_not_be_text(launcher: launching.Launcher) -> None:
    completed = await launcher.run(launchers.command("printf", r"%s\377\000", "\udcfe"))

    assert completed.stdout == "\ufffd\ufffd\0"


async def test_output_within_the_limit_is_kept_whole(launcher: launching.Launcher) -> None:
    completed = await launcher.run(launchers.python("print('x' * 999_999)", output_limit=1_000_000))

    assert completed.stdout == "x" * 999_999 + "\n"


@pytest.mark.parametrize("limit", [1, 7, 1_000, 3_001])
async def test_of_longer_output_both_ends_are_kept_and_the_cut_is_told(launcher: launching.Launcher, limit: int) -> None:
    whole = "".join(f"{number}\n" for number in range(3_000))

    completed = await launcher.run(launchers.python("for n in range(3000): print(n)", output_limit=limit))

    half = limit // 2
    note = f"\n[{len(whole) - limit} bytes cut here]\n"
    assert completed.stdout == whole[:half] + note + whole[len(whole) - limit + half :]


async def test_a_flood_costs_neither_memory_nor_disk(launcher: launching.Launcher) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    completed = await launcher.run(launchers.script("head -c 200M /dev/zero; echo the end", output_limit=4 * MIB))

    assert completed.stdout.endswith("the end\n")
    assert len(completed.stdout) < 5 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


async def test_a_program_that_floods_without_end_is_timed_out(launcher: launching.Launcher) -> None:
    completed = await launcher.run(launchers.command("yes", timeout=0.3, output_limit=MIB))

    assert completed.ending is base.Ending.TIMED_OUT
    assert completed.stdout.startswith("y\ny\n")


async def test_what_it_printed_before_its_end_is_never_lost(launcher: launching.Launcher) -> None:
    """The end of a program and the last of its output reach the launcher at once."""
    for _ in range(20):
        completed = await launcher.run(launchers.script("echo first; echo last"))
        assert completed.stdout == "first\nlast\n"


async def test_at_the_timeout_grandchildren_that_hide_are_killed_too(launcher: launching.Launcher, place: Path) -> None:
    place.chmod(0o777)
    text = DAEMON.format(place / "pid") + "; trap '' TERM; while :; do sleep 1000; done"

    completed = await launcher.run(launchers.script(text, timeout=1.0))

    assert (completed.ending, completed.code) == (base.Ending.TIMED_OUT, signal.SIGKILL)
    assert completed.seconds >= 1.0
    assert not Path("/proc", (place / "pid").read_text().strip()).exists()


async def test_what_outlives_its_program_is_killed(launcher: launching.Launcher, place: Path) -> None:
    place.chmod(0o777)
    text = DAEMON.format(place / "pid") + f"; while [ ! -e {place / 'pid'} ]; do sleep 0.01; done"

    completed = await launcher.run(launchers.script(text))

    assert completed.ending is base.Ending.EXITED
    assert not Path("/proc", (place / "pid").read_text().strip()).exists()


async def test_cancelling_leaves_nothing(launcher: launching.Launcher, place: Path) -> None:
    place.chmod(0o777)
    text = DAEMON.format(place / "daemon") + f"; echo $$ > {place / 'pid'}; sleep 1000"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(launcher.run, launchers.script(text))
        pids = [await launchers.until_written(place / name) for name in ("pid", "daemon")]
        tasks.cancel_scope.cancel()

    assert [pid for pid in pids if Path("/proc", pid.strip()).exists()] == []


async def test_peak_memory_is_the_programs_and_not_ours(launcher: launching.Launcher) -> None:
    ours = b"x" * (400 * MIB)

    completed = await launcher.run(launchers.python(f"held = b'x' * {200 * MIB}"))

    assert len(ours) == 400 * MIB
    assert completed.peak_bytes == pytest.approx(200 * MIB, rel=0.1)


async def test_peak_memory_that_may_be_the_launchers_is_not_told(launcher: launching.Launcher) -> None:
    completed = await launcher.run(launchers.command("true"))

    identity = await launcher.hello()
    told = Path(identity.control_groups, "..", "cgroup.controllers").resolve()
    if identity.control_groups and "memory" in told.read_text():
        assert 0 < completed.peak_bytes < 8 * MIB
    else:
        assert math.isnan(completed.peak_bytes)


SPIN = """
import os, time
def spin(seconds):
    while time.process_time() < seconds: pass
if not os.fork():
    spin(0.2)
    os._exit(0)
os.wait()
spin(0.3)
"""


async def test_cpu_time_is_that_of_all_its_processes(launcher: launching.Launcher) -> None:
    completed = await launcher.run(launchers.python(SPIN))

    assert completed.ending is base.Ending.EXITED
    assert completed.code == 0, completed.stderr
    assert completed.cpu_seconds == pytest.approx(0.5, abs=0.1)


async def test_waiting_takes_time_and_no_cpu(launcher: launching.Launcher) -> None:
    completed = await launcher.run(launchers.command("sleep", "0.3"))

    assert completed.seconds >= 0.3
    assert completed.cpu_seconds < 0.2


async def test_programs_run_side_by_side(launcher: launching.Launcher, place: Path) -> None:
    """Each waits for the other."""
    place.chmod(0o777)
    async with anyio.create_task_group() as tasks:
        for own, other in (("a", "b"), ("b", "a")):
            text = f"touch {place / own}; while [ ! -e {place / other} ]; do sleep 0.01; done"
            tasks.start_soon(launcher.run, launchers.script(text))


async def test_more_programs_than_can_run_at_once_wait_for_their_turn(launcher: launching.Launcher) -> None:
    codes = []

    async def run() -> None:
        codes.append((await launcher.run(launchers.command("true"))).code)

    async with anyio.create_task_group() as tasks:
        for _ in range(300):
            tasks.start_soon(run)

    assert codes == [0] * 300


async def test_a_log_can_be_read_meanwhile_and_holds_both_streams(launcher: launching.Launcher, place: Path) -> None:
    log = place / "log"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_logged, launcher, "echo out; echo err >&2; sleep 1000", log, 1_000)
        with anyio.fail_after(20):
            while not log.exists() or log.read_text() != "out\nerr\n":
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_a_long_log_is_cut_in_its_middle_and_in_order(launcher: launching.Launcher, place: Path) -> None:
    completed = await _logged(launcher, "seq 100000; echo done", place / "log", 1_000)

    text = (place / "log").read_text()
    assert completed.code == 0
    assert text.startswith("1\n2\n3\n")
    assert "bytes cut here]" in text
    assert text.endswith("99999\n100000\ndone\n")
    assert [entry.name for entry in place.iterdir() if entry.name.startswith("log")] == ["log"]


async def _logged(launcher: launching.Launcher, text: str, log: Path, limit: int) -> base.Completed:
    return await launcher.run_logged(["/bin/sh", "-c", text], Path("/"), launchers.ENV, 60.0, log, limit)


async def test_two_hundred_runs_leave_no_file_process_or_group(launcher: launching.Launcher) -> None:
    groups = (await launcher.hello()).control_groups
    await launcher.run(launchers.command("true"))
    files, processes = _open_files(), launchers.own_launchers()

    for _ in range(200):
        await launcher.run(launchers.command("true"))

    assert _open_files() == files
    assert launchers.own_launchers() == processes
    for launcher_pid in processes:
        with anyio.fail_after(20):  # its last supervisor may be on its way out
            while launchers.children(launcher_pid):
                await anyio.sleep(0.01)
    if groups:
        assert [entry.name for entry in Path(groups).iterdir() if entry.is_dir()] == ["launcher"]


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_limit_of_nothing_is_refused(launcher: launching.Launcher) -> None:
    with pytest.raises(errors.HarnessError, match="output_limit must be 1 at least, not 0"):
        await launcher.run(launchers.command("true", output_limit=0))


async def test_caches_are_disturbed_on_the_cpus_asked_for(launcher: launching.Launcher) -> None:
    await launcher.disturb(8 * MIB, [min(os.sched_getaffinity(0))])

    with pytest.raises(errors.HarnessError, match="disturb: "):
        await launcher.disturb(8 * MIB, [1023])
