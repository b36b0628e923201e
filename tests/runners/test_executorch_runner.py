"""The ExecuTorch runner, with real programs, in processes of an interpreter that has ExecuTorch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import executorchenv
import numpy as np
import pytest

import aibenchd.runners
from aibenchd import model
from aibenchd.frameworks import base, executorch

HERE = Path(__file__).parent
RUNNERS = Path(aibenchd.runners.__file__).parent
QUICK = ("--warmup", "0", "--iterations", "1")
IMAGE = ("--input-dims", "1,3,16,16")
LEFT = "xnnpack cumsum outside of the delegate x 2, xnnpack select_copy outside of the delegate x 2"


@pytest.fixture(scope="module")
def python() -> Path:
    return executorchenv.interpreter()


@pytest.fixture(scope="module")
def programs(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network lowered to XNNPACK and to nothing, one of several inputs and outputs, and files that are no good."""
    directory = tmp_path_factory.mktemp("programs")
    subprocess.run([python, HERE / "executorch_engine.py", directory], capture_output=True, check=True, timeout=300)
    return directory


def started(python: Path, *arguments: str | Path, runner: str = "executorch_runner", **variables: str) -> tuple[int, str, str]:
    environment = {
        "PYTHONPATH": str(HERE),
        "PATH": os.environ["PATH"],
        "OMP_NUM_THREADS": "1",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
    }
    command = [python, RUNNERS / f"{runner}.py", *arguments]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout, done.stderr


def run(python: Path, *arguments: str | Path, runner: str = "executorch_runner") -> base.Output:
    status, out, err = started(python, *arguments, runner=runner)
    assert status == 0, err
    return executorch.ExecuTorch().parse(out, model.Benchmark({}, {}))


def refused(python: Path, *arguments: str | Path, **variables: str) -> tuple[int, str]:
    status, _, err = started(python, *arguments, **variables)
    last = err.splitlines()[-1]
    assert (last.startswith("executorch_runner: "), "Traceback" in err) == (True, False)
    return status, last


def by_key(output: base.Output) -> dict[str, model.Series]:
    return {series.key: series for series in output.series}


# ---------------------------------------------------------------- programs


def test_xnnpack_executes_what_was_lowered_to_it_and_what_was_left_is_told(python: Path, programs: Path) -> None:
    arguments = ("--model", programs / "xnnpack.pte", "--iterations", "3", "--backend", "xnnpack", "--operators")
    found = run(python, *arguments)
    series = by_key(found)
    assert found.backend == "xnnpack"
    (convolution, product) = ("xnnpack Convolution (NHWC, F32) IGEMM x 1", "xnnpack Fully Connected (NC, F32) GEMM x 1")
    evidence = series["NET evidence"].text
    assert (convolution in evidence, product in evidence, evidence.endswith(LEFT)) == (True, True, True)
    operators = [key.split(" ")[0].split("_", 2)[2] for key in series if key.startswith("ID_")]
    assert [name for name in operators if name in ("Convolution_NHWC_F32_IGEMM", "cumsum", "Fully_Connected_NC_F32_GEMM")] == [
        "Convolution_NHWC_F32_IGEMM",
        "cumsum",
        "cumsum",
        "Fully_Connected_NC_F32_GEMM",
    ]
    assert {len(one.values) for key, one in series.items() if key.startswith("ID_")} == {3}
    assert [len(series[f"NET {metric}"].values) for metric in ("load", "first_run", "cold_start", "latency")] == [1, 1, 1, 3]


def test_the_own_kernels_execute_what_was_lowered_to_nothing(python: Path, programs: Path) -> None:
    found = run(python, "--model", programs / "cpu.pte", *QUICK, "--operators", *IMAGE, "--threads", "2")
    series = by_key(found)
    assert found.backend == "cpu"
    assert series["NET evidence"].text.startswith("cpu addmm x 1, cpu convolution x 1, cpu cumsum x 2, ")
    assert [key for key in series if key.startswith("ID_")][:2] == ["ID_0_convolution latency", "ID_1_relu latency"]
    assert all(value > 0 for key, one in series.items() if key.startswith("ID_") for value in one.values)


@pytest.mark.parametrize(
    ("name", "backend", "said"),
    [
        ("cpu", "xnnpack", "cpu cumsum x 2"),
        ("cpu", "xnnpack", "; a program must be lowered to it when it is exported, by XnnpackPartitioner"),
        ("xnnpack", "cpu", LEFT + "; the program was lowered to a delegate: export it without a partitioner"),
    ],
)
def test_a_backend_that_did_not_execute_is_refused(python: Path, programs: Path, name: str, backend: str, said: str) -> None:
    status, message = refused(python, "--model", programs / f"{name}.pte", *QUICK, "--backend", backend)
    assert (status, f"asked for {backend}, but it did not execute" in message, said in message) == (3, True, True)


