"""The build scripts of TensorFlow Lite, Glow and oculus, run as the builder runs them.

Their sources and tool chains take gigabytes: where a script compiles, stand-ins for its tools do as those would.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import buildplace
import pytest

from aibenchd import model
from aibenchd.frameworks import tflite

SCRIPTS = [path for name in ("tflite", "glow", "oculus") for path in sorted((buildplace.FRAMEWORKS / name).glob("*/build.sh"))]

# Does what is needed of "cmake -S … -B DIRECTORY" and "cmake --build DIRECTORY --target NAME…".
CMAKE = """#!/bin/sh
echo "cmake $*"
[ "$1" = --build ] || exit 0
directory=$2
while [ "$1" != --target ]; do shift; done
shift
mkdir -p "$directory/bin"
for name in "$@"; do
    printf '#!/bin/sh\\necho "%s $*"\\n' "$name" > "$directory/bin/$name"
    chmod +x "$directory/bin/$name"
done
"""
BAZEL = """#!/bin/sh
echo "bazel $*"
for target in "$@"; do :; done
mkdir -p "bazel-bin/${target%:*}"
printf '#!/bin/sh\\necho "benchmark_model $*"\\n' > "bazel-bin/${target%:*}/benchmark_model"
chmod +x "bazel-bin/${target%:*}/benchmark_model"
"""


@pytest.fixture
def place(tmp_path: Path) -> buildplace.Place:
    return buildplace.Place(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parts[-3]}-{path.parts[-2]}")
def test_scripts_can_be_run_and_a_repository_s_own_goes_first(script: Path, place: buildplace.Place) -> None:
    assert os.access(script, os.X_OK)
    place.write({"build.sh": '#!/bin/sh\necho "from $1" > "$2"\n', "tensorflow/lite/x": "", "tools/loader/CMakeLists.txt": ""})
    ended = place.build(f"{script.parts[-3]}/{script.parts[-2]}")
    assert ended.returncode == 0, ended.stderr
    assert place.program.read_text() == f"from {place.source}\n"


NDK = {"build/cmake/android.toolchain.cmake": ""}
NEW = {"tensorflow/lite/tools/benchmark/CMakeLists.txt": ""}
OLD = {"tensorflow/contrib/lite/tools/benchmark/BUILD": ""}
GLOW = {"tools/loader/CMakeLists.txt": ""}


@pytest.mark.parametrize(
    ("script", "files", "ndk", "said"),
    [
        ("tflite/host", NEW, None, "built by cmake, and there is none on PATH"),
        ("tflite/linux", OLD, None, "built by bazel, and there is none on PATH"),
        ("tflite/host", {"tensorflow/lite/x": ""}, None, "no tensorflow/lite/tools/benchmark"),
        ("tflite/android", {}, None, "no tensorflow/: only TensorFlow itself"),
        ("tflite/android", NEW, None, "ANDROID_NDK is not set"),
        ("tflite/android", NEW, {}, "it must be the directory of an unpacked NDK"),
        ("tflite/android", NEW, NDK, "built by cmake, and there is none on PATH"),
        ("glow/host", {}, None, "no tools/loader/CMakeLists.txt"),
        ("glow/linux", GLOW, None, "built by cmake, and there is none on PATH"),
        ("glow/android", GLOW, None, "Glow's own programs are not built for Android"),
        ("oculus/host", {}, None, "no executable build.sh at the root"),
        ("oculus/android", {"build.sh": "not executable"}, None, "no executable build.sh at the root"),
    ],
)
def test_what_is_missing_is_named(
    script: str, files: Mapping[str, str], ndk: Mapping[str, str] | None, said: str, place: buildplace.Place
) -> None:
    place.write(files)
    variables = {}
    if ndk is not None:
        place.write(ndk, "ndk")
        variables["ANDROID_NDK"] = str(place.root / "ndk")
    ended = place.build(script, **variables)
    assert ended.returncode == 1
    assert said in ended.stderr.splitlines()[-1]
    assert not place.program.exists()


# ---------------------------------------------------------------- TensorFlow Lite


@pytest.mark.parametrize(("files", "tool", "text"), [(NEW, "cmake", CMAKE), (OLD, "bazel", BAZEL)])
def test_benchmark_model_takes_the_runner_s_options(
    files: Mapping[str, str], tool: str, text: str, place: buildplace.Place
) -> None:
    place.write(files)
    place.write({tool: text}, "bin")
    ended = place.build("tflite/host")
    assert ended.returncode == 0, ended.stderr
    arguments = ["--model", "a b.tflite", "--warmup=1", "--iterations", "3", "--threads=2", "--backend", "xnnpack", "--operators"]
    ran = place.run(*arguments, "--input-dims", "1,2", "--output-directory=/x", "--min_secs=1")
    assert ran.stdout == (
        "benchmark_model --graph=a b.tflite --warmup_runs=1 --num_runs=3 --use_xnnpack=true"
        " --enable_op_profiling=true --min_secs=1 --num_threads=2\n"
    )
    assert place.run("--graph=x", "--backend=").stdout == "benchmark_model --graph=x --num_threads=1\n"


def test_each_backend_has_benchmark_model_s_options(place: buildplace.Place) -> None:
    place.write(NEW)
    place.write({"cmake": CMAKE}, "bin")
    assert place.build("tflite/host").returncode == 0
    for backend, options in tflite.OPTIONS.items():
        assert place.run("--backend", backend).stdout == f"benchmark_model {options} --num_threads=1\n"
    refused = place.run("--backend=cuda")
    assert (refused.returncode, "asked for cuda" in refused.stderr) == (3, True)
    assert [place.run(word).returncode for word in ("--input-file=a.npy", "--model")] == [2, 2]


def test_android_s_is_built_by_the_ndk(place: buildplace.Place) -> None:
    place.write(NEW)
    place.write({"cmake": CMAKE}, "bin")
    place.write(NDK, "ndk")
    ended = place.build("tflite/android", ANDROID_NDK=str(place.root / "ndk"))
    assert ended.returncode == 0, ended.stderr
    assert f"-DCMAKE_TOOLCHAIN_FILE={place.root}/ndk/build/cmake/android.toolchain.cmake" in ended.stdout
    assert "-DANDROID_ABI=arm64-v8a -DANDROID_PLATFORM=android-26 -DTFLITE_ENABLE_GPU=ON" in ended.stdout
    assert place.program.read_text().startswith("#!/system/bin/sh\n")


def test_another_machine_s_interpreter_runs_the_runner(place: buildplace.Place) -> None:
    assert place.build("tflite/linux").returncode == 0
    assert "exec 'python3' -B" in place.program.read_text()
    assert sorted(path.name for path in (place.program.parent / "runners").iterdir()) == ["common.py", "tflite_runner.py"]


def test_a_repository_s_own_litert_is_taken(place: buildplace.Place) -> None:
    place.write({"src/ai_edge_litert/__init__.py": "", "src/ai_edge_litert/interpreter.py": "raise ImportError('this one')"})
    assert place.build("tflite/host").returncode == 0
    assert "this one" in place.run("--model", "x").stderr


@pytest.mark.skipif(not importlib.util.find_spec("ai_edge_litert"), reason="ai-edge-litert is not installed")
def test_the_program_measures_a_network(place: buildplace.Place) -> None:
    ended = place.build("tflite/host")
    assert ended.returncode == 0, ended.stderr
    network = place.root / "net.tflite"
    subprocess.run(
        [sys.executable, buildplace.FRAMEWORKS.parent / "generators/networks.py", "squeezenet", "tflite", network], check=True
    )
    moved = place.program.parent.rename(place.root / "elsewhere, it's moved")
    place.program = moved / "benchmark"
    ran = place.run("--model", str(network), "--iterations", "3", "--backend", "cpu")
    found = tflite.TfLite().parse(ran.stdout, model.Benchmark({}, {}))
    assert found.backend == "cpu"
    assert [len(series.values) for series in found.series if series.key == model.NETWORK] == [3]
    assert not list(moved.rglob("__pycache__"))


# ---------------------------------------------------------------- Glow


def test_glow_s_programs_lie_beside_each_other(place: buildplace.Place) -> None:
    place.write(GLOW)
    place.write({"cmake": CMAKE, "ninja": "#!/bin/sh\n"}, "bin")
    ended = place.build("glow/host", GLOW_PROGRAMS="AddBench image-classifier", GLOW_FLAGS="-DA=1 -DB=2")
    assert ended.returncode == 0, ended.stderr
    assert "-DGLOW_WITH_CPU=ON -DA=1 -DB=2" in ended.stdout
    assert sorted(path.name for path in place.program.parent.iterdir()) == ["AddBench", "benchmark", "image-classifier"]
    assert place.run("1").stdout == "AddBench 1\n"
