"""The runner of TensorFlow Lite, with real networks on LiteRT. Each measurement is a process of its own, as on a device."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tflitefile

import aibenchd.runners
from aibenchd import model
from aibenchd.frameworks import base, tflite
from aibenchd.runners import common

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed: pip install aibenchd[tflite]")

RUNNERS = Path(aibenchd.runners.__file__).parent
GENERATORS = Path(__file__).parents[2] / "specifications/generators"
QUICK = ("--warmup", "0", "--iterations", "2")
CREATED = "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"


def ended(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RUNNERS / "tflite_runner.py", *arguments]
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def run(*arguments: str | Path, **variables: str) -> base.Output:
    """Measured, and read as the daemon reads it."""
    done = ended(*arguments, **variables)
    assert done.returncode == 0, done.stderr
    return tflite.TfLite().parse(done.stdout, model.Benchmark({}, {}))


def refused(*arguments: str | Path) -> tuple[int, str]:
    done = ended(*arguments)
    said = done.stderr.splitlines()[-1]
    assert said.startswith("tflite_runner: ")
    assert "Traceback" not in done.stderr
    return done.returncode, said


def by_key(output: base.Output) -> dict[str, model.Series]:
    return {series.key: series for series in output.series}


def generated(directory: Path, network: str, form: str) -> Path:
    path = directory / f"{network}.{form}"
    subprocess.run([sys.executable, GENERATORS / "networks.py", network, form, path], check=True)
    return path


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generated(tmp_path_factory.mktemp("networks"), "squeezenet", "tflite")


@pytest.fixture(scope="module")
def measured(squeezenet: Path) -> Mapping[str, tuple[base.Output, np.ndarray]]:
    """Squeezenet on each backend, with its output."""
    found = {}
    for backend in ("xnnpack", "cpu"):
        directory = squeezenet.parent / backend
        directory.mkdir()
        arguments = ("--model", squeezenet, *QUICK, "--backend", backend, "--operators", "--output-directory", directory)
        output = run(*arguments)
        (path,) = directory.iterdir()
        found[backend] = output, np.load(path)
    return found


# ---------------------------------------------------------------- backends


def test_each_backend_proves_itself(measured: Mapping[str, tuple[base.Output, np.ndarray]]) -> None:
    for backend, (output, _) in measured.items():
        assert output.backend == backend
        evidence = by_key(output)["NET evidence"].text.split(", ")
        assert {one.split()[0] for one in evidence} == {backend}
        assert f"{backend} CONV_2D x 26" in evidence


def test_backends_agree_with_each_other_and_with_the_golden_output(
    measured: Mapping[str, tuple[base.Output, np.ndarray]],
) -> None:
    (xnnpack, fast), (cpu, plain) = measured["xnnpack"], measured["cpu"]
    golden = np.load(GENERATORS / "golden/squeezenet.npy")
    for output in (fast, plain):
        np.testing.assert_allclose(output.ravel(), golden.ravel(), rtol=1e-3)
    assert not np.array_equal(fast, plain)  # other kernels computed it
    assert by_key(xnnpack)["NET input_digest"].text == by_key(cpu)["NET input_digest"].text
    assert by_key(xnnpack)["NET output_digest"].text != by_key(cpu)["NET output_digest"].text


def test_operators_are_those_of_the_backend(measured: Mapping[str, tuple[base.Output, np.ndarray]]) -> None:
    found = {
        backend: [series for series in output.series if series.type.startswith("ID_")]
        for backend, (output, _) in measured.items()
    }
    assert sum("_CONV_2D" in series.type for series in found["cpu"]) == 26
    assert not any("CONV_2D" in series.type for series in found["xnnpack"])
    assert any("Convolution_NHWC_F32" in series.type for series in found["xnnpack"])
    for operators in found.values():
        assert [series.type.split("_")[1] for series in operators] == [str(index) for index in range(len(operators))]
        assert {len(series.values) for series in operators} == {2}
        assert sum(map(sum, (series.values for series in operators))) > 0


def test_xnnpack_that_takes_no_node_is_an_error(tmp_path: Path) -> None:
    path = tflitefile.write(tmp_path / "net.tflite", ["FLOOR_MOD"])
    assert refused("--model", path, *QUICK, "--backend", "xnnpack") == (
        3,
        "tflite_runner: asked for xnnpack, but it did not execute: cpu FLOOR_MOD x 1",
    )
    done = ended("--model", path, *QUICK)
    assert CREATED in done.stderr  # so that announcement proves nothing
    assert tflite.TfLite().parse(done.stdout, model.Benchmark({}, {})).backend == "cpu"


def test_nodes_that_xnnpack_leaves_are_counted_as_such(tmp_path: Path) -> None:
    path = tflitefile.write(tmp_path / "net.tflite", ["ABS", "NEG", "FLOOR_MOD", "NEG", "ABS", "FLOOR_MOD"])
    found = run("--model", path, *QUICK, "--operators")
    assert found.backend == "xnnpack"
    assert by_key(found)["NET evidence"].text == "xnnpack ABS x 2, xnnpack NEG x 2, cpu FLOOR_MOD x 2"
    names = [series.type.split("_", 2)[2] for series in found.series if series.type.startswith("ID_")]
    assert names == ["Abs_NC", "Negate_NC", "FLOOR_MOD", "Negate_NC", "Abs_NC", "FLOOR_MOD"]


def test_the_built_in_kernels_are_asked_for_by_either_name(tmp_path: Path) -> None:
    path = tflitefile.write(tmp_path / "net.tflite", ["ABS"])
    found = [run("--model", path, *QUICK, *option) for option in (("--backend", "cpu"), ("--use_xnnpack=false",))]
    assert [output.backend for output in found] == ["cpu", "cpu"]
    assert run("--model", path, *QUICK, "--use_xnnpack=true").backend == "xnnpack"


@pytest.mark.parametrize("options", [tflite.OPTIONS["opengl"], tflite.OPTIONS["dsp"], "--use_nnapi=1"])
def test_a_delegate_that_is_not_here_is_an_error(squeezenet: Path, options: str) -> None:
    status, said = refused("--model", squeezenet, *options.split())
    option = options.partition("=")[0]
    assert (status, option in said) == (3, True)
    assert ended("--model", squeezenet, "--iterations=1", f"{option}=0").returncode == 0


# ---------------------------------------------------------------- inputs


def test_inputs_are_the_pictures_that_others_get_as_nchw(squeezenet: Path, tmp_path: Path) -> None:
    drawn = by_key(run("--model", squeezenet, *QUICK))
    given = by_key(run("--model", squeezenet, *QUICK, "--input-file", npy(generated(tmp_path, "squeezenet", "input-nhwc"))))
    other = by_key(run("--model", squeezenet, *QUICK, "--input-dims", "1,224,224,3", "--input-type", "float"))
    assert drawn["NET input_digest"].text == given["NET input_digest"].text == other["NET input_digest"].text
    assert drawn["NET output_digest"].text == given["NET output_digest"].text
    assert drawn["NET input_digest"].text == common.digest([common.seeded((1, 3, 224, 224), "float")])


def npy(path: Path) -> Path:
    return path.rename(path.with_suffix(".npy"))


def test_what_was_put_in_stays_through_all_runs(squeezenet: Path) -> None:
    found = [run("--model", squeezenet, "--iterations", count) for count in ("1", "5")]
    assert len({by_key(output)["NET output_digest"].text for output in found}) == 1


def test_the_options_of_benchmark_model_are_taken(squeezenet: Path) -> None:
    options = "--warmup_runs=1 --num_runs=3 --input_layer=data --input_layer_shape=1,64,64,3 --num_threads=2"
    found = by_key(run(f"--graph={squeezenet}", *options.split(), "--enable_op_profiling=true", "--min_secs=1", "--verbose=true"))
    assert len(found["NET latency"].values) == len(found["ID_0_Convolution_NHWC_F32_IGEMM latency"].values) == 3
    same = by_key(run("--model", squeezenet, *QUICK, "--input-dims", "1,64,64,3"))
    assert found["NET input_digest"].text == same["NET input_digest"].text


def test_fai_pep_s_command_runs(squeezenet: Path) -> None:
    place = base.Place("/", "/", "/", {"program": "PROGRAM"}, {"graph": str(squeezenet)})
    files = {"graph": {"filename": "x", "location": "//x"}}
    inputs = {"data": {"shapes": [[1, 224, 224, 3]], "type": "float"}}
    test = {"identifier": "i", "iter": 2, "warmup": 1, "inputs": inputs}
    (command,) = tflite.TfLite().commands(model.Benchmark({"files": files}, test), place)
    assert len(by_key(run(*command.split()[1:]))["NET latency"].values) == 2


@pytest.mark.parametrize(("kind", "operator"), [("INT8", "ABS"), ("UINT8", "RELU")])
def test_quantised_inputs_are_the_network_s_own(tmp_path: Path, kind: str, operator: str) -> None:
    path = tflitefile.write(tmp_path / "net.tflite", [operator], kind)
    found = by_key(run("--model", path, *QUICK, "--operators", "--output-directory", tmp_path))
    assert found["NET latency"].values
    assert np.load(tmp_path / "output.npy").dtype == np.dtype(kind.lower())


def test_inputs_go_by_their_names(tmp_path: Path) -> None:
    path = tflitefile.write(tmp_path / "net.tflite", ["ADD"], inputs=("a", "b"))
    shapes = ("--input_layer=b,a", "--input_layer_shape=2,8,8,3:1,8,8,3")
    run("--model", path, *QUICK, *shapes, "--operators", "--output-directory", tmp_path)
    assert np.load(tmp_path / "output.npy").shape == (2, 8, 8, 3)
    run("--model", path, *QUICK, "--input_layer=b", "--input_layer_shape=2,8,8,3", "--output-directory", tmp_path)
    assert np.load(tmp_path / "output.npy").shape == (2, 8, 8, 3)


# ---------------------------------------------------------------- what cannot be used


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--input_layer=x", "--input_layer_shape=1,2"), "--input_layer x: the network's inputs are data"),
        (("--input_layer_shape=1,2:3",), "--input_layer_shape 1,2:3: expected 1, separated by colons"),
        (("--input-dims", "1,8,8"), "the network takes no inputs of [1, 8, 8]"),
        (("--input-dims", "1,8,8,3;1,8,8,3"), "2 inputs are given; the network takes 1"),
        (("--input-type", "uint8"), "input data: uint8 is given; the network takes float32"),
        (("--output-directory", "/nowhere/at/all"), "--output-directory /nowhere/at/all"),
    ],
)
def test_what_cannot_be_used_is_named(squeezenet: Path, arguments: tuple[str, ...], said: str) -> None:
    status, last = refused("--model", squeezenet, *QUICK, *arguments)
    assert status == 2
    assert said in last


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    status, said = refused("--model", path)
    assert (status, "there is no such file" in said) == (2, True)
    path.write_bytes(b"no network")
    status, said = refused("--model", path)
    assert (status, "is no network of TensorFlow Lite" in said) == (2, True)


def test_an_option_that_nobody_knows_is_an_error(squeezenet: Path) -> None:
    done = ended("--model", squeezenet, "--input_layer_value_files=input:a.bin")
    assert done.returncode == 2
    assert "unrecognized arguments: --input_layer_value_files" in done.stderr


def test_operators_of_an_unknown_version_are_refused(squeezenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RUNNERS))
    import tflite_runner

    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9")
    with pytest.raises(tflite_runner.common.UnusableError, match=r"--operators: ai-edge-litert 9\.9 is installed"):
        tflite_runner.check_profiler()


def test_without_litert_the_runner_says_so(tmp_path: Path) -> None:
    (tmp_path / "ai_edge_litert.py").write_text("raise ImportError('not on this device')")
    done = ended("--model", "x", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "ai-edge-litert cannot be imported" in done.stderr
