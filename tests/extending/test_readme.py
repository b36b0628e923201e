"""What the README says of extending: its package, installed by pip, is found, checked and measured with."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lab
import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```\w+\n# ([\w./]+)(.*?)^```$", re.MULTILINE | re.DOTALL)  # its first row names its file
LONGEST = 30  # rows of a file
NICE = 5
MODEL: dict[str, Any] = {
    "model": {
        "name": "squeezenet",
        "format": "ncnn",
        "framework": "ncnn",
        "files": {"param": {"filename": "squeezenet.param", "location": "squeezenet.param"}},
    },
    "tests": [
        {"identifier": "squeezenet", "metric": "delay", "inputs": {"data": {"shapes": [[1, 3, 227, 224]], "type": "float"}}}
    ],
}
# Takes benchncnn's arguments and prints its rows. One that was built without Vulkan computes on the CPU whatever it is asked for.
BENCHNCNN = """#!/bin/sh
[ "$(nice)" = {nice} ] || {{ echo "nice is $(nice)" >&2; exit 1; }}
[ "$6 $7" = "param=${{6#param=}} shape=[224,227,3]" ] && [ -s "${{6#param=}}" ] || {{ echo "not so: $*" >&2; exit 1; }}
[ "$4" = -1 ] || {gpu}
printf '%s\\n' "loop_count = $1" "num_threads = $2" "powersave = $3" "gpu_device = $4" "cooling_down = $5" >&2
printf '%20s  min = %7.2f  max = %7.2f  avg = %7.2f\\n' squeezenet 7.26 7.39 7.30 >&2
"""
NUMBERS = {"latency": "[7300.0]", "latency_min": "[7260.0]", "latency_max": "[7390.0]"}  # us
WITHOUT_VULKAN = "true"
WITH_VULKAN = "echo '[0 llvmpipe (LLVM 15.0.6, 256 bits)]  queueC=0[1]  queueG=0[1]  queueT=0[1]' >&2"
BUILD = '#!/bin/sh\ncp "$1/bench" "$2"\n'


def printed() -> dict[str, str]:
    """The files that the section shows, by path; each with all its rows."""
    _, _, rest = README.read_text().partition("\n### Extending\n")
    section, _, _ = rest.partition("\n### ")
    return {path: f"# {path}{text}" for path, text in BLOCK.findall(section)}


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that pip installed the package into, from its sources and nothing else."""
    missing = [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the example is a package to install; not in this Python: {', '.join(missing)}")
    directory = tmp_path_factory.mktemp("package")
    for path, text in printed().items():
        (directory / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / "source" / path).write_text(text)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    target = directory / "installed"
    done = subprocess.run([*command, "--target", target, directory / "source"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def installed(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are started see the package."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH")))))


@pytest.fixture
def made(tmp_path: Path, installed: None) -> lab.Lab:
    """A lab whose repository's framework and whose device's kind are the package's."""
    made = lab.make(tmp_path)
    commit(made, WITHOUT_VULKAN)
    (tmp_path / "frameworks" / "ncnn").mkdir(parents=True)
    (tmp_path / "frameworks" / "ncnn" / "build.sh").write_text(BUILD)
    (tmp_path / "squeezenet.param").write_text("7767517\n1 1\nInput data 0 1 data\n")
    made.write_specification("net.json", MODEL)
    (repository,) = made.configuration["repositories"]
    made.configure(
        repositories=[repository | {"framework": "ncnn"}],
        builds={"frameworks_directory": "frameworks"},
        devices=[device()],
        benchmarks=[{"specification": "net.json", "backends": ["cpu", "vulkan"], "experiment": {"arms": 1}}],
    )
    return made


def commit(made: lab.Lab, gpu: str) -> None:
    made.commit(gpu, bench=BENCHNCNN.format(nice=min(os.nice(0) + NICE, 19), gpu=gpu))


def device(**keys: Any) -> dict[str, Any]:
    return {"name": "quiet", "kind": "wrapped", "wrapper": ["nice", "-n", str(NICE)], **keys}


