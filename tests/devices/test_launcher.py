import math
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from aibenchd.devices import launcher, launching

PURE = "25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "25 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "26 25 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "27 25 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
CONTAINER = "25 1 0:22 /machine/x /sys/fs/cgroup rw - cgroup2 cgroup rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "directory"),
    [
        (PURE, "0::/system.slice/aibenchd.service\n", "/sys/fs/cgroup/system.slice/aibenchd.service"),
        (PURE, "0::/\n", "/sys/fs/cgroup"),
        (HYBRID, "4:memory:/other\n0::/user.slice\n", "/sys/fs/cgroup/unified/user.slice"),
        (CONTAINER, "0::/machine/x/unit\n", "/sys/fs/cgroup/unit"),
        (CONTAINER, "0::/machine/x\n", "/sys/fs/cgroup"),
    ],
)
def test_our_control_group_is_found(mountinfo: str, cgroup: str, directory: str) -> None:
    assert launcher._group_directory(mountinfo, cgroup) == directory


@pytest.mark.parametrize(("mountinfo", "cgroup"), [(HYBRID, "4:memory:/other\n"), (HYBRID.splitlines()[1], "0::/\n")])
def test_version_one_alone_is_none(mountinfo: str, cgroup: str) -> None:
    with pytest.raises(FileNotFoundError):
        launcher._group_directory(mountinfo, cgroup)


def test_it_is_one_file_of_the_standard_library(tmp_path: Path) -> None:
    """It runs from anywhere, with an interpreter that has nothing installed."""
    program = tmp_path / "launcher.py"
    program.write_bytes(launching.PROGRAM.read_bytes())
    probe = f"""
import runpy, sys
runpy.run_path({str(program)!r})
print([name for name, module in sys.modules.items() if "site-packages" in str(module)])
"""

    completed = subprocess.run([sys.executable, "-IS", "-c", probe], capture_output=True, text=True, check=True)

    assert completed.stdout == "[]\n"


@pytest.mark.parametrize("size", [1, 2, 3, 10, 11])
def test_output_is_kept_in_a_head_and_a_ring(tmp_path: Path, size: int) -> None:
    """Whatever the sizes of the pieces in which it comes."""
    data = bytes(range(200))
    for piece in (1, 3, 7, 64, 200):
        with (tmp_path / "output").open("w+b") as file:
            ends = launcher.Ends(file.fileno(), size)
            for start in range(0, len(data), piece):
                ends.keep(data[start : start + piece])
            kept = launching._kept(file.fileno(), ends.total, size)

        half = size // 2
        assert kept == data[:half] + f"\n[{200 - size} bytes cut here]\n".encode() + data[200 - size + half :]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["users=x"], "launcher: users: expected user=NAME or for=NAME"),
        (["nobody"], "launcher: nobody: expected user=NAME or for=NAME"),
        (["for=no-such-user"], "launcher: user no-such-user is not known on this host"),
    ],
)
def test_it_says_what_is_wrong_with_its_arguments(arguments: list[str], fault: str) -> None:
    completed = subprocess.run([sys.executable, "-IS", str(launching.PROGRAM), *arguments], capture_output=True, text=True)

    assert (completed.returncode, completed.stderr) == (1, fault + "\n")


SOFTWARE, TASK_CLOCK = 1, 1  # of perf_event_open(2): nanoseconds of CPU time, which the kernel itself counts
BURN = "import subprocess, sys; sum(range(2_000_000)); subprocess.run([sys.executable, '-c', 'sum(range(2_000_000))'])"


def test_a_counter_counts_what_children_and_their_children_did() -> None:
    counter = launcher.Counter(SOFTWARE, TASK_CLOCK)
    if math.isnan(counter.total()):
        pytest.skip("perf_event_open is not allowed here")
    assert counter.total() == 0  # this process itself is not counted
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", BURN], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    assert 0.5 * used < counter.total() / 1e9 < 1.5 * used + 0.02


def test_instructions_are_counted_where_the_processor_is_seen() -> None:
    counter = launcher.Counter()
    if math.isnan(counter.total()):
        pytest.skip("the kernel shows no counter of retired instructions, as on most virtual machines")
    subprocess.run([sys.executable, "-c", "sum(range(1_000_000))"], check=True)
    assert counter.total() > 1_000_000
