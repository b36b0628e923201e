"""The script that runs programs on devices, in each shell that is here; Android's own are mksh and toybox."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from aibenchd import errors
from aibenchd.devices import base, supervising

KILL = b"\n"
SHELLS = ("dash", "bash", "mksh", "busybox")


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found = shutil.which(request.param)
    if found is None:
        pytest.skip(f"{request.param} is not installed")
    return (found, "sh") if request.param == "busybox" else (found,)


@pytest.fixture(params=["of this host", "toybox"])
def tools(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A search path."""
    if request.param == "of this host":
        return "/usr/bin:/bin"
    toybox = shutil.which("toybox")
    if toybox is None:
        pytest.skip("toybox is not installed")
    (tmp_path / "tools").mkdir()
    for name in subprocess.run([toybox], capture_output=True, text=True, check=True).stdout.split():
        (tmp_path / "tools" / name).symlink_to(toybox)
    (tmp_path / "tools" / "sh").symlink_to("/bin/sh")
    return str(tmp_path / "tools")


class Supervisor:
    """Runs texts under the script, and knows what they leave, and what the script itself does."""

    def __init__(self, shell: tuple[str, ...], tools: str, place: Path) -> None:
        self._shell, self._tools, self._place = shell, tools, place
        self._mark = f"SUPERVISOR={place}"
        self.script = place / "supervise.sh"
        self.script.write_bytes(supervising.SCRIPT)

    def start(self, text: str, silence: float = 0, **more: object) -> tuple[subprocess.Popen[bytes], supervising.Supervised]:
        given: dict[str, Any] = {"cwd": PurePosixPath(self._place), **more}
        command = base.Command((text,), shell=True, **given)
        supervised = supervising.supervised(PurePosixPath(self.script), str(self._place), command, silence)
        argv = [*self._shell, "-c", supervised.text.replace("sh ", " ".join(self._shell) + " ", 1)]
        pipe, environment = subprocess.PIPE, {"PATH": self._tools, **dict([self._mark.split("=", 1)])}
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True, cwd="/")
        return process, supervised

    def run(self, text: str, said: bytes | None = None, **more: Any) -> base.Completed:
        process, supervised = self.start(text, **more)
        if said is not None:
            self.until("begun")
            process.stdin.write(said)  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        stdin, process.stdin = process.stdin, None  # it stays open
        try:
            stdout, stderr = process.communicate(timeout=30)
        finally:
            stdin.close()  # type: ignore[union-attr]
        return supervising.completed(stdout, stderr, supervised.mark, killed=said == KILL)

    def until(self, name: str) -> None:
        for _ in range(1000):
            if (self._place / name).exists():
                return
            time.sleep(0.02)
        raise AssertionError(name)

    def slow(self, name: str) -> None:
        """Have a program of the device's take its time."""
        place, real = self._place / "slow" / name, shutil.which(name, path=self._tools)
        place.parent.mkdir()
        place.write_text(f'#!/bin/sh\nsleep 0.3\nexec {real} "$@"\n')
        place.chmod(0o755)
        self._tools = f"{place.parent}:{self._tools}"

    def left(self) -> list[str]:
        return _tagged(f"{supervising.TAG}={self._place}:")

    def at_work(self) -> list[str]:
        """What of it is there at all."""
        return _tagged(self._mark)

    def until_alone(self) -> None:
        for _ in range(1000):
            if not self.left():
                return
            time.sleep(0.02)
        raise AssertionError(self.left())


def _tagged(variable: str) -> list[str]:
    return [place.name for place in Path("/proc").glob("[0-9]*") if variable.encode() in _environ(place)]


def _environ(place: Path) -> bytes:
    try:
        return (place / "environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def supervisor(shell: tuple[str, ...], tools: str, tmp_path: Path) -> Iterator[Supervisor]:
    one = Supervisor(shell, tools, tmp_path)
    yield one
    for pid in one.left():
        os.kill(int(pid), signal.SIGKILL)


def test_a_program_is_told_of_as_it_was(supervisor: Supervisor) -> None:
    text = 'echo "$A"; cat; echo err >&2; pwd; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 3'
    completed = supervisor.run(text, env={"A": "it's $B"})
    assert (completed.ending, completed.code) == (base.Ending.EXITED, 3)
    assert completed.stdout == f"it's $B\n{supervisor.script.parent}\n"
    assert "err\n" in completed.stderr
    assert 0 < completed.cpu_seconds <= completed.seconds + 0.05


@pytest.mark.parametrize("number", [6, 9, 11, 15])
def test_a_signal_is_told_as_one(supervisor: Supervisor, number: int) -> None:
    completed = supervisor.run(f"kill -{number} $$")
    assert (completed.ending, completed.code) == (base.Ending.SIGNALLED, number)


def test_a_line_kills_all_of_it(supervisor: Supervisor) -> None:
    completed = supervisor.run("(setsid sleep 1000 &); sleep 1001 & echo >begun; sleep 1002", KILL)
    assert completed.ending is base.Ending.TIMED_OUT
    assert supervisor.left() == []


def test_what_looks_for_processes_has_ended_with_the_run(supervisor: Supervisor) -> None:
    supervisor.slow("grep")
    completed = supervisor.run("echo >begun; sleep 1000", KILL)
    assert completed.ending is base.Ending.TIMED_OUT
    assert supervisor.at_work() == []


def test_a_program_that_is_only_just_being_started_is_killed(supervisor: Supervisor) -> None:
    """It has come neither to its own group nor to its environment."""
    supervisor.slow("setsid")
    process, supervised = supervisor.start("echo >begun; sleep 1000")
    stdout, stderr = process.communicate(KILL, timeout=30)
    assert supervising.completed(stdout, stderr, supervised.mark, killed=True).ending is base.Ending.TIMED_OUT
    assert not (supervisor.script.parent / "begun").exists()
    assert supervisor.left() == []


def test_short_runs_leave_nothing_of_the_supervisors_own(supervisor: Supervisor) -> None:
    for _ in range(20):
        assert supervisor.run("true").code == 0
        assert supervisor.at_work() == []


def test_what_is_left_running_is_killed(supervisor: Supervisor) -> None:
    assert supervisor.run("(setsid sleep 1000 >/dev/null &); sleep 1001 &").code == 0
    assert supervisor.left() == []


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGKILL])
def test_where_its_shell_is_hung_up_on_the_program_ends_too(supervisor: Supervisor, how: signal.Signals) -> None:
    """With its input, as adbd does where its line is gone."""
    process, _ = supervisor.start("(setsid sleep 1000 &); echo >begun; sleep 1001")
    supervisor.until("begun")
    os.kill(process.pid, how)
    process.communicate(timeout=30)
    supervisor.until_alone()


