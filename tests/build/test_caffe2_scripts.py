"""Caffe2's build scripts, run as the builder runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import caffe2env
import pytest
import trees

import aibenchd.runners
from aibenchd import model
from aibenchd.frameworks import caffe2

SCRIPTS = caffe2env.SCRIPT.parent
RUNNERS = Path(aibenchd.runners.__file__).parent
GENERATOR = SCRIPTS.parents[1] / "generators/networks.py"

# In place of the program that Caffe2's sources build: says what it was given.
BENCHMARK = "#!/bin/sh\nprintf '%s|' \"$@\"\n"


def _build(platform: str, source: Path, program: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    fixed = {"PATH": os.environ["PATH"], "LC_ALL": "C", "AIBENCHD_RUNNERS": str(RUNNERS), "AIBENCHD_PYTHON": sys.executable}
    command = [SCRIPTS / platform / "build.sh", source, program]
    return subprocess.run(command, env=fixed | environment, cwd=source, capture_output=True, text=True, check=False)


def _refused(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def test_scripts_are_executable() -> None:
    assert all(os.access(script, os.X_OK) for script in [caffe2env.SCRIPT, *SCRIPTS.glob("*/build.sh")])


@pytest.mark.parametrize("platform", ["host", "linux", "android"])
def test_a_repository_s_own_script_goes_first(platform: str, source: Path, program: Path) -> None:
    trees.write(source, {"build.sh": '#!/bin/sh\necho "from $1" > "$2"\n', "caffe2/core/net.cc": ""})
    ended = _build(platform, source, program)
    assert ended.returncode == 0, ended.stderr
    assert program.read_text() == f"from {source}\n"


# ---------------------------------------------------------------- a Python engine


def test_an_engine_is_run_by_the_interpreter_that_has_caffe2(source: Path, program: Path, tmp_path: Path) -> None:
    """It is a real network, and the program is run from where it was moved to."""
    python = caffe2env.interpreter()
    trees.write(source, {"engine.py": "", "src/helper/__init__.py": "", "tests/__init__.py": "", "setup.py": ""})
    ended = _build("host", source, program, AIBENCHD_CAFFE2_PYTHON=str(python))
    assert ended.returncode == 0, ended.stderr
    moved = tmp_path / "elsewhere, it's moved"
    program.parent.rename(moved)
    names = sorted(path.relative_to(moved).as_posix() for path in moved.rglob("*") if path.is_file())
    assert names == ["benchmark", "engine.py", "helper/__init__.py", "runners/caffe2_runner.py", "runners/common.py"]
    for kind in ("predict", "init"):
        subprocess.run([sys.executable, GENERATOR, "shufflenet", f"caffe2-{kind}", tmp_path / kind], check=True)
    files = ("--net", tmp_path / "predict", "--init_net", tmp_path / "init")
    options = ("--input", "data", "--input_dims", "1,3,224,224", "--iter", "2", "--backend=mkl")
    done = subprocess.run([moved / "benchmark", *files, *options], capture_output=True, text=True, check=True, timeout=300)
    assert caffe2.Caffe2().parse(done.stdout, model.Benchmark({}, {})).backend == "mkl"
    assert names == sorted(path.relative_to(moved).as_posix() for path in moved.rglob("*") if path.is_file())


def test_a_package_caffe2_of_the_repository_s_is_the_one_that_is_run(source: Path, program: Path, tmp_path: Path) -> None:
    odd = tmp_path / "it's $HOME"
    trees.write(tmp_path, {odd.name: f'#!/bin/sh\nexec {sys.executable} "$@"\n'})
    trees.write(source, {"caffe2/__init__.py": "raise ImportError('of the repository')\n"})
    assert _build("host", source, program, AIBENCHD_CAFFE2_PYTHON=str(odd)).returncode == 0
    done = subprocess.run([program, "--net", "a", "--input", "b"], capture_output=True, text=True, check=False)
    assert (done.returncode, "caffe2 cannot be imported: of the repository" in done.stderr) == (2, True)


def test_on_another_machine_its_own_interpreter_is_taken(source: Path, program: Path) -> None:
    trees.write(source, {"engine.py": ""})
    assert _build("linux", source, program, DEVICE_PYTHON="/opt/caffe2/bin/python").returncode == 0
    assert "exec '/opt/caffe2/bin/python' -B" in program.read_text()


def test_without_an_interpreter_it_says_how_to_get_one(source: Path, program: Path) -> None:
    trees.write(source, {"engine.py": ""})
    said = _refused(_build("host", source, program))
    assert "AIBENCHD_CAFFE2_PYTHON is not set" in said
    assert f"{SCRIPTS}/make_caffe2.sh DIRECTORY" in said


def test_it_says_when_there_is_nothing_to_take(source: Path, program: Path) -> None:
    trees.write(source, {"README": ""})
    assert "no Python package or module" in _refused(_build("host", source, program, AIBENCHD_CAFFE2_PYTHON="python3"))
    assert not program.exists()


# ---------------------------------------------------------------- Caffe2 itself

# What the scripts use of Caffe2's sources, in the same places: the target, the flags, and where the program comes to lie.
CMAKE = """
cmake_minimum_required(VERSION 3.10)
project(Caffe2 LANGUAGES C)
if(NOT (BUILD_BINARY AND BUILD_OBSERVERS AND USE_OBSERVERS AND BUILD_CAFFE2))
  message(FATAL_ERROR "without caffe2_benchmark")
