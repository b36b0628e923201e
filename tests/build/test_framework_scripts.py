"""The build scripts that are delivered, run as the builder runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trees

import aibenchd.runners
from aibenchd import digests

FRAMEWORKS = Path(__file__).parents[2] / "specifications/frameworks"

# In place of the runner that comes with aibenchd, which needs torch: says what it was given.
RUNNER = """
import sys
import common
import engine
print(engine.NAME, *sys.argv[1:], sys.dont_write_bytecode, common.WHOSE)
"""

# In place of PyTorch's sources: as much of them as the scripts look at, and a program with a library of its own.
CMAKE = """
cmake_minimum_required(VERSION 3.13)
project(Torch C)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_library(torch_cpu SHARED torch/csrc/say.c)
add_executable(speed_benchmark_torch binaries/speed_benchmark_torch.c)
target_link_libraries(speed_benchmark_torch torch_cpu)
file(WRITE ${CMAKE_BINARY_DIR}/lib/asked "${BUILD_BINARY} ${USE_CUDA}")
"""
SAY = "#include <stdio.h>\nvoid say(const char *word) { puts(word); }\n"
SPEED_BENCHMARK = """
void say(const char *word);
int main(int count, char **words) {
    for (int number = 1; number < count; number++) say(words[number]);
    return 0;
}
"""
PYTORCH = {
    "CMakeLists.txt": CMAKE,
    "torch/csrc/say.c": SAY,
    "torch/__init__.py": "",
    "binaries/speed_benchmark_torch.cc": "",
    "binaries/speed_benchmark_torch.c": SPEED_BENCHMARK,
}
BUILD_ANDROID = """\
#!/bin/bash
mkdir -p "$BUILD_ROOT/bin"
printf '#!/bin/sh\\necho for %s %s by %s: "$@"\\n' "$ANDROID_ABI" "$*" "$ANDROID_NDK" > "$BUILD_ROOT/bin/speed_benchmark_torch"
chmod +x "$BUILD_ROOT/bin/speed_benchmark_torch"
"""


def _build(
    framework: str, source: Path, program: Path, platform: str = "host", runners: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    if runners is None:
        runners = source.parent / "runners"
        trees.write(runners, {"torch_runner.py": RUNNER, "common.py": "WHOSE = 'ours'\n"})
    fixed = {"LC_ALL": "C", "PATH": os.environ["PATH"], "AIBENCHD_RUNNERS": str(runners), "AIBENCHD_PYTHON": sys.executable}
    command = [FRAMEWORKS / framework / platform / "build.sh", source, program]
    return subprocess.run(command, env=fixed | variables, cwd=source, capture_output=True, text=True, check=False)


def _run(program: Path, *arguments: str) -> str:
    return subprocess.run([program, *arguments], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True).stdout


def _names(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir())


def test_scripts_are_executable() -> None:
    assert all(os.access(script, os.X_OK) for script in FRAMEWORKS.rglob("build.sh"))


def test_pytorch_takes_packages_and_modules_and_runs_them_from_anywhere(source: Path, program: Path, tmp_path: Path) -> None:
    files = {"engine/__init__.py": "NAME = 'squeeze'\n", "engine/data/labels.txt": "cat\n", "helper.py": "", "README": ""}
    left_out = {"setup.py": "", "conftest.py": "", "tests/__init__.py": "", "scripts/run.py": "", ".git": "gitdir: elsewhere\n"}
    trees.write(source, files | left_out)
    ended = _build("pytorch", source, program)
    assert ended.returncode == 0, ended.stderr
    ours = ["runners/common.py", "runners/torch_runner.py"]
    assert _names(program.parent) == ["benchmark", "engine/__init__.py", "engine/data/labels.txt", "helper.py", *ours]
    moved = tmp_path / "elsewhere, it's moved"
    program.parent.rename(moved)
    before = _names(moved)
    assert _run(moved / "benchmark", "--iter", "two words") == "squeeze --iter two words True ours\n"
    assert _names(moved) == before


def test_pytorch_takes_packages_below_src(source: Path, program: Path) -> None:
    trees.write(source, {"src/engine/__init__.py": "NAME = 'deep'\n"})
    assert _build("pytorch", source, program).returncode == 0
    assert _run(program) == "deep True ours\n"


def test_pytorch_leaves_compiled_files_out_so_that_equal_sources_are_equal_builds(source: Path, program: Path) -> None:
    trees.write(source, {"engine/__init__.py": "NAME = 'squeeze'\n"})
    _build("pytorch", source, program)
    before = digests.of_tree(program.parent)
    subprocess.run([sys.executable, "-m", "compileall", "-q", source / "engine"], check=True)
    os.utime(source / "engine/__init__.py", (0, 0))
    shutil.rmtree(program.parent)
    program.parent.mkdir()
    _build("pytorch", source, program)
    assert digests.of_tree(program.parent) == before


def test_pytorch_quotes_the_interpreter(source: Path, program: Path, tmp_path: Path) -> None:
    odd = tmp_path / "it's $HOME"
    trees.write(tmp_path, {odd.name: f'#!/bin/sh\nexec {sys.executable} "$@"\n'})
    trees.write(source, {"engine/__init__.py": "NAME = 'squeeze'\n"})
    assert _build("pytorch", source, program, AIBENCHD_PYTHON=str(odd)).returncode == 0
    assert _run(program) == "squeeze True ours\n"


def test_a_package_in_the_place_of_our_runners_is_named(source: Path, program: Path) -> None:
    trees.write(source, {"runners/__init__.py": ""})
    ended = _build("pytorch", source, program)
    assert (ended.returncode, program.exists()) == (1, False)
    assert "the repository has a package called runners" in ended.stderr


def test_pytorch_says_when_there_is_nothing_to_take(source: Path, program: Path) -> None:
    trees.write(source, {"README": "", "setup.py": ""})
    ended = _build("pytorch", source, program)
    assert ended.returncode == 1
    assert "no Python package or module" in ended.stderr
    assert not program.exists()


def test_a_python_engine_on_another_machine_runs_by_an_interpreter_of_that(source: Path, program: Path, tmp_path: Path) -> None:
    trees.write(source, {"engine/__init__.py": "NAME = 'far'\n"})
    assert _build("pytorch", source, program, platform="linux").returncode == 0
    assert "exec 'python3' -B" in program.read_text()
    program.parent.rename(tmp_path / "before")
    program.parent.mkdir()
    assert _build("pytorch", source, program, platform="linux", DEVICE_PYTHON=sys.executable).returncode == 0
    assert _run(program) == "far True ours\n"


@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("cc")), reason="cmake or cc is not installed")
@pytest.mark.parametrize("platform", ["host", "linux"])
def test_pytorch_itself_is_built_with_the_libraries_that_its_program_needs(
    source: Path, program: Path, tmp_path: Path, platform: str
) -> None:
    trees.write(source, PYTORCH)
    ended = _build("pytorch", source, program, platform=platform)
    assert ended.returncode == 0, ended.stderr
    assert _names(program.parent) == ["benchmark", "libtorch_cpu.so", "speed_benchmark_torch"]
    assert (source / "build/lib/asked").read_text() == "ON OFF"
    shutil.rmtree(source)
    program.parent.rename(tmp_path / "moved")
    assert (
        _run(tmp_path / "moved/benchmark", "--model", "net.pt") == "--model\nnet.pt\n--pthreadpool_size=1\n--report_pep\ntrue\n"
    )


def test_pytorch_without_its_benchmark_program_says_so(source: Path, program: Path) -> None:
    trees.write(source, {name: text for name, text in PYTORCH.items() if not name.startswith("binaries")})
    ended = _build("pytorch", source, program)
    assert ended.returncode == 1
    assert "without binaries/speed_benchmark_torch.cc" in ended.stderr


def _speed_benchmark(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    body = (FRAMEWORKS / "pytorch/speed_benchmark.sh").read_text()
    trees.write(directory, {"program": f"#!/bin/sh\n{body}", "speed_benchmark_torch": '#!/bin/sh\nprintf "%s|" "$@"\n'})
    return subprocess.run([directory / "program", *arguments], capture_output=True, text=True, check=False)


def test_speed_benchmark_takes_the_options_of_the_runner(tmp_path: Path) -> None:
    """Those that are composed where a test gives no command, in one word or two, and its own too."""
    ended = _speed_benchmark(
        tmp_path,
        *("--model", "a net.pt", "--input-dims", "1,3;1,10", "--input-type=float;int64", "--warmup", "3", "--iterations", "20"),
        *("--threads=2", "--backend=", "--operators", "--output-directory", "/data", "--vulkan", "true"),
    )
    expected = "--model|a net.pt|--input_dims|1,3;1,10|--input_type=float;int64|--warmup|3|--iter|20|"
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == expected + "--vulkan|true|--pthreadpool_size=2|--report_pep|true|"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "expected --model FILE"),
        (("--model", "x", "--backend", "mkl"), 3, "asked for mkl, but"),
        (("--model", "x", "--backend=cuda"), 3, "asked for cuda, but"),
        (("--model", "x", "--backend=cpu", "--vulkan", "true"), 3, "asked for cpu, and for Vulkan"),
        (("--vulkan=true", "--model", "x", "--backend=cpu"), 3, "asked for cpu, and for Vulkan"),
        (("--model", "x", "--backend"), 2, "--backend: expected a value"),
        (("--model", "x", "--input-file", "a.npy"), 2, "has no --input-file"),
        (("--module=engine:net",), 2, "has no --module"),
    ],
)
def test_speed_benchmark_refuses_what_it_cannot_do(tmp_path: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    ended = _speed_benchmark(tmp_path, *arguments)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert f"speed_benchmark_torch: {said}" in ended.stderr


def test_speed_benchmark_states_the_processor_where_it_is_asked_for(tmp_path: Path) -> None:
    ended = _speed_benchmark(tmp_path, "--model", "x", "--backend=cpu")
    stated, options = ended.stdout.splitlines()
    assert json.loads(stated.partition(" ")[2]) == {"type": "NET", "metric": "backend", "unit": "", "info_string": "cpu"}
    assert options == "--model|x|--pthreadpool_size=1|--report_pep|true|"


@pytest.fixture
def ndk(tmp_path: Path) -> Path:
    trees.write(tmp_path / "ndk", {"build/cmake/android.toolchain.cmake": ""})
    return tmp_path / "ndk"


def _python_of_the_build(directory: Path, status: int) -> str:
    trees.write(directory, {"python": f"#!/bin/sh\nexit {status}\n"})
    return str(directory / "python")


@pytest.mark.skipif(not shutil.which("cmake"), reason="cmake is not installed")
def test_pytorch_is_built_for_android(source: Path, program: Path, tmp_path: Path, ndk: Path) -> None:
    """By PyTorch's own script, which this one calls as it must be called, and whose program it delivers."""
    trees.write(source, PYTORCH | {"scripts/build_android.sh": BUILD_ANDROID})
    python = _python_of_the_build(tmp_path, 0)
    ended = _build("pytorch", source, program, platform="android", ANDROID_NDK=str(ndk), PYTHON=python)
    assert ended.returncode == 0, ended.stderr
    assert _names(program.parent) == ["benchmark", "speed_benchmark_torch"]
    assert program.read_text().startswith("#!/system/bin/sh\n")
    said = subprocess.run(["sh", program, "--model", "x"], capture_output=True, text=True, check=True).stdout
    options = "-DBUILD_BINARY=ON -DBUILD_LITE_INTERPRETER=OFF"
    assert said == f"for arm64-v8a {options} by {ndk}: --model x --pthreadpool_size=1 --report_pep true\n"


