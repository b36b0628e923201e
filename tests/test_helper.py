"""The privileged helper, as systemd starts it, on files such as the kernel's."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CPUS = "sys/devices/system/cpu"
GOVERNORS = "performance powersave\n"
# What systemd does: the socket becomes file 3, and LISTEN_PID is who is executed.
ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-I", "-m", "aibenchd.helper", *sys.argv[2:]])
"""

Ask = Callable[..., Any]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """Two CPUs that run at 800 to 3,000 MHz, one RAPL zone, and the caches."""
    root = tmp_path / "kernel"
    for cpu in (0, 1):
        files = {
            "scaling_available_governors": GOVERNORS,
            "scaling_governor": "powersave\n",
            "cpuinfo_min_freq": "800000\n",
            "cpuinfo_max_freq": "3000000\n",
            "scaling_min_freq": "1000000\n",
            "scaling_max_freq": "2000000\n",
        }
        for name, text in files.items():
            write(root / CPUS / f"cpu{cpu}" / "cpufreq" / name, text)
    zone = root / "sys/class/powercap/intel-rapl:0"
    for name, text in {"name": "package-0\n", "energy_uj": "1234\n", "max_energy_range_uj": "262143328850\n"}.items():
        write(zone / name, text)
    write(root / "proc/sys/vm/drop_caches", "")
    return root


@pytest.fixture
def path(kernel: Path, tmp_path: Path) -> Iterator[Path]:
    """Where the helper listens."""
    path = tmp_path / "helper.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        argv = [sys.executable, "-c", ACTIVATE, str(listening.fileno()), f"root={kernel}"]
        with subprocess.Popen(argv, pass_fds=[listening.fileno()]) as process:
            yield path
            process.kill()


@pytest.fixture
def ask(path: Path) -> Iterator[Ask]:
    """Send a line, or an object as one; the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        lines = connection.makefile("rwb")

        def ask(line: bytes = b"", **request: Any) -> Any:
            lines.write((line or json.dumps(request).encode()) + b"\n")
            lines.flush()
            return json.loads(lines.readline())

        yield ask


def cpu(kernel: Path, number: int, name: str) -> str:
    return (kernel / CPUS / f"cpu{number}" / "cpufreq" / name).read_text().strip()


def test_it_sets_the_governor_of_the_cpus_named(ask: Ask, kernel: Path) -> None:
    assert ask(verb="set-governor", cpus=[1], governor="performance") == {}
    assert cpu(kernel, 1, "scaling_governor").startswith("performance")
    assert cpu(kernel, 0, "scaling_governor") == "powersave"


@pytest.mark.parametrize(("least", "most"), [(800_000, 900_000), (2_500_000, 3_000_000), (1_500_000, 1_500_000)])
def test_it_sets_frequencies(ask: Ask, kernel: Path, least: int, most: int) -> None:
    assert ask(verb="set-frequency", cpus=[0, 1], least=least, most=most) == {}
    for number in (0, 1):
        assert cpu(kernel, number, "scaling_min_freq").startswith(str(least))
        assert cpu(kernel, number, "scaling_max_freq").startswith(str(most))


def test_it_drops_caches_and_reads_energy(ask: Ask, kernel: Path) -> None:
    assert ask(verb="drop-caches") == {}
    assert (kernel / "proc/sys/vm/drop_caches").read_text() == "3"
    assert ask(verb="read-energy") == {"zones": [{"name": "package-0", "microjoules": 1234, "range": 262143328850}]}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"verb": "set-governor", "cpus": [0, 1], "governor": "userspace"}, "has the governors performance, powersave"),
        ({"verb": "set-governor", "cpus": [0], "governor": ["performance"]}, "has the governors"),
        ({"verb": "set-governor", "cpus": [7], "governor": "performance"}, "cpu7: there is no such CPU"),
        ({"verb": "set-governor", "cpus": ["0/../../../x"], "governor": "performance"}, "cpus: expected a list of numbers"),
        ({"verb": "set-governor", "cpus": [True], "governor": "performance"}, "cpus: expected a list of numbers"),
        ({"verb": "set-governor", "cpus": [-1], "governor": "performance"}, "cpus: expected a list of numbers"),
        ({"verb": "set-governor", "cpus": [], "governor": "performance"}, "cpus: expected a list of numbers"),
        ({"verb": "set-governor", "cpus": [0]}, "expected the keys verb, cpus, governor"),
        ({"verb": "set-frequency", "cpus": [0], "least": 700_000, "most": 800_000}, "runs at 800000 to 3000000 kHz"),
        ({"verb": "set-frequency", "cpus": [0], "least": 900_000, "most": 800_000}, "runs at 800000 to 3000000 kHz"),
        ({"verb": "set-frequency", "cpus": [0], "least": "800000", "most": 900_000}, "runs at 800000 to 3000000 kHz"),
        ({"verb": "drop-caches", "file": "/etc/passwd"}, "expected the keys verb"),
        ({"verb": "run", "argv": ["sh"]}, "verb: expected one of"),
        ({"verb": ["run"]}, "expected a JSON object with a verb"),
        ({}, "verb: expected one of"),
    ],
)
def test_it_does_nothing_else(ask: Ask, kernel: Path, request_: dict[str, Any], error: str) -> None:
    before = {file: file.read_bytes() for file in kernel.rglob("*") if file.is_file()}
    assert error in ask(**request_)["error"]
    assert {file: file.read_bytes() for file in kernel.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("line", [b"reboot", b"[]", b"\xff\xfe", b"[" * 10_000])
def test_what_is_no_request_is_refused(ask: Ask, line: bytes) -> None:
    assert "expected a JSON object" in ask(line)["error"]
    assert "zones" in ask(verb="read-energy")


def test_what_never_ends_is_cut_off(ask: Ask) -> None:
    assert "bytes" in ask(b"x" * 200_000)["error"]


def test_a_file_that_the_kernel_does_not_have_is_named(ask: Ask, kernel: Path) -> None:
    (kernel / "proc/sys/vm/drop_caches").unlink()
    assert ask(verb="drop-caches")["error"].endswith("drop_caches: No such file or directory")
    assert not (kernel / "proc/sys/vm/drop_caches").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as somebody else")
def test_nobody_else_may_ask(path: Path) -> None:
    path.parent.chmod(0o711)
    path.chmod(0o666)
    program = (
        "import os, socket; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect('helper.sock'); "
        's.sendall(b\'{"verb": "drop-caches"}\\n\'); print(s.recv(999).decode())'
    )
    argv = [sys.executable, "-c", program]
    told = subprocess.run(argv, cwd=path.parent, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(told.stdout) == {"error": "user 65534 may not ask for anything here"}


def test_it_starts_only_as_systemd_starts_it() -> None:
    told = subprocess.run([sys.executable, "-m", "aibenchd.helper"], capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode == 1
    assert "expected one socket from systemd" in told.stderr
