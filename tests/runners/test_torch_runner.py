from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from aibenchd import model
from aibenchd.frameworks import base, pytorch

torch = pytest.importorskip("torch", reason="torch is not installed: pip install aibenchd[torch]")

from aibenchd.runners import torch_runner  # noqa: E402  it needs torch

HERE = Path(__file__).parent
LARGE = ("--input-dims", "1,3,96,96")
SMALL = ("--input-dims", "1,3,16,16")


@pytest.fixture(autouse=True)
def _engine_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def run(*arguments: str) -> base.Output:
    """The runner as a device runs it, read as the daemon reads it."""
    environment = {"PYTHONPATH": str(HERE), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", torch_runner.__file__, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    return pytorch.PyTorch().parse(done.stdout, model.Benchmark({}, {}))


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = torch_runner.main(list(arguments))
    said = capfd.readouterr().err
    assert (said.count("\n"), said.startswith("torch_runner: "), "Traceback" in said) == (1, True, False)
    return status, said


def by_key(output: base.Output) -> dict[str, model.Series]:
    return {series.key: series for series in output.series}


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network as TorchScript and as an exported program."""
    sys.path.insert(0, str(HERE))
    try:
        import engine
    finally:
        sys.path.remove(str(HERE))
    directory = tmp_path_factory.mktemp("networks")
    network, image = engine.Net().eval(), torch.zeros(1, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(str(directory / "net.pt"))
        torch.export.save(torch.export.export(network, (image,)), directory / "net.pt2")
    return directory


def test_a_network_of_a_function_with_its_operators() -> None:
    found = run("--module", "engine:net", *LARGE, "--warmup", "1", "--iterations", "3", "--operators", "--threads", "1")
    series = by_key(found)
    counts = {key: len(one.values) for key, one in series.items() if one.values}
    assert counts == {
        "NET load": 1,
        "NET first_run": 1,
        "NET latency": 3,
        "ID_0_conv2d latency": 3,
        "ID_1_relu latency": 3,
        "ID_2_mean latency": 3,
        "ID_3_linear latency": 3,
    }
    assert {one.unit for one in series.values() if one.values} == {"us"}
    assert all(value > 0 for one in series.values() for value in one.values)
    assert found.backend == "onednn"
    assert series["NET evidence"].text == "onednn convolution x 1, mkl SGEMM x 1"


def test_torchscript_and_export_compute_the_same(networks: Path) -> None:
    digests = set()
    for name in ("net.pt", "net.pt2"):
        series = by_key(run("--model", str(networks / name), *SMALL, "--iterations", "2", "--operators"))
        digests.add(series["NET output_digest"].text)
        assert {key for key in series if key.startswith("ID_")} == {
            "ID_0_conv2d latency",
            "ID_1_relu latency",
            "ID_2_mean latency",
            "ID_3_linear latency",
        }
    assert len(digests) == 1


def test_what_is_asked_for_is_what_executes() -> None:
    """oneDNN's own log names its primitives, and with oneDNN off MKL's own log names its routine in their place."""
    arguments = ("--module", "engine:net", *LARGE, "--iterations", "1")
    onednn, mkl = run(*arguments, "--backend", "onednn"), run(*arguments, "--backend", "mkl")
    assert (onednn.backend, mkl.backend) == ("onednn", "mkl")
    evidence = [by_key(output)["NET evidence"].text for output in (onednn, mkl)]
    assert evidence == ["onednn convolution x 1, mkl SGEMM x 1", "mkl SGEMM x 2"]


def test_nnpack_takes_a_batch_of_sixteen() -> None:
    if not torch.backends.nnpack.is_available():
        pytest.skip("NNPACK does not run on this processor")
    found = run("--module", "engine:net", "--input-dims", "16,3,32,32", "--iterations", "1", "--backend", "nnpack")
    assert found.backend == "nnpack"


def test_cuda_executes_on_the_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    found = run("--module", "engine:net", *LARGE, "--iterations", "2", "--backend", "cuda", "--operators")
    assert found.backend == "cuda"
    assert "cuda kernel" in by_key(found)["NET evidence"].text


# ---------------------------------------------------------------- what is refused; in this process, to be quick


@pytest.fixture
def _flags_kept() -> Iterator[None]:
    before = torch.backends.mkldnn.set_flags(True), torch.backends.nnpack.set_flags(True)
    yield
    torch.backends.mkldnn.set_flags(*before[0])
    torch.backends.nnpack.set_flags(*before[1])


@pytest.mark.usefixtures("_flags_kept")
@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("nnpack", "asked for nnpack, but it did not execute: mkl SGEMM x 2; torch takes it for float convolutions of a batch"),
        ("onednn", "asked for onednn, but it did not execute: mkl SGEMM x 2; torch takes it for convolutions that are large"),
    ],
)
def test_a_backend_that_did_not_execute_is_refused(capfd: pytest.CaptureFixture[str], backend: str, said: str) -> None:
    status, message = refused(capfd, "--module", "engine:net", *SMALL, "--iterations", "1", "--backend", backend)
    assert status == 3
    assert said in message


def test_a_backend_that_is_not_there_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch sees a CUDA device")
    status, said = refused(capfd, "--module", "engine:net", *SMALL, "--backend", "cuda")
    assert (status, "asked for cuda: torch" in said) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--model", "nowhere.pt", *SMALL), 2, "nowhere.pt: there is no such file"),
        (("--model", __file__, *SMALL), 2, "is not what torch.jit.save writes"),
        (("--module", "engine", *SMALL), 2, "expected MODULE:FACTORY"),
        (("--module", "nowhere:net", *SMALL), 2, "No module named 'nowhere'"),
        (("--module", "engine:nothing", *SMALL), 2, "has no attribute 'nothing'"),
        (("--module", "engine:number", *SMALL), 2, "returned int, expected torch.nn.Module"),
        (("--module", "engine:net", "--input-dims", "1,x"), 2, "'1,x' is no shape"),
        (("--module", "engine:net", "--input-dims", "1;0"), 2, "'0' is no shape"),
        (("--module", "engine:net", "--input-dims", "1;1", "--input-type", "float;int;int"), 2, "one for each of 2 inputs"),
        (("--module", "engine:net", *SMALL, "--input-type", "complex"), 2, "'complex' is none of float"),
        (("--module", "engine:net", "--input-dims", "1,4,9,9"), 1, "engine.py:"),
        (("--module", "engine:failing", *SMALL), 1, "engine.py:27: ValueError: no"),
        (("--module", "engine:unbuildable", *SMALL), 1, "RuntimeError: weights are missing"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(
    capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, said: str
) -> None:
    code, message = refused(capfd, *arguments)
    assert code == status
    assert said in message


def test_a_file_that_is_no_exported_program_says_so(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"PK\x03\x04 no")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        status, said = refused(capfd, "--model", str(tmp_path / "net.pt2"), *SMALL)
    assert (status, "net.pt2: is not what torch.export.save writes" in said) == (2, True)


@pytest.mark.parametrize("arguments", [(), ("--module", "engine:net"), ("--module", "a:b", *SMALL, "--iterations", "0")])
def test_arguments_that_are_none(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        torch_runner.main(list(arguments))
    assert caught.value.code == 2
    assert "usage: torch_runner" in capfd.readouterr().err


# ---------------------------------------------------------------- inputs


def test_inputs_depend_on_nothing_but_shape_type_and_place() -> None:
    """The generator is a contract: other runners draw the same numbers, so that backends can be compared."""
    (one,) = torch_runner.make_inputs("2,3", "float")
    stream = hashlib.shake_256(b"aibenchd 0 0 [2, 3] torch.float32").digest(12)
    expected = [int.from_bytes(stream[at : at + 2], "little", signed=True) / 32768 for at in range(0, 12, 2)]
    assert one.flatten().tolist() == expected
    assert one.shape == (2, 3)


@pytest.mark.parametrize("name", sorted(torch_runner.TYPES))
def test_each_type_has_its_range(name: str) -> None:
    first, second = torch_runner.make_inputs("5,100;5,100", name)
    assert first.dtype == second.dtype == torch_runner.TYPES[name]
    assert not torch.equal(first, second)
    low, high = (-1, 1) if first.is_floating_point() else (0, 1 if name == "bool" else 127)
    assert low <= first.min().item() < first.max().item() <= high


def test_each_input_may_have_a_type_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    assert torch_runner.main(["--module", "engine:two", "--input-dims", "2,3;1", "--input-type", "float;int64"]) == 0
    series = by_key(pytorch.PyTorch().parse(capfd.readouterr().out, model.Benchmark({}, {})))
    assert len(series["NET latency"].values) == 10
    assert all(map(math.isfinite, series["NET latency"].values))
    assert len(series["NET output_digest"].text) == 64


def test_the_digest_is_of_values_types_and_shapes() -> None:
    tensor = torch.arange(6, dtype=torch.float32)
    others = [tensor + 1, tensor.double(), tensor.reshape(2, 3), [tensor, tensor], torch.zeros(0)]
    assert torch_runner.digest(tensor.reshape(3, 2).t().contiguous()) == torch_runner.digest(tensor.reshape(3, 2).t())
    assert len({torch_runner.digest(one) for one in [tensor, *others]}) == 6