def test_what_a_build_for_android_lacks_is_named(source: Path, program: Path, tmp_path: Path, ndk: Path) -> None:
    def missing(**variables: str) -> str:
        ended = _build("pytorch", source, program, platform="android", **variables)
        assert ended.returncode == 1
        assert not program.exists()
        return ended.stderr

    assert "only PyTorch itself is built for Android" in missing()
    trees.write(source, PYTORCH)
    assert "no scripts/build_android.sh" in missing()
    trees.write(source, {"scripts/build_android.sh": BUILD_ANDROID})
    assert "ANDROID_NDK is not set; set it in builds.env" in missing()
    assert "has no build/cmake/android.toolchain.cmake" in missing(ANDROID_NDK=str(tmp_path))
    if shutil.which("cmake"):
        python = _python_of_the_build(tmp_path, 1)
        assert f"PYTHON={python}: lacks what PyTorch's build needs" in missing(ANDROID_NDK=str(ndk), PYTHON=python)


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is not installed")
def test_pytorch_measures_a_network_with_the_runner_that_is_delivered(source: Path, program: Path) -> None:
    trees.write(source, {"engine.py": "import torch\n\n\ndef network():\n    return torch.nn.Linear(4, 2)\n"})
    assert _build("pytorch", source, program, runners=Path(aibenchd.runners.__file__).parent).returncode == 0
    output = _run(program, "--module", "engine:network", "--input-dims", "1,4", "--iterations", "3")
    observed = [json.loads(line.partition(" ")[2]) for line in output.splitlines() if line.startswith("PyTorchObserver")]
    (latency,) = [record for record in observed if (record["type"], record["metric"]) == ("NET", "latency")]
    assert len(latency["values"]) == 3


