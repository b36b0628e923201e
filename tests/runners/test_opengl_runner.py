"""The runner of OpenGL: each operator beside ONNX Runtime's, and whole networks as on a device, through EGL without a display."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxfile
import pytest
from onnxfile import Node

import aibenchd.runners
from aibenchd import model
from aibenchd.frameworks import base, onnxruntime
from aibenchd.runners import common

HERE = Path(__file__).parent
RUNNERS = Path(aibenchd.runners.__file__).parent
GENERATORS = HERE.parents[1] / "specifications/generators"
QUICK = ("--warmup", "0", "--iterations", "2")
NEEDED = "pip install aibenchd[opengl], and Debian's libegl1 and libgl1-mesa-dri"

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when ONNX Runtime is loaded


@pytest.fixture(scope="module")
def runner() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RUNNERS))
        import opengl_runner

        yield opengl_runner


@pytest.fixture(scope="module")
def gl(runner: Any) -> Any:
    try:
        return runner.context()
    except runner.common.OtherBackendError as error:
        pytest.skip(f"{error}; it needs {NEEDED}")


def ended(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RUNNERS / "opengl_runner.py", *arguments, *QUICK]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def run(*arguments: str | Path) -> base.Output:
    """Measured, and read as the daemon reads it."""
    done = ended(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return onnxruntime.OnnxRuntime().parse(done.stdout, model.Benchmark({}, {}))


def refused(path: Path, *arguments: str) -> tuple[int, str]:
    done = ended("--model", path, *arguments)
    assert done.stderr.startswith("opengl_runner: ")
    assert done.stderr.count("\n") == 1
    return done.returncode, done.stderr


# ---------------------------------------------------------------- whole networks


@pytest.mark.usefixtures("gl")
@pytest.mark.parametrize("network", ["squeezenet", "shufflenet", "transformer"])
def test_a_shipped_network_gives_its_golden_output(network: str, tmp_path: Path) -> None:
    path = tmp_path / f"{network}.onnx"
    subprocess.run([sys.executable, GENERATORS / "networks.py", network, "onnx", path], check=True)
    found = run("--model", path, "--backend", "opengl", "--operators", "--output-directory", tmp_path)
    (output,) = tmp_path.glob("*.npy")
    golden = np.load(GENERATORS / f"golden/{network}.npy")
    np.testing.assert_allclose(np.load(output).ravel(), golden.ravel(), rtol=1e-3)

    series = {one.key: one for one in found.series}
    operators = [one for one in found.series if one.type.startswith("ID_")]
    assert found.backend == "opengl"
    assert series["NET evidence"].text.startswith("opengl shader in ")
    assert [one.type.split("_")[1] for one in operators] == [str(index) for index in range(len(operators))]
    assert {len(one.values) for one in operators} == {2}
    assert not {one.type.split("_")[2] for one in operators} & {"Reshape", "Flatten"}  # nothing is computed for them


def test_the_input_is_that_of_every_runner(gl: Any, tmp_path: Path) -> None:
    path = onnxfile.write(tmp_path / "net.onnx", [Node("Relu", ["x"], ["y"])], {"x": ("float32", [2, 3])}, ["y"])
    found = {one.key: one for one in run("--model", path, "--output-directory", tmp_path).series}
    expected = common.seeded((2, 3), "float")
    assert found["NET input_digest"].text == common.digest([expected])
    assert found["NET output_digest"].text == common.digest([np.maximum(expected, 0)])
    assert gl.info["GL_RENDERER"] in found["NET evidence"].text
    assert f"in {'software' if 'llvmpipe' in gl.info['GL_RENDERER'] else 'hardware'}, on" in found["NET evidence"].text


# ---------------------------------------------------------------- operators, beside ONNX Runtime's


def drawn(*shape: int) -> np.ndarray:
    return common.seeded(shape, "float", sum(shape))


CHANNELS = {name: np.abs(drawn(6)) + np.float32(0.1 * place) for place, name in enumerate("smvb", 1)}
NUMBERS = {"axes": np.array([1, 2]), "shape": np.array([0, -1, 2]), "least": np.float32(-0.2), "most": np.float32(0.3)}

CASES: dict[str, tuple[Node, tuple[int, ...], Mapping[str, np.ndarray]]] = {
    "conv": (Node("Conv", ["x", "w"], ["y"]), (2, 3, 9, 7), {"w": drawn(8, 3, 3, 3)}),
    "conv, odd": (Node("Conv", ["x", "w", "b"], ["y"]), (1, 3, 9, 7), {"w": drawn(5, 3, 2, 4), "b": drawn(5)}),
    "conv, window": (
        Node("Conv", ["x", "w"], ["y"], {"strides": [2, 3], "pads": [1, 0, 2, 3], "dilations": [2, 1], "group": 1}),
        (1, 4, 12, 11),
        {"w": drawn(4, 4, 3, 3)},
    ),
    "conv, groups": (Node("Conv", ["x", "w"], ["y"], {"group": 3}), (2, 6, 5, 5), {"w": drawn(12, 2, 3, 3)}),
    "conv, depthwise": (Node("Conv", ["x", "w"], ["y"], {"group": 6}), (1, 6, 8, 8), {"w": drawn(6, 1, 3, 3)}),
    "max pool": (Node("MaxPool", ["x"], ["y"], {"kernel_shape": [3, 2], "strides": [2, 2]}), (2, 3, 9, 8), {}),
    "max pool, padded": (Node("MaxPool", ["x"], ["y"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}), (1, 2, 5, 5), {}),
    "mean pool": (Node("AveragePool", ["x"], ["y"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}), (1, 2, 5, 5), {}),
    "mean pool, zeros": (
        Node("AveragePool", ["x"], ["y"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
        (1, 2, 5, 5),
        {},
    ),
    "global mean": (Node("GlobalAveragePool", ["x"], ["y"]), (2, 3, 5, 4), {}),
    "matmul": (Node("MatMul", ["x", "w"], ["y"]), (7, 5), {"w": drawn(5, 6)}),
    "matmul, batches": (Node("MatMul", ["x", "w"], ["y"]), (2, 1, 6, 5), {"w": drawn(3, 5, 4)}),
    "gemm": (Node("Gemm", ["x", "w", "b"], ["y"], {"transB": 1}), (3, 5), {"w": drawn(4, 5), "b": drawn(4)}),
    "gemm, turned": (Node("Gemm", ["x", "w"], ["y"], {"transA": 1}), (5, 3), {"w": drawn(5, 4)}),
    "softmax": (Node("Softmax", ["x"], ["y"]), (2, 3, 10), {}),
    "softmax, axis": (Node("Softmax", ["x"], ["y"], {"axis": 1}), (2, 5, 4), {}),
    "layer": (
        Node("LayerNormalization", ["x", "s", "b"], ["y"], {"epsilon": 1e-3}),
        (4, 3, 6),
        CHANNELS,
    ),
    "layer, no shift": (Node("LayerNormalization", ["x", "s"], ["y"], {"axis": 2}), (4, 3, 6), CHANNELS),
    "batch": (Node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], {"epsilon": 1e-3}), (2, 6, 3, 3), CHANNELS),
    "mean": (Node("ReduceMean", ["x", "axes"], ["y"], {"keepdims": 0}), (2, 3, 4, 5), NUMBERS),
    "mean, kept": (Node("ReduceMean", ["x", "axes"], ["y"]), (2, 3, 4, 5), NUMBERS),
    "mean of all": (Node("ReduceMean", ["x"], ["y"], {"keepdims": 0}), (2, 3, 4), {}),
    "concat": (Node("Concat", ["x", "w", "x"], ["y"], {"axis": 1}), (2, 3, 4), {"w": drawn(2, 5, 4)}),
    "concat, last": (Node("Concat", ["x", "w"], ["y"], {"axis": -1}), (2, 3, 4), {"w": drawn(2, 3, 1)}),
    "transpose": (Node("Transpose", ["x"], ["y"], {"perm": [0, 2, 1, 4, 3]}), (2, 3, 4, 5, 6), {}),
    "transpose, all": (Node("Transpose", ["x"], ["y"]), (2, 3, 4), {}),
    "reshape": (Node("Reshape", ["x", "shape"], ["y"]), (3, 4, 5), NUMBERS),
    "flatten": (Node("Flatten", ["x"], ["y"], {"axis": 2}), (2, 3, 4, 5), {}),
    "identity": (Node("Identity", ["x"], ["y"]), (2, 3), {}),
    "clip": (Node("Clip", ["x", "least", "most"], ["y"]), (3, 50), NUMBERS),
    "clip, one side": (Node("Clip", ["x", "", "most"], ["y"]), (3, 50), NUMBERS),
    "add": (Node("Add", ["x", "w"], ["y"]), (2, 3, 4, 5), {"w": drawn(3, 1, 5)}),
    "add, wider": (Node("Add", ["x", "w"], ["y"]), (4, 1), {"w": drawn(2, 4, 3)}),
    "sub": (Node("Sub", ["x", "w"], ["y"]), (2, 3), {"w": drawn(2, 3)}),
    "mul": (Node("Mul", ["x", "w"], ["y"]), (2, 3), {"w": drawn(1)}),
    "div": (Node("Div", ["w", "x"], ["y"]), (2, 3), {"w": drawn(2, 3)}),
    **{
        operator: (Node(operator, ["x"], ["y"]), (7, 19), {})
        for operator in ("Relu", "Sigmoid", "Tanh", "Erf", "Gelu", "HardSwish", "Exp", "Neg", "Abs")
    },
    "many": (Node("Relu", ["x"], ["y"]), (70, 65_000), {}),  # more groups than OpenGL starts along one dimension
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_onnx_runtime_does(name: str, runner: Any, gl: Any, tmp_path: Path) -> None:
    ort: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install aibenchd[onnxruntime]")
    node, shape, weights = CASES[name]
    used = {key: np.asarray(array) for key, array in weights.items() if key in node.inputs}
    path = onnxfile.write(tmp_path / "net.onnx", [node], {"x": ("float32", shape)}, ["y"], used)
    x = drawn(*shape)
    (expected,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    found = computed(runner, gl, path, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def computed(runner: Any, gl: Any, path: Path, *inputs: np.ndarray) -> np.ndarray:
    network = runner.OpenGlNetwork(gl, runner.onnx_file.read(str(path)), inputs)
    network.run()
    (output,) = network.outputs().values()
    return np.asarray(output)


def test_softmax_before_version_13_is_over_all_axes_that_follow(runner: Any, gl: Any, tmp_path: Path) -> None:
    path = onnxfile.write(
        tmp_path / "net.onnx", [Node("Softmax", ["x"], ["y"])], {"x": ("float32", [2, 3, 4])}, ["y"], version=11
    )
    assert computed(runner, gl, path, drawn(2, 3, 4)).sum((1, 2)) == pytest.approx([1, 1])


def test_a_run_takes_its_inputs_anew(runner: Any, gl: Any, tmp_path: Path) -> None:
    """A later run must not see what an earlier one left in OpenGL's memory."""
    nodes = [Node("Neg", ["x"], ["a"]), Node("Add", ["a", "x"], ["y"])]
    path = onnxfile.write(tmp_path / "net.onnx", nodes, {"x": ("float32", [5])}, ["y"])
    network = runner.OpenGlNetwork(gl, runner.onnx_file.read(str(path)), [drawn(5)])
    for _ in range(2):
        network.run()
        assert network.outputs()["y"].tolist() == [0] * 5