def test_what_may_be_ended_and_not_killed_is_ended(tmp_path: Path, shell: tuple[str, ...]) -> None:
    """As Perfetto by Android's SELinux, where it outlives its line."""
    process = subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"], supervising.TAG: f"{tmp_path}:1"})
    refused = 'kill() { case $1 in -9) return 1 ;; esac; command kill "$@"; }\n'
    try:
        subprocess.run([*shell, "-c", refused + supervising.sweep(str(tmp_path))], check=False, timeout=30)
        assert process.wait(timeout=30) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def test_a_program_that_nobody_asks_after_ends_by_itself(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "GRACE", 0.0)
    completed = supervisor.run("sleep 1000", timeout=0.5)
    assert (completed.ending, completed.code) == (base.Ending.SIGNALLED, 9)


def test_a_caller_that_falls_silent_is_taken_for_gone(supervisor: Supervisor, shell: tuple[str, ...]) -> None:
    """It gives signs of life until the program has lasted longer than it may be silent; its line stays open."""
    if shell[0].endswith("dash"):
        pytest.skip("dash has no read -t, and ends a run at its limit alone")
    process, supervised = supervisor.start("echo >begun; (setsid sleep 1000 &); sleep 4; echo >lasted; sleep 1001", silence=3)
    assert process.stdin is not None
    supervisor.until("begun")
    while not (supervisor.script.parent / "lasted").exists():
        process.stdin.write(supervising.SIGN_OF_LIFE)
        process.stdin.flush()
        time.sleep(0.2)
    assert supervisor.left()
    supervisor.until_alone()
    stdout, stderr = process.communicate(timeout=30)
    with pytest.raises(errors.HarnessError, match="what supervises programs on the device was killed"):
        supervising.completed(stdout, stderr, supervised.mark, killed=False)


def test_signs_of_life_change_nothing_of_what_is_told(supervisor: Supervisor) -> None:
    completed = supervisor.run("echo >begun; echo well; sleep 0.5; cat; exit 3", 3 * supervising.SIGN_OF_LIFE, silence=60)
    assert (completed.code, completed.stdout) == (3, "well\n")


def test_cpus_are_kept_to(supervisor: Supervisor) -> None:
    cpu = max(os.sched_getaffinity(0))
    completed = supervisor.run("grep Cpus_allowed_list /proc/self/status", cpus=(cpu,))
    assert completed.stdout.split()[1] == str(cpu)


def test_a_directory_that_cannot_be_entered_is_our_fault(supervisor: Supervisor) -> None:
    with pytest.raises(errors.HarnessError, match=r"was killed, or could not begin: .*none"):
        supervisor.run("true", cwd=PurePosixPath("/none"))


def test_a_command_that_adb_could_not_carry_is_refused() -> None:
    command = base.Command(("x" * supervising.LONGEST,), PurePosixPath("/"))
    with pytest.raises(errors.CommandError, match="a device is handed 60000 at most"):
        supervising.supervised(PurePosixPath("/s"), "owner", command)


@pytest.mark.parametrize(("cpus", "mask"), [((), "-"), ((0,), "1"), ((4, 7, 4), "90"), ((63, 64), "18000000000000000")])
def test_masks(cpus: tuple[int, ...], mask: str) -> None:
    assert supervising.mask(cpus) == mask


def test_libraries_come_after_those_that_are_asked_for() -> None:
    assert supervising.environment({}, []) == {}
    assert supervising.environment({"A": "b"}, ["/x", "/y"]) == {"A": "b", "LD_LIBRARY_PATH": "/x:/y"}
    assert supervising.environment({"LD_LIBRARY_PATH": "/own"}, ["/x"]) == {"LD_LIBRARY_PATH": "/own:/x"}
