"""The specifications that come with aibenchd: read, their files verified, and run."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import caffe2env
import pytest

from aibenchd import model, plugins, settings
from aibenchd.frameworks import base, observer, placeholders
from aibenchd.measure import outputs
from aibenchd.specs import catalog, files, schema

ROOT = Path(__file__).parents[2]
SPECIFICATIONS = ROOT / "specifications"
RUNNERS = ROOT / "aibenchd/runners"

NETWORKS = ("squeezenet", "mobilenet_v2", "shufflenet", "resnet50", "transformer")
PROGRAMS = {  # of a framework: the module that it needs, and the runner
    "pytorch": ("torch", "torch_runner.py"),
    "onnxruntime": ("onnxruntime", "onnxruntime_runner.py"),
    "tflite": ("ai_edge_litert", "tflite_runner.py"),
    "caffe2": ("caffe2", "caffe2_runner.py"),
}

PROGRAM = f"""\
#!{sys.executable}
import argparse, json, pathlib, time
parser = argparse.ArgumentParser()
for name in ("--file", "--copies", "--warmup", "--iterations"):
    parser.add_argument(name, required=True)
options = parser.parse_args()
text = pathlib.Path(options.file).read_text() * int(options.copies)
for number in range(int(options.warmup) + int(options.iterations)):
    started = time.perf_counter()
    lines = text.count("\\n")
    took = (time.perf_counter() - started) * 1e6
    if number >= int(options.warmup):
        print("PyTorchObserver", json.dumps({{"type": "NET", "metric": "latency", "unit": "us", "value": took}}))
print("PyTorchObserver", json.dumps({{"type": "NET", "metric": "lines", "unit": "", "value": lines}}))
"""


def loaded(specification: Path) -> tuple[list[model.Benchmark], tuple[object, ...]]:
    """Its benchmarks, and what is odd in it."""
    selection = settings.BenchmarkSelection(specification=specification)
    found = catalog.load(settings.Settings(benchmarks=(selection,)))
    return list(found.benchmarks(selection)), found.warnings


def shipped(group: str = "shipped") -> list[model.Benchmark]:
    return loaded(SPECIFICATIONS / f"benchmarks/{group}.json")[0]


def run(benchmark: model.Benchmark, program: str, **paths: dict[str, str]) -> dict[str, model.Series]:
    framework = plugins.load("frameworks", benchmark.framework)()
    place = base.Place("/tmp/", "/tmp", "/tmp", {"program": program}, **paths)
    (command,) = framework.commands(benchmark, place)
    return {series.key: series for series in framework.parse(executed(command), benchmark).series}


def executed(command: str) -> str:
    """What it prints, with OpenMP's threads and the directory of modules that it is given."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "tests/runners"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


EVERY = sorted(path for path in (SPECIFICATIONS / "models").rglob("*") if path.suffix in (".json", ".yaml"))


@pytest.mark.parametrize("path", EVERY, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_nothing_is_odd_in_a_specification(path: Path) -> None:
    benchmarks, warnings = loaded(path)
    assert benchmarks
    assert warnings == ()


def test_every_specification_is_in_the_group_of_all() -> None:
    assert {benchmark.source for benchmark in shipped()} == set(map(str, EVERY))


@pytest.mark.parametrize("group", [path.stem for path in SPECIFICATIONS.glob("benchmarks/*.json")])
def test_groups_are_named_after_their_files(group: str) -> None:
    assert {benchmark.model["group"] for benchmark in shipped(group)} == {group}


def test_each_network_is_one_row_of_the_matrix_and_its_cells_have_one_golden_output() -> None:
    frameworks, golden = collections.defaultdict(set), collections.defaultdict(set)
    for benchmark in shipped():
        if benchmark.name in NETWORKS:
            frameworks[benchmark.name, benchmark.identifier].add(benchmark.framework)
            golden[benchmark.name].add(json.dumps(benchmark.test["output_files"], sort_keys=True))
    assert frameworks == {(name, f"{name}-batch-1"): set(PROGRAMS) for name in NETWORKS}
    assert {len(outputs) for outputs in golden.values()} == {1}


@pytest.fixture(scope="module")
def cache() -> Iterator[files.ModelCache]:
    """Half a gigabyte may be made, and so is not left behind."""
    chosen = settings.ModelCacheSettings(generators_directory=SPECIFICATIONS / "generators")
    with tempfile.TemporaryDirectory() as directory:
        yield files.ModelCache(chosen, Path(directory, "models"))


@pytest.mark.parametrize("framework", PROGRAMS)
@pytest.mark.parametrize("name", NETWORKS)
async def test_a_network_is_run_by_its_command_and_gives_its_golden_output(
    framework: str, name: str, cache: files.ModelCache, tmp_path: Path
) -> None:
    runner = runner_of(framework)
    (benchmark,) = (one for one in shipped() if (one.framework, one.name) == (framework, name))
    verified = await cache.ensure(benchmark)
    quick = dataclasses.replace(benchmark, test={**benchmark.test, "iter": 2, "warmup": 0})
    paths = {key: str(file.path) for key, file in verified.files.items()}
    place = base.Place(f"{tmp_path}/", str(tmp_path), str(tmp_path), {"program": runner}, paths)
    (command,) = placeholders.commands(quick, place)
    found = observer.parse(executed(command), quick, (observer.PYTORCH, observer.CAFFE2)).series
    assert [len(series.values) for series in found if series.key == "NET latency"] == [2]
    assert any(series.type.startswith("ID_0_") for series in found)

    described = schema.OutputFile.model_validate(benchmark.test["output_files"]["output"])
    given = outputs.read(tmp_path / described.filename, described, "the output")
    golden = outputs.read(verified.golden["output"].path, described, "the golden output")
    assert outputs.compare(given, golden).beyond(described.limits) == ""


def runner_of(framework: str) -> str:
    """How the runner of a framework is called; skips the test where the framework is not here."""
    module, program = PROGRAMS[framework]
    python = caffe2env.interpreter() if framework == "caffe2" else sys.executable
    if framework != "caffe2" and importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    return f"{python} {RUNNERS / program}"


async def test_the_generic_one_runs_with_any_program(tmp_path: Path) -> None:
    (benchmark,) = (one for one in shipped() if one.framework == "generic")
    verified = await files.ModelCache(settings.ModelCacheSettings(), tmp_path).ensure(benchmark)
    program = tmp_path / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    series = run(benchmark, str(program), files={key: str(file.path) for key, file in verified.files.items()})
    assert len(series["NET latency"].values) == benchmark.test["iter"]
    assert series["NET lines"].values == (4000.0,)


def test_the_network_runs_in_an_engine_that_has_it() -> None:
    benchmark = next(one for one in shipped() if one.name == "engine_squeezenet")
    benchmark = dataclasses.replace(benchmark, model={**benchmark.model, "module": "engine:net"})
    series = run(benchmark, runner_of("pytorch"))
    assert len(series["NET latency"].values) == benchmark.test["iter"]
    assert "ID_0_conv2d latency" in series