# ---------------------------------------------------------------- what cannot be used


@pytest.mark.usefixtures("gl")
@pytest.mark.parametrize(
    ("node", "said"),
    [
        (Node("LSTM", ["x"], ["y"]), "there is no shader for LSTM; there are Abs, Add, AveragePool"),
        (Node("MaxPool", ["x"], ["y"], {"kernel_shape": [2, 2], "ceil_mode": 1}), "for MaxPool with ceil_mode = 1"),
        (Node("Conv", ["x", "w"], ["y"], {"auto_pad": "SAME_UPPER"}), "for Conv with auto_pad = SAME_UPPER"),
        (Node("Gelu", ["x"], ["y"], {"approximate": "tanh"}), "for Gelu with approximate = tanh"),
        (Node("Conv", ["x", "w"], ["y"], {"group": 2}), "for a kernel [4, 3, 3, 3] over [1, 3, 8, 8]"),
        (Node("Reshape", ["x", "x"], ["y"]), "x is expected to be a weight, and is none"),
        (Node("Reshape", ["x", "w"], ["y"]), "the shape [1, 3, 8, 8] cannot become"),
        (Node("MatMul", ["x", "w"], ["y"]), "for the product of [1, 3, 8, 8] and [4, 3, 3, 3]"),
        (Node("MaxPool", ["x"], ["y", "z"], {"kernel_shape": [2, 2]}), "for MaxPool over [1, 3, 8, 8] to 2 outputs"),
        (Node("MaxPool", ["x"], ["y"]), "is not what ONNX has as MaxPool: KeyError: 'kernel_shape'"),
        (Node("MaxPool", ["x"], ["y"], {"kernel_shape": [2, 2], "strides": [0, 0]}), "as MaxPool: ZeroDivisionError"),
        (Node("Relu", [], ["y"]), "is not what ONNX has as Relu: IndexError"),
        (Node("Add", ["x", "w"], ["y"]), "is not what ONNX has as Add: ValueError"),
    ],
)
def test_what_has_no_shader_is_named(node: Node, said: str, tmp_path: Path) -> None:
    weight = {"w": np.array([5]) if node.operator == "Reshape" else np.ones((4, 3, 3, 3), np.float32)}
    path = onnxfile.write(tmp_path / "net.onnx", [node], {"x": ("float32", [1, 3, 8, 8])}, ["y"], weight)
    status, message = refused(path)
    assert status == 2
    assert said in message


@pytest.mark.usefixtures("gl")
def test_inputs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = onnxfile.write(tmp_path / "net.onnx", [Node("Relu", ["x"], ["y"])], {"x": ("float32", [2])}, ["y"])
    status, message = refused(path, "--input-dims", "2;3")
    assert (status, "the network takes 1 inputs (x), not 2" in message) == (2, True)
    status, message = refused(path, "--input-dims", "2", "--input-type", "int64")
    assert (status, "its input x is int64; here all numbers are float32" in message) == (2, True)


def test_a_file_that_is_no_network_is_named() -> None:
    status, message = refused(Path(__file__))
    assert (status, "cannot be read as an ONNX file" in message) == (2, True)


def test_without_opengl_the_runner_says_so(tmp_path: Path) -> None:
    path = onnxfile.write(tmp_path / "net.onnx", [Node("Relu", ["x"], ["y"])], {"x": ("float32", [2])}, ["y"])
    (tmp_path / "moderngl.py").write_text("raise ImportError('not on this device')")
    done = subprocess.run(
        [sys.executable, RUNNERS / "opengl_runner.py", "--model", path, "--backend", "opengl"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr == "opengl_runner: there is no OpenGL 4.3 through EGL here: not on this device\n"