def test_inputs_are_the_program_s_own_and_outputs_are_written(python: Path, programs: Path, tmp_path: Path) -> None:
    found = by_key(run(python, "--model", programs / "several.pte", *QUICK, "--output-directory", tmp_path))
    given = run(python, "--model", programs / "several.pte", *QUICK, "--input-dims", "2,3;1", "--input-type", "float;int64")
    for key in ("NET input_digest", "NET output_digest"):
        assert found[key].text == by_key(given)[key].text
    sums, index = np.load(tmp_path / "0.npy"), np.load(tmp_path / "1.npy")
    assert (sums.dtype, sums.shape, index.dtype, index.shape) == (np.float32, (2, 3), np.int64, (1,))


def test_inputs_from_files(python: Path, programs: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    np.save(tmp_path / "b.npy", np.array([41]))
    files = ("--input-file", f"{tmp_path}/a.npy;{tmp_path}/b.npy")
    run(python, "--model", programs / "several.pte", *QUICK, *files, "--output-directory", tmp_path)
    assert np.load(tmp_path / "0.npy").tolist() == [[0, 1, 3], [3, 7, 12]]
    assert np.load(tmp_path / "1.npy").tolist() == [42]


# ---------------------------------------------------------------- networks of a repository


def test_a_network_is_exported_and_computes_what_torch_computes(python: Path, tmp_path: Path) -> None:
    """With the weights and inputs that the runner of PyTorch gives it, on either backend."""
    outputs, digests = [], set()
    for runner, backend in (("torch_runner", "mkl"), ("executorch_runner", "cpu"), ("executorch_runner", "xnnpack")):
        module = ("--module", "executorch_engine:net", *IMAGE, "--backend", backend, "--output-directory", tmp_path)
        found = run(python, *module, *QUICK, runner=runner)
        digests.add(by_key(found)["NET input_digest"].text)
        outputs.append(np.load(tmp_path / "output.npy"))
        assert found.backend == backend
    assert len(digests) == 1
    assert outputs[0].shape == (1, 10)
    for other in outputs[1:]:
        np.testing.assert_allclose(other, outputs[0], rtol=1e-3, atol=1e-4)


def test_nothing_is_left_where_programs_are_exported(python: Path, tmp_path: Path) -> None:
    module = ("--module", "executorch_engine:several", "--input-dims", "2,3;1", "--input-type", "float;int64")
    status, out, err = started(python, *module, *QUICK, "--backend", "xnnpack", TMPDIR=str(tmp_path))
    last = err.splitlines()[-1]
    assert status == 3, (out, err)
    assert "asked for xnnpack, but it did not execute: cpu add x 1, cpu cumsum x 1" in last
    assert list(tmp_path.glob("executorch-*")) == []


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--model", "nowhere.pte"), 2, "nowhere.pte: there is no such file"),
        (("--model", __file__), 2, "test_executorch_runner.py: is no program of ExecuTorch"),
        (("--model", "torn.pte"), 2, "torn.pte: is no program of ExecuTorch"),
        (("--model", "foreign.pte"), 3, "foreign.pte: is lowered to AnotherBackend, which ExecuTorch lacks here; it has "),
        (("--model", "cpu.pte", "--input-dims", "1,3,8,8"), 2, "takes no inputs of torch.float32 [1, 3, 8, 8], but as follows"),
        (("--model", "cpu.pte", *IMAGE, "--input-type", "int64"), 2, "sizes=[1, 3, 16, 16], dtype=Float"),
        (("--model", "several.pte", *IMAGE), 2, "num_inputs=2"),
        (("--module", "executorch_engine:net"), 2, "expected --input-dims, or --input-file"),
        (("--module", "executorch_engine", *IMAGE), 2, "expected MODULE:FACTORY"),
        (("--module", "executorch_engine:unexportable", *IMAGE), 1, "the network failed"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(
    python: Path, programs: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    placed = [str(programs / word) if word.endswith(".pte") and word != "nowhere.pte" else word for word in arguments]
    code, message = refused(python, *placed)
    assert code == status, message
    assert said in message


def test_without_executorch_it_says_so(python: Path, tmp_path: Path) -> None:
    (tmp_path / "executorch").mkdir()
    (tmp_path / "executorch/__init__.py").write_text("raise ImportError('a library is missing')\n")
    status, message = refused(python, "--model", "x.pte", PYTHONPATH=str(tmp_path))
    assert (status, message) == (2, "executorch_runner: executorch cannot be imported: a library is missing")
