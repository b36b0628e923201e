"""The build scripts that are delivered, run as the builder runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import aibenchd.runners
from aibenchd import digests

FRAMEWORKS = Path(__file__).parents[2] / "specifications/frameworks"

# In place of the runner that comes with aibenchd, which needs torch: says what it was given.
RUNNER = """
import sys
import engine
print(engine.NAME, *sys.argv[1:], sys.dont_write_bytecode)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "a source"
    directory.mkdir()
    return directory


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "an output").mkdir()
    return tmp_path / "an output/benchmark"


def _write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)


def _build(
    framework: str, source: Path, program: Path, python: str = sys.executable, runners: Path | None = None
) -> subprocess.CompletedProcess[str]:
    if runners is None:
        runners = source.parent / "runners"
        _write(runners, {"torch_runner.py": RUNNER})
    script = FRAMEWORKS / framework / "host/build.sh"
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "AIBENCHD_RUNNERS": str(runners), "AIBENCHD_PYTHON": python}
    return subprocess.run([script, source, program], env=environment, cwd=source, capture_output=True, text=True, check=False)


def _run(program: Path, *arguments: str) -> str:
    return subprocess.run([program, *arguments], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True).stdout


def _names(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir())


def test_scripts_are_executable() -> None:
    assert all(os.access(script, os.X_OK) for script in FRAMEWORKS.glob("*/host/build.sh"))


def test_pytorch_takes_packages_and_modules_and_runs_them_from_anywhere(source: Path, program: Path, tmp_path: Path) -> None:
    files = {"engine/__init__.py": "NAME = 'squeeze'\n", "engine/data/labels.txt": "cat\n", "helper.py": "", "README": ""}
    left_out = {"setup.py": "", "conftest.py": "", "tests/__init__.py": "", "scripts/run.py": "", ".git": "gitdir: elsewhere\n"}
    _write(source, files | left_out)
    ended = _build("pytorch", source, program)
    assert ended.returncode == 0, ended.stderr
    assert _names(program.parent) == ["benchmark", "engine/__init__.py", "engine/data/labels.txt", "helper.py", "torch_runner.py"]
    moved = tmp_path / "elsewhere, it's moved"
    program.parent.rename(moved)
    before = _names(moved)
    assert _run(moved / "benchmark", "--iter", "two words") == "squeeze --iter two words True\n"
    assert _names(moved) == before


def test_pytorch_takes_packages_below_src(source: Path, program: Path) -> None:
    _write(source, {"src/engine/__init__.py": "NAME = 'deep'\n"})
    assert _build("pytorch", source, program).returncode == 0
    assert _run(program) == "deep True\n"


def test_pytorch_leaves_compiled_files_out_so_that_equal_sources_are_equal_builds(source: Path, program: Path) -> None:
    _write(source, {"engine/__init__.py": "NAME = 'squeeze'\n"})
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
    _write(tmp_path, {odd.name: f'#!/bin/sh\nexec {sys.executable} "$@"\n'})
    _write(source, {"engine/__init__.py": "NAME = 'squeeze'\n"})
    assert _build("pytorch", source, program, python=str(odd)).returncode == 0
    assert _run(program) == "squeeze True\n"


def test_pytorch_says_when_there_is_nothing_to_take(source: Path, program: Path) -> None:
    _write(source, {"README": "", "setup.py": ""})
    ended = _build("pytorch", source, program)
    assert ended.returncode == 1
    assert "no Python package or module" in ended.stderr
    assert not program.exists()


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is not installed")
def test_pytorch_measures_a_network_with_the_runner_that_is_delivered(source: Path, program: Path) -> None:
    _write(source, {"engine.py": "import torch\n\n\ndef network():\n    return torch.nn.Linear(4, 2)\n"})
    assert _build("pytorch", source, program, runners=Path(aibenchd.runners.__file__).parent).returncode == 0
    output = _run(program, "--module", "engine:network", "--input-dims", "1,4", "--iterations", "3")
    observed = [json.loads(line.partition(" ")[2]) for line in output.splitlines() if line.startswith("PyTorchObserver")]
    (latency,) = [record for record in observed if (record["type"], record["metric"]) == ("NET", "latency")]
    assert len(latency["values"]) == 3


@pytest.mark.parametrize("framework", ["pytorch", "generic"])
def test_a_repositorys_own_script_goes_first(framework: str, source: Path, program: Path) -> None:
    _write(source, {"build.sh": '#!/bin/sh\necho "from $1" > "$2"\n', "engine.py": "", "Makefile": "benchmark:\n\tfalse\n"})
    ended = _build(framework, source, program)
    assert ended.returncode == 0, ended.stderr
    assert "the repository's own build.sh" in ended.stdout
    assert program.read_text() == f"from {source}\n"


@pytest.mark.skipif(not (shutil.which("make") and shutil.which("cc")), reason="make or cc is not installed")
def test_generic_makes_the_program_benchmark(source: Path, program: Path) -> None:
    _write(source, {"Makefile": "benchmark: main.c\n\tcc -o $@ $<\n", "main.c": "int main(void) { return 0; }\n"})
    ended = _build("generic", source, program)
    assert ended.returncode == 0, ended.stderr
    assert _run(program) == ""


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_generic_fails_where_make_does(source: Path, program: Path) -> None:
    _write(source, {"Makefile": "benchmark:\n\techo broken >&2; exit 3\n"})
    ended = _build("generic", source, program)
    assert ended.returncode != 0
    assert "broken" in ended.stderr
    assert not program.exists()