@pytest.mark.parametrize(
    ("framework", "platform"),
    [("pytorch", "host"), ("pytorch", "linux"), ("pytorch", "android"), ("generic", "host"), ("generic", "linux")],
)
def test_a_repositorys_own_script_goes_first(framework: str, platform: str, source: Path, program: Path) -> None:
    trees.write(source, {"build.sh": '#!/bin/sh\necho "from $1" > "$2"\n', "engine.py": "", "Makefile": "benchmark:\n\tfalse\n"})
    ended = _build(framework, source, program, platform=platform)
    assert ended.returncode == 0, ended.stderr
    assert "the repository's own build.sh" in ended.stdout
    assert program.read_text() == f"from {source}\n"


@pytest.mark.skipif(not (shutil.which("make") and shutil.which("cc")), reason="make or cc is not installed")
@pytest.mark.parametrize("platform", ["host", "linux"])
def test_generic_makes_the_program_benchmark(platform: str, source: Path, program: Path) -> None:
    trees.write(source, {"Makefile": "benchmark: main.c\n\tcc -o $@ $<\n", "main.c": "int main(void) { return 0; }\n"})
    ended = _build("generic", source, program, platform=platform)
    assert ended.returncode == 0, ended.stderr
    assert _run(program) == ""


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_generic_fails_where_make_does(source: Path, program: Path) -> None:
    trees.write(source, {"Makefile": "benchmark:\n\techo broken >&2; exit 3\n"})
    ended = _build("generic", source, program)
    assert ended.returncode != 0
    assert "broken" in ended.stderr
    assert not program.exists()