def aibenchd(made: lab.Lab, *arguments: str) -> tuple[int, str]:
    """Exit status, and what was printed."""
    command = [sys.executable, "-m", "aibenchd", *arguments]
    done = subprocess.run(command, cwd=made.directory, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_framework_and_a_device_kind_take_thirty_rows_each() -> None:
    rows = {path: len(text.splitlines()) for path, text in printed().items()}
    assert rows.keys() == {"pyproject.toml", "aibenchd_lab/ncnn.py", "aibenchd_lab/wrapped.py"}
    assert max(rows.values()) <= LONGEST, rows


def test_the_command_is_composed_of_the_shapes_of_the_inputs(made: lab.Lab) -> None:
    status, said = aibenchd(made, "spec", "show", "net.json", "--backend", "vulkan", "--json")
    assert status == 0, said
    (shown,) = json.loads(said)["benchmarks"]
    (command,) = shown["commands"]
    assert command.split()[1:6] == ["20", "1", "0", "0", "0"]
    assert command.split()[6].endswith("/squeezenet.param")
    assert command.split()[7] == "'shape=[224,227,3]'"


async def test_the_daemon_measures_with_both(made: lab.Lab) -> None:
    assert aibenchd(made, "check", "aibenchd.yaml") == (0, "aibenchd.yaml: good\n")
    samples = 'SELECT s.metric, s."values" FROM samples s JOIN trials t ON t.id = s.trial'
    async with made.daemon():
        await decided(made, "measured", "broken")
        assert dict(made.rows(f"{samples} WHERE s.type = 'NET' AND t.backend = 'cpu'")) == NUMBERS
        ((reason,),) = made.rows("SELECT reason FROM experiments WHERE backend = 'vulkan'")
        assert "asked for the backend vulkan; the program does not say which one executed" in reason


async def test_a_backend_is_measured_where_there_is_evidence_of_it(made: lab.Lab) -> None:
    commit(made, WITH_VULKAN)
    async with made.daemon():
        await decided(made, "measured", "measured")
        assert made.rows("SELECT DISTINCT backend FROM trials ORDER BY backend") == [("cpu",), ("vulkan",)]


async def decided(made: lab.Lab, cpu: str, vulkan: str) -> None:
    """Wait until the newest revision's two experiments have ended so."""
    query = "SELECT device, backend, verdict FROM experiments WHERE verdict IS NOT NULL ORDER BY backend"
    await made.until(query, [("quiet", "cpu", cpu), ("quiet", "vulkan", vulkan)])


@pytest.mark.parametrize(
    ("keys", "reason"),
    [({"wraper": ["nice"]}, "did you mean 'wrapper'"), ({"wrapper": []}, "expected"), ({"wrapper": "nice"}, "expected a list")],
)
def test_check_says_where_the_new_keys_are_wrong(made: lab.Lab, keys: dict[str, Any], reason: str) -> None:
    made.configure(devices=[device(**keys)])
    (key,) = keys
    rows = made.config.read_text().splitlines()
    line = 1 + next(number for number, row in enumerate(rows) if f'"{key}":' in row)
    status, said = aibenchd(made, "check", "aibenchd.yaml")
    assert status == 1
    assert re.match(rf"aibenchd\.yaml:{line}:\d+: devices\[0\]\.{key}: ", said), said
    assert reason in said


def test_check_asks_the_new_kind_whether_it_can_be_reached(made: lab.Lab) -> None:
    made.configure(devices=[device(wrapper=["no-such-program"])])
    status, said = aibenchd(made, "check", "aibenchd.yaml")
    assert status == 1
    assert ": devices[0]: wrapper: there is no program 'no-such-program'" in said


def test_without_the_package_the_kinds_are_unknown(made: lab.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    status, said = aibenchd(made, "check", "aibenchd.yaml")
    assert status == 1
    assert "'wrapped' is none of the installed kinds of devices" in said
    assert "'ncnn' is none of the installed kinds of frameworks" in said
