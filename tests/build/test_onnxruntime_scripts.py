"""ONNX Runtime's build scripts, run as the builder runs them. What takes hours to build has a stand-in."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxfile
import pytest
import trees

import aibenchd.runners
from aibenchd import digests, model
from aibenchd.frameworks import onnxruntime

SCRIPTS = Path(__file__).parents[2] / "specifications/frameworks/onnxruntime"
RUNNERS = Path(aibenchd.runners.__file__).parent
FILES = ("common", "onnx_file", "onnx_model", "onnxruntime_runner", "opengl_operators", "opengl_runner")

# In place of the runners: says which it is, what it was given, and whose modules it finds.
STUB = """
import sys
import engine
print(__file__.rpartition("/")[2], *sys.argv[1:], engine.NAME, sys.dont_write_bytecode)
"""

# In place of ONNX Runtime's own build: makes a wheel, and a program for a phone.
BUILD = """
import os, sys, zipfile
directory = os.path.join(sys.argv[sys.argv.index("--build_dir") + 1], sys.argv[sys.argv.index("--config") + 1])
os.makedirs(directory + "/dist")
with zipfile.ZipFile(directory + "/dist/onnxruntime-9.9-py3-none-any.whl", "w") as wheel:
    wheel.writestr("engine.py", f"NAME = {' '.join(sys.argv[1:])!r}")
with open(directory + "/onnxruntime_perf_test", "w") as file:
    file.write(PROGRAM)
os.chmod(directory + "/onnxruntime_perf_test", 0o755)
"""

# In place of onnxruntime_perf_test: prints its kind of text; with -p it writes a profile instead.
PERF_TEST = r"""#!/bin/sh
echo "asked: $*" >&2
case "$*" in *broken.onnx) exit 1 ;; esac
profile=
previous=
for word in "$@"; do
    [ "$previous" != -p ] || profile=$word
    previous=$word
