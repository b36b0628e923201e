"""Qualcomm's QNN runtime behind a command line, where somebody has it: its licence bars handing it on."""

import os
import subprocess
from pathlib import Path

import numpy as np
import onnxfile
import pytest

from aibenchd import digests, model
from aibenchd.devices import base, vendor
from aibenchd.frameworks import generic

TOOL = Path(__file__).parents[1] / "data" / "qnn" / "qnn_tool.py"
METRICS = [
    {
        "pattern": r"^\d+,BACKEND,(?P<value>\d+),CYCLES,.*,Accelerator \(execute\) time \(cycles\)$",
        "type": "NET",
        "metric": "latency",
        "unit": "cycles",
    },
    {"pattern": r"^\d+,NODE,(?P<value>\d+),CYCLES,.*,(?P<type>\S+) \(cycles\)$", "metric": "latency", "unit": "cycles"},
    {"pattern": r"^backend (?P<text>\w+)$", "type": "NET", "metric": "backend"},
]


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter that has the runtime."""
    path = os.environ.get("AIBENCHD_QNN_PYTHON", "")
    if not path:
        pytest.skip("AIBENCHD_QNN_PYTHON names no Python that has onnxruntime-qnn (pip install onnxruntime-qnn==2.7.0)")
    if subprocess.run([path, "-c", "import onnxruntime_qnn"], check=False).returncode:
        pytest.skip(f"{path} has no onnxruntime-qnn (pip install onnxruntime-qnn==2.7.0)")
    return path


async def test_a_network_runs_on_the_htp_and_its_nodes_are_seen(tmp_path: Path, python: str) -> None:
    rng = np.random.default_rng(7)
    weights, given = (rng.standard_normal(shape).astype(np.float32) / 8 for shape in ((8, 8, 3, 3), (1, 8, 16, 16)))
    network = onnxfile.write(
        tmp_path / "net.onnx",
        [onnxfile.Node("Conv", ["x", "w"], ["c"], {"kernel_shape": [3, 3]}), onnxfile.Node("Relu", ["c"], ["y"])],
        {"x": ("float32", given.shape)},
        ["y"],
        {"w": weights},
    )
    np.save(tmp_path / "input.npy", given)
    chosen = {
        "name": "htp",
        "kind": "vendor",
        "platform": "qnn",
        "backends": ["dsp"],
        "run": [python, "{program}", "{arguments}"],
        "exit_codes": {"harness": [3]},
        "metrics": METRICS,
        "minimum_free": "1MiB",
    }
    device = vendor.Vendor(vendor.Settings.model_validate(chosen), tmp_path / "htp", base.RunSettings())
    async with device.session() as session:
        files = [
            await session.push(base.Push(path, digests.of_file(path), path.name))
            for path in (TOOL, network, tmp_path / "input.npy")
        ]
        work = await session.directory("work")
        completed = await session.run(base.Command((*map(str, files), str(work / "output.npy")), work))
        assert not completed.failure, completed.failure
        await session.pull(work / "output.npy", tmp_path / "output.npy")

    windows = np.lib.stride_tricks.sliding_window_view(given[0], (3, 3), axis=(1, 2))
    expected = np.maximum(np.einsum("oirc,iyxrc->oyx", weights, windows), 0)
    np.testing.assert_allclose(np.load(tmp_path / "output.npy")[0], expected, atol=5e-3)  # it computes in 16 bits
    said = generic.Generic().parse(completed.stdout, model.Benchmark({}, {}))
    assert said.backend == "dsp"
    series = {one.key: one.values for one in said.series}
    assert series["NET latency"][0] > 0
    assert any(key.startswith("Relu") for key in series)
