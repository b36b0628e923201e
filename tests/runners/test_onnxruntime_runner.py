"""The runner of ONNX Runtime, with real networks. Each measurement is a process of its own, as on a device."""

from __future__ import annotations

import collections
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxfile
import pytest
from onnxfile import Node

import aibenchd.runners
from aibenchd import model
from aibenchd.frameworks import base
from aibenchd.frameworks import onnxruntime as framework
from aibenchd.measure import profiles
from aibenchd.runners import common

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when it is loaded
ort: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install aibenchd[onnxruntime]")

HERE = Path(__file__).parent
SUPPORT = HERE.parent / "support"
RUNNERS = Path(aibenchd.runners.__file__).parent
GENERATORS = HERE.parents[1] / "specifications/generators"
QUICK = ("--warmup", "0", "--iterations", "3")


def ended(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RUNNERS / "onnxruntime_runner.py", *arguments]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{HERE}:{SUPPORT}", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def run(*arguments: str | Path, **variables: str) -> base.Output:
    """Measured, and read as the daemon reads it."""
    done = ended(*arguments, *QUICK, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    return framework.OnnxRuntime().parse(done.stdout, model.Benchmark({}, {}))


def refused(*arguments: str | Path) -> tuple[int, str]:
    done = ended(*arguments, *QUICK)
    assert done.stderr.startswith("onnxruntime_runner: ")
    assert done.stderr.count("\n") == 1
    return done.returncode, done.stderr


def by_key(output: base.Output) -> dict[str, model.Series]:
    return {series.key: series for series in output.series}


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("networks") / "squeezenet.onnx"
    subprocess.run([sys.executable, GENERATORS / "networks.py", "squeezenet", "onnx", path], check=True)
    return path


@pytest.fixture
def net(tmp_path: Path) -> Path:
    nodes = [Node("Conv", ["x", "w"], ["c"]), Node("Relu", ["c"], ["y"])]
    weight = np.ones((4, 3, 3, 3), np.float32)
    return onnxfile.write(tmp_path / "net.onnx", nodes, {"x": ("float32", [1, 3, 8, 8])}, ["y"], {"w": weight})


def test_squeezenet_with_its_nodes(squeezenet: Path, tmp_path: Path) -> None:
    temporary, written = tmp_path / "temporary", tmp_path / "outputs"
    temporary.mkdir()
    written.mkdir()
    found = run("--model", squeezenet, "--operators", "--output-directory", written, TMPDIR=str(temporary))
    series = by_key(found)
    nodes = [one for one in found.series if one.type.startswith("ID_")]
    assert found.backend == "cpu"
    assert series["NET evidence"].text == f"cpu CPUExecutionProvider x {len(nodes)}"
    assert collections.Counter(one.type.split("_")[2] for one in nodes)["Conv"] == 26
    assert [one.type.split("_")[1] for one in nodes] == [str(index) for index in range(len(nodes))]
    assert {len(one.values) for one in nodes} == {3}
    assert sum(map(sum, (one.values for one in nodes))) > 0
    assert {one.unit for one in found.series if one.values} == {"us", "B"}
    assert [len(series[f"NET {metric}"].values) for metric in ("load", "first_run", "latency")] == [1, 1, 3]
    assert list(temporary.iterdir()) == []  # no profile is left, and nothing for telemetry

    (output,) = written.iterdir()
    golden = np.load(GENERATORS / "golden/squeezenet.npy")
    np.testing.assert_allclose(np.load(output).ravel(), golden.ravel(), rtol=1e-3)


def test_a_file_s_own_inputs_are_those_that_are_asked_for(squeezenet: Path) -> None:
    digests = [
        by_key(run("--model", squeezenet, *arguments))["NET input_digest"].text
        for arguments in ((), ("--input-dims", "1,3,224,224", "--input-type", "float"))
    ]
    assert digests == [common.digest([common.seeded((1, 3, 224, 224), "float")])] * 2


def test_a_profile_is_left_where_one_is_asked_for(squeezenet: Path, tmp_path: Path) -> None:
    file = tmp_path / "profile"
    run("--model", squeezenet, "--input-dims", "1,3,224,224", "--operators", AIBENCHD_PROFILE=str(file))
    profiles.keep(file, model.Profiler.OWN)
    found = profiles.of_trace(file.with_name("profile.json.gz"))
    assert found.runs == 3
    assert sum(name.endswith("_kernel_time") for name in found.own) > 30  # nodes, by their names


@pytest.mark.parametrize("factory", ["net", "path"])
def test_a_network_that_a_function_makes(factory: str, tmp_path: Path) -> None:
    arguments = ("--module", f"onnx_engine:{factory}", "--input-dims", "1,3,8,8", "--operators")
    found = run(*arguments, "--output-directory", tmp_path, TMPDIR=str(tmp_path))
    assert found.backend == "cpu"
    assert np.load(tmp_path / "y.npy").shape == (1, 4, 6, 6)


@pytest.mark.parametrize("kind", sorted(set(common.TYPES)))
def test_inputs_of_every_type(kind: str, tmp_path: Path) -> None:
    stored = common.TYPES[kind]
    path = onnxfile.write(tmp_path / "net.onnx", [Node("Cast", ["x"], ["y"], {"to": 11})], {"x": (stored, ["batch", 5])}, ["y"])
    run("--model", path, "--input-dims", "2,5", "--input-type", kind, "--output-directory", tmp_path)
    assert np.array_equal(np.load(tmp_path / "y.npy"), common.seeded((2, 5), kind).astype(np.float64))


def test_a_repository_may_have_modules_called_as_ours(tmp_path: Path) -> None:
    path = onnxfile.write(tmp_path / "net.onnx", [Node("Relu", ["x"], ["y"])], {"x": ("float32", [2])}, ["y"])
    (tmp_path / "common.py").write_text(f"PATH = {str(path)!r}\n")
    (tmp_path / "onnx_file.py").write_text("import common\nnet = lambda: common.PATH\n")
    run("--module", "onnx_file:net", "--input-dims", "2", PYTHONPATH=str(tmp_path))


def test_outputs_that_would_be_one_file_are_two(tmp_path: Path) -> None:
    nodes = [Node("Relu", ["x"], ["a/b"]), Node("Neg", ["x"], ["a:b"])]
    path = onnxfile.write(tmp_path / "net.onnx", nodes, {"x": ("float32", [2, 3])}, ["a/b", "a:b"])
    run("--model", path, "--output-directory", tmp_path)
    assert np.load(tmp_path / "a_b.npy").min() >= 0
    assert np.load(tmp_path / "a_b_2.npy").min() < 0


def test_inputs_of_several_types_from_the_file_itself(tmp_path: Path) -> None:
    nodes = [Node("Cast", ["n"], ["f"], {"to": 1}), Node("Add", ["x", "f"], ["sum"])]
    path = onnxfile.write(tmp_path / "net.onnx", nodes, {"x": ("float32", [2, 3]), "n": ("int64", [3])}, ["sum"])
    run("--model", path, "--output-directory", tmp_path)
    expected = common.seeded((2, 3), "float", 0) + common.seeded((3,), "int64", 1)
    np.testing.assert_allclose(np.load(tmp_path / "sum.npy"), expected, rtol=1e-6)


def test_inputs_from_files(net: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "ones.npy", np.ones((1, 3, 8, 8), np.float32))
    run("--model", net, "--input-file", tmp_path / "ones.npy", "--output-directory", tmp_path)
    assert np.unique(np.load(tmp_path / "y.npy")).tolist() == [27]


def test_nodes_within_a_node_are_part_of_it(tmp_path: Path) -> None:
    """If's branches are graphs of their own, and ONNX Runtime's profile lists their nodes too."""
    branches = {
        name: onnxfile.graph([Node(operator, ["x"], [f"{name}_inner"]), Node("Exp", [f"{name}_inner"], [name])], [name])
        for name, operator in (("then_branch", "Sin"), ("else_branch", "Cos"))
    }
    nodes = [
        Node("ReduceSum", ["x"], ["total"], {"keepdims": 0}),
        Node("Greater", ["total", "least"], ["large"]),
        Node("If", ["large"], ["y"], branches),
    ]
    weights = {"least": np.array(0, np.float32)}
    path = onnxfile.write(tmp_path / "net.onnx", nodes, {"x": ("float32", [4])}, ["y"], weights)
    found = run("--model", path, "--operators")
    operators = [one.type.split("_")[2] for one in found.series if one.type.startswith("ID_")]
    assert operators == ["ReduceSum", "Greater", "If"]


# ---------------------------------------------------------------- backends


@pytest.mark.parametrize("backend", ["xnnpack", "onednn", "cuda", "dsp"])
def test_a_provider_that_is_not_there_is_refused(net: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = runner(monkeypatch)
    provider = chosen.PROVIDERS[backend]
    if provider in ort.get_available_providers() or chosen.plug_in(provider):
        pytest.skip(f"this ONNX Runtime has the {provider}")
    status, said = refused("--model", net, "--backend", backend)
    assert status == 3
    assert f"asked for {backend}: ONNX Runtime {ort.__version__} has no {provider} here; it has" in said


def test_a_provider_that_takes_no_node_is_refused(
    net: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The session lists it as one of its providers all the same."""
    chosen = runner(monkeypatch)
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no AzureExecutionProvider, which is there and takes no node")
    monkeypatch.setattr(chosen, "PROVIDERS", {"xnnpack": "AzureExecutionProvider", "cpu": "CPUExecutionProvider"})
    session = ort.InferenceSession(net, providers=chosen.providers("xnnpack"))
    assert session.get_providers()[0] == "AzureExecutionProvider"
    assert chosen.main(["--model", str(net), *QUICK, "--backend", "xnnpack"]) == 3
    assert "asked for xnnpack, but it did not execute: cpu CPUExecutionProvider x " in capfd.readouterr().err


@pytest.mark.parametrize("backend", ["xnnpack", "onednn", "cuda", "dsp"])
def test_a_provider_that_is_there_executes(squeezenet: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = runner(monkeypatch).PROVIDERS[backend]
    if provider not in ort.get_available_providers():
        pytest.skip(f"onnxruntime {ort.__version__} has no {provider} here")
    found = run("--model", squeezenet, "--backend", backend)
    assert found.backend == backend
    assert f"{backend} {provider} x " in by_key(found)["NET evidence"].text


@pytest.mark.skipif(not importlib.util.find_spec("onnxruntime_qnn"), reason="onnxruntime-qnn is not installed; it is opt-in")
def test_a_plug_in_s_provider_executes_what_is_quantized(tmp_path: Path) -> None:
    scale, zero = np.float32(0.02), np.uint8(128)
    nodes = [
        Node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        Node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        Node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        Node("Conv", ["xd", "wd"], ["c"]),
        Node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        Node("DequantizeLinear", ["cq", "s", "z"], ["y"]),
    ]
    weights = {"s": np.asarray(scale), "z": np.asarray(zero), "w": np.arange(108, dtype=np.uint8).reshape(4, 3, 3, 3)}
    path = onnxfile.write(tmp_path / "net.onnx", nodes, {"x": ("float32", [1, 3, 8, 8])}, ["y"], weights)
    found = run("--model", path, "--backend", "dsp", "--operators")
    assert found.backend == "dsp"
    assert by_key(found)["NET evidence"].text.startswith("dsp QNNExecutionProvider x 1")
    assert any(one.type.endswith("_QNNExecutionProvider") for one in found.series)


def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RUNNERS))
    import onnxruntime_runner

    return onnxruntime_runner


# ---------------------------------------------------------------- what cannot be used


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--model", "nowhere.onnx"), 2, "nowhere.onnx: cannot be read as an ONNX file: [Errno 2] No such file"),
        (("--model", "nowhere.onnx", "--input-dims", "1"), 2, "nowhere.onnx: ONNX Runtime"),
        (("--model", __file__), 2, "test_onnxruntime_runner.py: cannot be read as an ONNX file"),
        (("--model", __file__, "--input-dims", "1"), 2, "makes no session of it"),
        (("--module", "onnx_engine", "--input-dims", "1"), 2, "expected MODULE:FACTORY"),
        (("--module", "nowhere:net", "--input-dims", "1"), 2, "No module named 'nowhere'"),
        (("--module", "onnx_engine:nothing", "--input-dims", "1"), 2, "has no attribute 'nothing'"),
        (("--module", "onnx_engine:number", "--input-dims", "1"), 2, "returned int, expected the bytes of an ONNX file"),
        (("--module", "onnx_engine:net"), 2, "expected --input-dims, or --input-file"),
        (("--module", "onnx_engine:no_graph", "--input-dims", "1"), 1, "INVALID_PROTOBUF"),
        (("--module", "onnx_engine:failing", "--input-dims", "1"), 1, "onnx_engine.py:33: RuntimeError: weights are missing"),
    ],
)
def test_what_is_no_network_is_one_clear_line(arguments: tuple[str, ...], status: int, said: str) -> None:
    code, message = refused(*arguments)
    assert code == status
    assert said in message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--input-dims", "1,3,8,8;1"), "takes 1 inputs (x), and is given 2"),
        (("--input-dims", "1,3,9,8"), "input x is tensor(float) [1, 3, 8, 8], and given is tensor(float) [1, 3, 9, 8]"),
        (("--input-dims", "3,8,8"), "given is tensor(float) [3, 8, 8]"),
        (("--input-dims", "1,3,8,8", "--input-type", "int64"), "given is tensor(int64) [1, 3, 8, 8]"),
        (("--output-directory", "/nowhere/at/all"), "--output-directory /nowhere/at/all"),
    ],
)
def test_inputs_that_do_not_fit_are_named(net: Path, arguments: tuple[str, ...], said: str) -> None:
    status, message = refused("--model", net, *arguments)
    assert status == 2
    assert said in message


@pytest.mark.parametrize(
    ("kind", "sizes", "said"),
    [
        ("float32", ["batch", 3], "its input x is float32 [?,3]; expected --input-dims"),
        ("float32", [], "its input x is float32 []; expected --input-dims"),
        ("", [2], "its input x is of an unknown type [2]; expected --input-dims"),
    ],
)
def test_inputs_that_the_file_does_not_fix_are_asked_for(kind: str, sizes: list[int | str], said: str, tmp_path: Path) -> None:
    path = onnxfile.write(tmp_path / "net.onnx", [Node("Relu", ["x"], ["y"])], {"x": (kind, sizes)}, ["y"])
    status, message = refused("--model", path)
    assert status == 2
    assert said in message


def test_outputs_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    nodes = [Node("SequenceConstruct", ["x", "x"], ["pair"])]
    path = onnxfile.write(tmp_path / "net.onnx", nodes, {"x": ("float32", [2])}, ["pair"])
    status, message = refused("--model", path)
    assert (status, "its output pair is no tensor of numbers" in message) == (2, True)


def test_a_network_that_fails_says_where_it_stood(tmp_path: Path) -> None:
    nodes = [Node("Reshape", ["x", "shape"], ["y"])]
    inputs = {"x": ("float32", [4]), "shape": ("int64", [1])}
    path = onnxfile.write(tmp_path / "net.onnx", nodes, inputs, ["y"])
    status, message = refused("--model", path)  # a size from the seeded inputs, which is not 4
    assert (status, "the network failed" in message) == (1, True)


def test_without_onnxruntime_the_runner_says_so(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not on this device')")
    done = ended("--model", "x", PYTHONPATH=str(tmp_path))
    assert (done.returncode, "onnxruntime cannot be imported: not on this device" in done.stderr) == (2, True)
