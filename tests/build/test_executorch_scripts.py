"""ExecuTorch's build scripts, run as the builder runs them. What takes long to build, and its program, have stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import buildplace
import executorchenv
import pytest

from aibenchd import digests, model
from aibenchd.frameworks import base, executorch

ENGINE = Path(__file__).parents[1] / "runners/executorch_engine.py"
ITSELF = {"examples/portable/executor_runner/executor_runner.cpp": ""}
NDK = {"build/cmake/android.toolchain.cmake": ""}

# Does what is needed of "cmake -S … -B DIRECTORY" and "cmake --build DIRECTORY --target executor_runner".
CMAKE = """#!/bin/sh
echo "cmake $*"
[ "$1" = --build ] || exit 0
mkdir -p "$2"
cp "$(dirname "$0")/executor_runner" "$2/"
"""

# Prints what executor_runner prints.
EXECUTOR_RUNNER = """#!/bin/sh
echo "asked: $*" >&2
case $1 in *broken*) exit 134 ;; esac
echo "I 00:00:00.007243 executorch:executor_runner.cpp:480] Model loaded in 2.5 ms." >&2
count=${2#*=}
number=1
while [ "$number" -le "$count" ]; do
    echo "I 00:00:00.01 executorch:executor_runner.cpp:614] Iteration $number of $count: $number.0 ms" >&2
    number=$((number + 1))
done
echo "I 00:00:00.02 executorch:executor_runner.cpp:623] Model executed successfully $count time(s) in 99.0 ms." >&2
echo "OutputX 0: tensor(sizes=[1, 2], [0.5, 1.])"
"""


@pytest.fixture
def place(tmp_path: Path) -> buildplace.Place:
    made = buildplace.Place(tmp_path, python=tmp_path / "bin/python")
    made.write({"python": "#!/bin/sh\n"}, "bin")
    return made


@pytest.fixture
def built(place: buildplace.Place) -> buildplace.Place:
    place.write(ITSELF)
    place.write({"cmake": CMAKE, "executor_runner": EXECUTOR_RUNNER}, "bin")
    ended = place.build("executorch/host")
    assert ended.returncode == 0, ended.stderr
    place.write(
        {"xnnpack.pte": "ET12 \0XnnpackBackend\0 \0XnnpackBackend\0", "cpu.pte": "ET12 aten::add", "broken.pte": ""}, "files"
    )
    return place


def read(ended: subprocess.CompletedProcess[str]) -> base.Output:
    assert ended.returncode == 0, ended.stderr
    return executorch.ExecuTorch().parse(ended.stdout, model.Benchmark({}, {}))


# ---------------------------------------------------------------- repositories


@pytest.mark.parametrize("platform", ["host", "linux", "android"])
def test_a_repository_s_own_script_goes_first(platform: str, place: buildplace.Place) -> None:
    assert os.access(buildplace.FRAMEWORKS / "executorch" / platform / "build.sh", os.X_OK)
    place.write({"build.sh": '#!/bin/sh\necho "from $1" > "$2"\n', "engine.py": "", **ITSELF})
    assert place.build(f"executorch/{platform}").returncode == 0
    assert place.program.read_text() == f"from {place.source}\n"


@pytest.mark.parametrize(
    ("platform", "files", "variables", "said"),
    [
        ("host", {"README": "", "setup.py": ""}, {}, "no Python package or module at the root"),
        ("linux", ITSELF, {}, "built by cmake, and there is none on PATH"),
        ("android", {"engine.py": ""}, {}, "only ExecuTorch itself is built for Android"),
        ("android", ITSELF, {}, "ANDROID_NDK is not set; set it in builds.env"),
        ("android", ITSELF, {"ANDROID_NDK": "/nowhere"}, "ANDROID_NDK=/nowhere: has no build/cmake/android.toolchain.cmake"),
    ],
)
def test_what_is_missing_is_named(
    platform: str, files: Mapping[str, str], variables: Mapping[str, str], said: str, place: buildplace.Place
) -> None:
    place.write(files)
    ended = place.build(f"executorch/{platform}", **variables)
    assert (ended.returncode, said in ended.stderr.splitlines()[-1]) == (1, True), ended.stderr
    assert not place.program.exists()


def test_what_executorch_s_build_needs_is_named(place: buildplace.Place) -> None:
    place.write(ITSELF)
    place.write({"cmake": CMAKE, "python": "#!/bin/sh\nexit 1\n"}, "bin")
    ended = place.build("executorch/host")
    assert (ended.returncode, "lacks what ExecuTorch's build needs; set it in builds.env" in ended.stderr) == (1, True)


def test_an_engine_is_taken_and_equal_sources_are_equal_builds(place: buildplace.Place) -> None:
    place.write({"engine/__init__.py": "", "src/other.py": "", "tests/__init__.py": "", "setup.py": "", "README": ""})
    assert place.build("executorch/linux", DEVICE_PYTHON="it's python").returncode == 0
    found = sorted(path.relative_to(place.program.parent).as_posix() for path in place.program.parent.rglob("*.py"))
    runners = ["runners/common.py", "runners/executorch_runner.py", "runners/torch_runner.py"]
    assert found == ["engine/__init__.py", "other.py", *runners]
    assert r"exec 'it'\''s python' -B" in place.program.read_text()
    before = digests.of_tree(place.program.parent)
    subprocess.run([sys.executable, "-m", "compileall", "-q", place.source], check=True)
    shutil.rmtree(place.program.parent)
    place.program.parent.mkdir()
    assert place.build("executorch/linux", DEVICE_PYTHON="it's python").returncode == 0
    assert digests.of_tree(place.program.parent) == before


def test_an_engine_s_network_is_measured(place: buildplace.Place) -> None:
    python = executorchenv.interpreter()
    place.write({"engine.py": ENGINE.read_text(), "common.py": "raise ImportError('this one is the engine')\n"})
    assert place.build("executorch/host", AIBENCHD_EXECUTORCH_PYTHON=str(python)).returncode == 0
    place.program = place.program.parent.rename(place.root / "elsewhere, it's moved") / "benchmark"
    found = read(place.run("--module", "engine:net", "--input-dims", "1,3,16,16", "--iterations", "3", "--backend=xnnpack"))
    assert found.backend == "xnnpack"
    assert [len(series.values) for series in found.series if series.key == model.NETWORK] == [3]
    assert not list(place.program.parent.rglob("__pycache__"))


# ---------------------------------------------------------------- executor_runner


def test_android_s_is_built_by_the_ndk(place: buildplace.Place) -> None:
    place.write(ITSELF)
    place.write({"cmake": CMAKE, "executor_runner": EXECUTOR_RUNNER}, "bin")
    place.write(NDK, "ndk")
    ended = place.build("executorch/android", ANDROID_NDK=str(place.root / "ndk"), EXECUTORCH_FLAGS="-DA=1 -DB=2")
    assert ended.returncode == 0, ended.stderr
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={place.root}/ndk/build/cmake/android.toolchain.cmake"
    assert f"-DA=1 -DB=2 {toolchain} -DANDROID_ABI=arm64-v8a -DANDROID_PLATFORM=android-26" in ended.stdout
    assert "-DEXECUTORCH_ENABLE_LOGGING=ON" in ended.stdout
    assert place.program.read_text().startswith("#!/system/bin/sh\n")


def test_executor_runner_takes_the_options_of_the_runner(built: buildplace.Place) -> None:
    """Its first run is told, those of the warm-up are left out."""
    counts = ("--warmup", "2", "--iterations=3", "--threads", "4", "--operators", "--input-dims", "1,2", "--output-directory=/x")
    ended = built.run("--model", built.root / "files/xnnpack.pte", *counts, "--backend", "xnnpack")
    found = read(ended)
    assert f"asked: --model_path={built.root}/files/xnnpack.pte --num_executions=6 --cpu_threads=4" in ended.stdout
    assert found.backend == "xnnpack"
    series = {one.key: one for one in found.series}
    assert series["NET evidence"].text == "lowered to xnnpack, and executed"
    samples = {key: one.values for key, one in series.items() if one.values}
    assert samples == {"NET load": (2500,), "NET first_run": (1000,), "NET latency": (4000, 5000, 6000)}


def test_the_backend_is_what_the_program_was_lowered_to(built: buildplace.Place) -> None:
    files = built.root / "files"
    assert read(built.run("--model", files / "cpu.pte", "--backend=cpu")).backend == "cpu"
    assert read(built.run("--model", files / "xnnpack.pte", "--backend=")).backend == "xnnpack"
    refused = built.run("--model", files / "xnnpack.pte", "--backend=cpu")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "asked for cpu, but " in refused.stderr
    assert "was lowered to xnnpack when it was exported" in refused.stderr
    built.write({"two.pte": "\0XnnpackBackend\0VulkanBackend\0"}, "files")
    assert read(built.run("--model", files / "two.pte")).backend == "VulkanBackend+xnnpack"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "expected --model FILE"),
        (("--model", "nowhere.pte"), 2, "nowhere.pte: there is no such file"),
        (("--model", "x", "--input-file=a.npy"), 2, "has no --input-file; it takes --model"),
        (("--module", "engine:net"), 2, "has no --module; it takes --model"),
        (("--vulkan",), 2, "does not know --vulkan"),
        (("--model", "{files}/broken.pte"), 1, "failed with "),
    ],
)
def test_executor_runner_refuses_what_it_cannot_do(
    arguments: tuple[str, ...], status: int, said: str, built: buildplace.Place
) -> None:
    ended = built.run(*(word.replace("{files}", str(built.root / "files")) for word in arguments))
    assert (ended.returncode, ended.stdout) == (status, "")
    assert f"executor_runner: {said}" in ended.stderr.splitlines()[-1]
