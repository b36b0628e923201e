"""The programs that write model files: the bytes that specifications state, and networks that each framework really runs."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import caffe2env
import numpy as np
import pytest

from aibenchd.measure import outputs
from aibenchd.runners import common

SPECIFICATIONS = Path(__file__).parents[2] / "specifications"
PROGRAM = SPECIFICATIONS / "generators/networks.py"
NETWORKS = ("squeezenet", "mobilenet_v2", "shufflenet", "resnet50", "transformer")
SMALL = ("squeezenet", "transformer")
CLOSE = {"max_relative": 1e-4, "top1_flips": 0.0}  # what the same arithmetic in float32 comes to, with room

Array = np.ndarray
Make = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def make() -> Iterator[Make]:
    """A network in a format, made once. They take half a gigabyte, and so are not left behind."""
    with tempfile.TemporaryDirectory() as directory:

        @functools.cache
        def made(network: str, form: str) -> Path:
            path = Path(directory) / f"{network}.{form}"
            _run(network, form, path)
            return path

        yield made


def _run(*arguments: str | Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, PROGRAM, *arguments], env=environment, check=True)


def _stated() -> dict[tuple[str, ...], str]:
    """The digest of each generator's output, as the specifications have it."""
    found: dict[tuple[str, ...], str] = {}
    for path in sorted(SPECIFICATIONS.glob("models/*/*/*.json")):
        for file in _files(json.loads(path.read_text())):
            if isinstance(file["location"], dict):
                words = tuple(file["location"]["generator"])
                assert found.setdefault(words, file["sha256"]) == file["sha256"], path
    return found


def _files(document: Any) -> Iterator[Mapping[str, Any]]:
    """All objects that have a location, however deep."""
    if isinstance(document, dict) and "location" in document:
        yield document
    children = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    for child in children:
        yield from _files(child)


STATED = _stated()


def test_every_network_is_stated_for_every_framework() -> None:
    forms = ("torchscript", "onnx", "tflite", "caffe2-init", "caffe2-predict", "output")
    assert set(STATED) == {("networks.py", network, form) for network in NETWORKS for form in forms}


@pytest.mark.parametrize("words", STATED, ids=lambda words: "-".join(words[1:]))
def test_bytes_are_those_that_the_specifications_state(words: tuple[str, ...], make: Make) -> None:
    assert hashlib.sha256(make(*words[1:]).read_bytes()).hexdigest() == STATED[words]


# ---------------------------------------------------------------- the program


@pytest.mark.parametrize("network", SMALL)
def test_inputs_are_those_that_runners_make(network: str, make: Make) -> None:
    given = np.load(make(network, "input"))
    assert (given == common.seeded(given.shape, "float")).all()
    turned = np.load(make(network, "input-nhwc"))
    assert (turned == common.seeded(turned.shape, "float", layout="nhwc")).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_golden_outputs_are_what_is_computed(network: str, make: Make) -> None:
    computed, golden = np.load(make(network, "computed")), np.load(make(network, "output"))
    assert golden.shape == (1, 1000)
    assert outputs.compare(computed, golden).beyond({"max_relative": 1e-6}) == ""
    # Neither all alike nor all but one nothing: a wrong one would go unseen.
    assert 0.01 < golden.max() < 0.5
    assert golden.min() > 1e-8


def test_nothing_is_left_beside_the_program(make: Make) -> None:
    make("squeezenet", "caffe2-predict")
    assert list(PROGRAM.parent.rglob("__pycache__")) == []


def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    def told(*arguments: str | Path) -> tuple[int, str]:
        ended = subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=False)
        return ended.returncode, ended.stderr

    absent = tmp_path / "absent/net.onnx"
    assert told("squeezenet", "onnx", absent) == (1, f"networks.py: {absent}: cannot be written: No such file or directory\n")
    status, message = told("squeezent", "onnx", tmp_path / "net.onnx")
    assert status == 2
    assert "invalid choice: 'squeezent'" in message


# ---------------------------------------------------------------- all formats hold the same numbers