done
node='{"cat" : "Node", "args" : {"op_name" : "Conv", "provider" : "CPUExecutionProvider"}}'
if [ -n "$profile" ]; then echo "[$node,$node]" > "${profile}_2026.json"; fi
echo "Average inference time cost: 2.5 ms"
"""


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    (tmp_path / "runners").mkdir()
    for name in FILES:
        (tmp_path / f"runners/{name}.py").write_text(STUB)
    return tmp_path / "runners"


def build(platform: str, source: Path, program: Path, runners: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPTS / platform / "build.sh", source, program],
        env={"PATH": os.environ["PATH"], "AIBENCHD_RUNNERS": str(runners), "AIBENCHD_PYTHON": sys.executable, **variables},
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )


def run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)


def test_an_engine_is_taken_and_runs_from_anywhere(source: Path, program: Path, stubs: Path, tmp_path: Path) -> None:
    left_out = {"setup.py": "", "tests/__init__.py": "", "scripts/run.py": ""}
    trees.write(source, {"engine/__init__.py": "NAME = 'squeeze'\n", "engine/labels.txt": "cat\n", "helper.py": "", **left_out})
    ended = build("host", source, program, stubs)
    assert ended.returncode == 0, ended.stderr
    found = sorted(path.relative_to(program.parent).as_posix() for path in program.parent.rglob("*") if path.is_file())
    runners = [f"runners/{name}.py" for name in FILES]
    assert found == sorted(["benchmark", "engine/__init__.py", "engine/labels.txt", "helper.py", *runners])
    moved = tmp_path / "elsewhere, it's moved"
    program.parent.rename(moved)
    before = digests.of_tree(moved)
    assert run(moved / "benchmark", "--iter", "two words").stdout == "onnxruntime_runner.py --iter two words squeeze True\n"
    assert digests.of_tree(moved) == before


@pytest.mark.parametrize("arguments", [("--backend=opengl",), ("--model", "x", "--backend", "opengl", "--operators")])
def test_opengl_has_a_runner_of_its_own(arguments: tuple[str, ...], source: Path, program: Path, stubs: Path) -> None:
    trees.write(source, {"src/engine.py": "NAME = 'squeeze'\n"})
    assert build("host", source, program, stubs).returncode == 0
    assert run(program, *arguments).stdout == f"opengl_runner.py {' '.join(arguments)} squeeze True\n"
    assert run(program, "--backend=", "--model", "opengl").stdout.startswith("onnxruntime_runner.py")


def test_equal_sources_are_equal_builds(source: Path, program: Path, stubs: Path, tmp_path: Path) -> None:
    trees.write(source, {"engine/__init__.py": "NAME = 'squeeze'\n"})
    build("host", source, program, stubs)
    subprocess.run([sys.executable, "-m", "compileall", "-q", source / "engine"], check=True)
    (tmp_path / "again").mkdir()
    build("host", source, tmp_path / "again/benchmark", stubs)
    assert digests.of_tree(program.parent) == digests.of_tree(tmp_path / "again")


def test_there_must_be_something_to_take(source: Path, program: Path, stubs: Path) -> None:
    trees.write(source, {"README": ""})
    ended = build("host", source, program, stubs)
    assert (ended.returncode, "no Python package or module" in ended.stderr) == (1, True)
    assert not program.exists()


@pytest.mark.parametrize("platform", ["host", "linux", "android"])
def test_a_repository_s_own_script_goes_first(platform: str, source: Path, program: Path, stubs: Path) -> None:
    trees.write(source, {"build.sh": '#!/bin/sh\necho "from $1" > "$2"\n', "engine.py": ""})
    ended = build(platform, source, program, stubs)
    assert (ended.returncode, program.read_text()) == (0, f"from {source}\n")


def test_onnx_runtime_itself_is_built_and_unpacked(source: Path, program: Path, stubs: Path) -> None:
    """Its own build.sh means something else, and is not run."""
    trees.write(source, {"tools/ci_build/build.py": BUILD.replace("PROGRAM", "''"), "build.sh": "#!/bin/sh\nfalse\n"})
    ended = build("host", source, program, stubs, ONNXRUNTIME_FLAGS="--use_xnnpack --use_dnnl")
    assert ended.returncode == 0, ended.stderr
    said = run(program, "--model", "x").stdout
    assert said.startswith("onnxruntime_runner.py --model x --build_dir ")
    assert "--build_wheel --use_xnnpack --use_dnnl True" in said


def test_another_machine_has_an_interpreter_of_its_own(source: Path, program: Path, stubs: Path, tmp_path: Path) -> None:
    trees.write(source, {"engine.py": "NAME = 'squeeze'\n"})
    odd = tmp_path / "it's $HOME"
    trees.write(tmp_path, {odd.name: f'#!/bin/sh\necho odd\nexec {sys.executable} "$@"\n'})
    assert build("linux", source, program, stubs, DEVICE_PYTHON=str(odd)).returncode == 0
    assert run(program).stdout == "odd\nonnxruntime_runner.py squeeze True\n"
    (program.parent / "runners").rename(tmp_path / "old")
    assert build("linux", source, program, stubs).returncode == 0
    assert "exec 'python3' -B" in program.read_text()


@pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="onnxruntime is not installed")
def test_a_network_is_measured_by_the_runners_that_are_delivered(source: Path, program: Path, tmp_path: Path) -> None:
    trees.write(source, {"engine.py": "\n"})
    assert build("host", source, program, RUNNERS).returncode == 0
    path = onnxfile.write(tmp_path / "net.onnx", [onnxfile.Node("Relu", ["x"], ["y"])], {"x": ("float32", [2, 3])}, ["y"])
    for backend in ("cpu", "opengl"):
        ended = run(program, "--model", path, "--backend", backend, "--iterations", "3", "--output-directory", tmp_path)
        if backend == "opengl" and ended.returncode == 3:
            pytest.skip(ended.stderr)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert onnxruntime.OnnxRuntime().parse(ended.stdout, model.Benchmark({}, {})).backend == backend
        assert np.load(tmp_path / "y.npy").min() == 0


# ---------------------------------------------------------------- Android


@pytest.fixture
def phone_program(source: Path, program: Path, stubs: Path, tmp_path: Path) -> Path:
    """What is built for a phone, made to run here."""
    (tmp_path / "android").mkdir()
    trees.write(source, {"tools/ci_build/build.py": BUILD.replace("PROGRAM", repr(PERF_TEST))})
    places = dict.fromkeys(("ANDROID_HOME", "ANDROID_NDK"), str(tmp_path / "android"))
    ended = build("android", source, program, stubs, **places)
    assert ended.returncode == 0, ended.stderr
    text = program.read_text()
    assert text.startswith("#!/system/bin/sh\n")
    program.write_text(text.replace("#!/system/bin/sh", "#!/bin/sh"))
    return program


def test_a_phone_s_program_takes_the_runner_s_options(phone_program: Path) -> None:
    composed = "--model net.onnx --input-dims 1,3 --input-type float --warmup 1 --iterations 7 --backend=cpu --operators"
    ended = run(phone_program, *composed.split(), "--threads=2", "--output-directory", "/dev/work/")
    assert ended.returncode == 0, ended.stderr
    assert "asked: -I -s -m times -e cpu -x 2 -r 7 net.onnx\n" in ended.stderr
    found = onnxruntime.OnnxRuntime().parse(ended.stdout, model.Benchmark({}, {}))
    assert found.backend == "cpu"
    series = {one.key: one for one in found.series}
    assert series["NET latency"].values == (2500,)
    assert series["NET evidence"].text == "CPUExecutionProvider x 2"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--model", "net.onnx", "--backend=xnnpack"), 3, "asked for xnnpack, and XnnpackExecutionProvider executed no node"),
        (("--model", "net.onnx", "--backend", "cuda"), 3, "asked for cuda; here are cpu, xnnpack and dsp"),
        (("--model", "broken.onnx"), 1, "failed with broken.onnx"),
        (("--module", "engine:net"), 2, "has no --module; it takes --model"),
        (("--iterations", "3"), 2, "expected --model FILE"),
        (("--model",), 2, "expected --model FILE"),
        (("--model", "net.onnx", "--fast"), 2, "does not know --fast"),
    ],
)
def test_what_a_phone_s_program_cannot_do_is_refused(
    phone_program: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    ended = run(phone_program, *arguments)
    assert ended.returncode == status
    assert said in ended.stderr


def test_what_android_s_build_lacks_is_named(source: Path, program: Path, stubs: Path, tmp_path: Path) -> None:
    ended = build("android", source, program, stubs)
    assert (ended.returncode, "only ONNX Runtime itself is built for Android" in ended.stderr) == (1, True)
    trees.write(source, {"tools/ci_build/build.py": "raise SystemExit(1)"})
    ended = build("android", source, program, stubs)
    assert (ended.returncode, "ANDROID_HOME=: set it in builds.env" in ended.stderr) == (1, True)
    ended = build("android", source, program, stubs, ANDROID_HOME=str(tmp_path), ANDROID_NDK="/nowhere")
    assert (ended.returncode, "ANDROID_NDK=/nowhere: set it in builds.env" in ended.stderr) == (1, True)