endif()
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
add_library(torch_cpu SHARED library.c)
add_executable(caffe2_benchmark binaries/caffe2_benchmark.c)
target_link_libraries(caffe2_benchmark torch_cpu)
"""
SOURCES = {
    "CMakeLists.txt": CMAKE,
    "caffe2/core/net.cc": "",
    "binaries/caffe2_benchmark.cc": "",
    "library.c": '#include <stdio.h>\nvoid say(const char *word) { printf("%s|", word); }\n',
    "binaries/caffe2_benchmark.c": "void say(const char *);\nint main(int n, char **v) { while (*++v) say(*v); return 0; }\n",
}


@pytest.mark.skipif(not shutil.which("cmake"), reason="cmake is not installed")
def test_caffe2_s_sources_are_built_by_cmake_with_their_libraries(source: Path, program: Path, tmp_path: Path) -> None:
    trees.write(source, SOURCES)
    ended = _build("host", source, program)
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in program.parent.iterdir()} == {"benchmark", "caffe2_benchmark", "libtorch_cpu.so"}
    shutil.rmtree(source)
    done = subprocess.run([program, "--net", "two words", "--backend="], capture_output=True, text=True, check=True)
    assert done.stdout == "--net|two words|"


@pytest.mark.parametrize("platform", ["host", "android"])
def test_sources_without_the_program_are_refused(platform: str, source: Path, program: Path) -> None:
    trees.write(source, {"caffe2/core/net.cc": ""})
    assert "binaries/caffe2_benchmark.cc" in _refused(_build(platform, source, program))


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("--net n --backend= --iter 3", "--net|n|--iter|3|"),
        ("--backend cpu --net=n", "--net=n|"),
        ("--backend=default --threads 2", "--backend=default|--caffe2_omp_num_threads=2|"),
        ("--input_layout nchw --input data", "--input|data|"),
    ],
)
def test_the_options_of_the_runner_become_its_own(program: Path, given: str, passed: str) -> None:
    done = _run_wrapped(program, *given.split())
    assert (done.returncode, done.stdout) == (0, passed)


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ("--net n --backend=nnpack", 3, "asked for nnpack, but it says not by which library it computes; ask for cpu"),
        ("--backend mkl", 3, "asked for mkl"),
        ("--net n --backend", 2, "--backend: expected a value"),
    ],
)
def test_what_it_cannot_prove_is_refused(program: Path, given: str, status: int, said: str) -> None:
    done = _run_wrapped(program, *given.split())
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr


def _run_wrapped(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    wrapped = "#!/bin/sh\n" + (SCRIPTS / "caffe2_benchmark.sh").read_text()
    trees.write(program.parent, {program.name: wrapped, "caffe2_benchmark": BENCHMARK})
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


# ---------------------------------------------------------------- Android

# In place of PyTorch's own script, which takes an hour: says what it was given, and leaves a program where that one does.
ANDROID = """#!/bin/bash
echo "$ANDROID_ABI $BUILD_CAFFE2_MOBILE $*"
mkdir -p "$BUILD_ROOT/bin"
echo binary > "$BUILD_ROOT/bin/caffe2_benchmark"
"""


@pytest.fixture
def ndk(tmp_path: Path) -> Path:
    trees.write(tmp_path / "ndk", {"build/cmake/android.toolchain.cmake": ""})
    return tmp_path / "ndk"


@pytest.mark.skipif(not shutil.which("cmake"), reason="cmake is not installed")
def test_for_android_caffe2_s_own_script_builds_it(source: Path, program: Path, ndk: Path) -> None:
    trees.write(source, {"binaries/caffe2_benchmark.cc": "", "scripts/build_android.sh": ANDROID})
    ended = _build("android", source, program, ANDROID_NDK=str(ndk))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "arm64-v8a 1 -DBUILD_BINARY=ON -DBUILD_OBSERVERS=ON -DUSE_OBSERVERS=ON\n"
    assert (program.parent / "caffe2_benchmark").read_text() == "binary\n"
    assert program.read_text().startswith("#!/system/bin/sh\n")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "ANDROID_NDK is not set"),
        ({"ANDROID_NDK": "/nowhere"}, "ANDROID_NDK=/nowhere: has no build/cmake/android.toolchain.cmake"),
    ],
)
def test_for_android_the_ndk_must_be_there(source: Path, program: Path, environment: dict[str, str], said: str) -> None:
    trees.write(source, {"binaries/caffe2_benchmark.cc": "", "scripts/build_android.sh": ANDROID})
    assert said in _refused(_build("android", source, program, **environment))


# ---------------------------------------------------------------- the environment


def test_the_environment_is_not_made_twice(tmp_path: Path) -> None:
    trees.write(tmp_path, {"made/bin/python": "#!/bin/sh\n"})
    before = sorted(tmp_path.rglob("*"))
    subprocess.run([caffe2env.SCRIPT, tmp_path / "made"], check=True, timeout=60)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the script is for Linux")
def test_what_it_lacks_it_names_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHON": "/nowhere/python3.7"}
    command = [caffe2env.SCRIPT, tmp_path / "made"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == caffe2env.MISSING
    assert "there is no Python 3.7" in done.stderr
    assert not list(tmp_path.iterdir())