@pytest.mark.parametrize("network", SMALL)
def test_weights_are_the_same_in_all_formats(network: str, make: Make) -> None:
    if lacking := [name for name in ("torch", "onnx", "ai_edge_litert") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(lacking)}")
    torchscript, onnx, tflite = _of_torchscript(make(network, "torchscript")), _of_onnx(make(network, "onnx")), {}
    interpreter = _interpreter(make(network, "tflite"))
    for tensor in interpreter.get_tensor_details():
        if tensor["name"] in torchscript:
            tflite[tensor["name"]] = interpreter.get_tensor(tensor["index"])
    assert len(torchscript) > 50
    caffe2 = make(network, "caffe2-init").read_bytes()
    for name, weight in torchscript.items():
        assert weight.tobytes() in caffe2, name
        for other in (onnx[name], tflite[name]):  # their axes stand in another order
            assert (np.sort(other, axis=None) == np.sort(weight, axis=None)).all(), name


def _of_torchscript(path: Path) -> dict[str, Array]:
    return {name: value.numpy() for name, value in _loaded(path).state_dict().items()}


def _of_onnx(path: Path) -> dict[str, Array]:
    import onnx
    from onnx import numpy_helper

    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


# ---------------------------------------------------------------- frameworks run them


@pytest.mark.parametrize("network", NETWORKS)
def test_onnx_is_valid(network: str, make: Make) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
    onnx.checker.check_model(onnx.load(make(network, "onnx")), full_check=True)


@pytest.mark.parametrize("network", NETWORKS)
def test_pytorch_runs_it(network: str, make: Make) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install aibenchd[torch]")
    with torch.inference_mode():
        output = _loaded(make(network, "torchscript"))(torch.from_numpy(np.load(make(network, "input"))))
    _agrees(output.numpy(), network, make)


@pytest.mark.parametrize("network", NETWORKS)
def test_onnx_runtime_runs_it(network: str, make: Make) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    session = onnxruntime.InferenceSession(make(network, "onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["output"]
    _agrees(session.run(None, {"data": np.load(make(network, "input"))})[0], network, make)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kernels", ["AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"])
def test_litert_runs_it(network: str, kernels: str, make: Make) -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed: pip install ai-edge-litert")
    interpreter = _interpreter(make(network, "tflite"), kernels)
    (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (given["name"], output["name"]) == ("data", "output")
    interpreter.set_tensor(given["index"], np.load(make(network, "input-nhwc")))
    interpreter.invoke()
    _agrees(interpreter.get_tensor(output["index"]), network, make)


CAFFE2 = """
import sys
import numpy as np
from caffe2.proto import caffe2_pb2
from caffe2.python import workspace

def net(path):
    read = caffe2_pb2.NetDef()
    read.ParseFromString(open(path, "rb").read())
    return read

init, predict, given, output = sys.argv[1:]
workspace.GlobalInit(["caffe2", "--caffe2_log_level=2"])
workspace.RunNetOnce(net(init))
workspace.FeedBlob("data", np.load(given))
workspace.RunNetOnce(net(predict))
np.save(output, workspace.FetchBlob("output"))
"""


@pytest.mark.parametrize("network", NETWORKS)
def test_caffe2_runs_it(network: str, make: Make, tmp_path: Path) -> None:
    python = caffe2env.interpreter()
    made = [make(network, form) for form in ("caffe2-init", "caffe2-predict", "input")]
    subprocess.run([python, "-c", CAFFE2, *made, tmp_path / "output.npy"], check=True, capture_output=True)
    _agrees(np.load(tmp_path / "output.npy"), network, make)


def _loaded(path: Path) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch would have us write torch.export's
        return torch.jit.load(path).eval()


def _interpreter(path: Path, kernels: str = "AUTO") -> Any:
    from ai_edge_litert import interpreter

    resolver = interpreter.OpResolverType[kernels]
    made = interpreter.Interpreter(model_path=str(path), experimental_op_resolver_type=resolver, num_threads=1)
    made.allocate_tensors()
    return made


def _agrees(output: Array, network: str, make: Make) -> None:
    assert output.dtype == np.float32
    assert outputs.compare(output, np.load(make(network, "output"))).beyond(CLOSE) == ""
