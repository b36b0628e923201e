"""The specifications that come with aibenchd: read, their files verified, and run."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aibenchd import model, plugins, settings
from aibenchd.frameworks import base
from aibenchd.specs import catalog, files

ROOT = Path(__file__).parents[2]
SPECIFICATIONS = ROOT / "specifications"

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


def shipped() -> list[model.Benchmark]:
    selection = settings.BenchmarkSelection(specification=SPECIFICATIONS / "benchmarks/shipped.json")
    found = catalog.load(settings.Settings(benchmarks=(selection,)))
    assert found.warnings == ()
    return list(found.benchmarks(selection))


def run(benchmark: model.Benchmark, program: str, **paths: dict[str, str]) -> dict[str, model.Series]:
    framework = plugins.load("frameworks", benchmark.framework)()
    place = base.Place("/tmp/", "/tmp", "/tmp", {"program": program}, **paths)
    (command,) = framework.commands(benchmark, place)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "tests/runners"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, timeout=300, check=True)
    return {series.key: series for series in framework.parse(done.stdout, benchmark).series}


def test_every_specification_is_read_and_is_in_the_group_of_all() -> None:
    every = {str(path) for path in (SPECIFICATIONS / "models").rglob("*") if path.suffix in (".json", ".yaml")}
    assert {benchmark.source for benchmark in shipped()} == every
    assert {benchmark.model["group"] for benchmark in shipped()} == {"shipped"}


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
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed: pip install aibenchd[torch]")
    benchmark = next(one for one in shipped() if one.identifier == "squeezenet-batch-1")
    benchmark = dataclasses.replace(benchmark, model={**benchmark.model, "module": "engine:net"})
    series = run(benchmark, f"{sys.executable} {ROOT}/aibenchd/runners/torch_runner.py")
    assert len(series["NET latency"].values) == benchmark.test["iter"]
    assert "ID_0_conv2d latency" in series
