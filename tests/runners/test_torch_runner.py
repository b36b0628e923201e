"""The PyTorch runner, with real networks. What only its own process can show runs in one; all else in this, to be quick."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import aibenchd.runners
from aibenchd import model
from aibenchd.frameworks import base, pytorch
from aibenchd.measure import profiles

torch = pytest.importorskip("torch", reason="torch is not installed: pip install aibenchd[torch]")

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, of what it will lose

HERE = Path(__file__).parent
RUNNERS = Path(aibenchd.runners.__file__).parent
LARGE = ("--input-dims", "1,3,96,96")
SMALL = ("--input-dims", "1,3,16,16")
QUICK = ("--warmup", "0", "--iterations", "1")
OPERATORS = ["ID_0_conv2d latency", "ID_1_relu latency", "ID_2_mean latency", "ID_3_linear latency"]


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    """As a device has it: beside ``common.py``, and in no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RUNNERS))
        return importlib.import_module("torch_runner")


@pytest.fixture(autouse=True)
def _engine_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture(autouse=True)
def _flags_kept() -> Iterator[None]:
    before = torch.backends.mkldnn.set_flags(True), torch.backends.nnpack.set_flags(True)
    yield
    torch.backends.mkldnn.set_flags(*before[0])
    torch.backends.nnpack.set_flags(*before[1])


def read(output: str) -> base.Output:
    return pytorch.PyTorch().parse(output, model.Benchmark({}, {}))


def by_key(output: base.Output) -> dict[str, model.Series]:
    return {series.key: series for series in output.series}


def run(*arguments: str, **variables: str) -> base.Output:
    """The runner as a device runs it, read as the daemon reads it."""
    environment = {"PYTHONPATH": str(HERE), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(RUNNERS / "torch_runner.py"), *arguments]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return read(done.stdout)


class Here:
    """The runner in this process."""

    def __init__(self, runner: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
        self._runner, self._capfd = runner, capfd

    def measured(self, *arguments: str) -> dict[str, model.Series]:
        status = self._runner.main([*arguments, *QUICK])
        out, err = self._capfd.readouterr()
        assert (status, err) == (0, "")
        return by_key(read(out))

    def refused(self, *arguments: str) -> tuple[int, str]:
        status = self._runner.main(list(arguments))
        said = self._capfd.readouterr().err
        assert (said.count("\n"), said.startswith("torch_runner: "), "Traceback" in said) == (1, True, False)
        return status, said


@pytest.fixture
def here(runner: ModuleType, capfd: pytest.CaptureFixture[str]) -> Here:
    return Here(runner, capfd)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network as TorchScript, with inputs of its own too, and as an exported program."""
    spec = importlib.util.spec_from_file_location("engine", HERE / "engine.py")
    assert spec is not None
    assert spec.loader is not None
    engine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(engine)
    directory = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    network, image = engine.Net().eval(), torch.zeros(1, 3, 16, 16)
    scripted = torch.jit.script(network)
    scripted.save(directory / "net.pt")
    torch.export.save(torch.export.export(network, (image,)), directory / "net.pt2")
    bundled_inputs = importlib.import_module("torch.utils.bundled_inputs")
    bundled_inputs.augment_model_with_bundled_inputs(scripted, [(image,), (image + 1,)])
    scripted.save(directory / "bundled.pt")
    return directory


# ---------------------------------------------------------------- networks


def test_a_network_of_a_function_with_its_operators() -> None:
    found = run("--module", "engine:net", *LARGE, "--warmup", "1", "--iterations", "3", "--operators", "--threads", "1")
    series = by_key(found)
    counts = {key: len(one.values) for key, one in series.items() if one.values}
    once = ["NET load", "NET first_run", "NET cold_start", "NET peak_memory"]
    assert counts == dict.fromkeys(once, 1) | dict.fromkeys(["NET latency", *OPERATORS], 3)
    assert {one.unit for one in series.values() if one.values} == {"us", "B"}
    assert all(value > 0 for one in series.values() for value in one.values)
    assert found.backend == "onednn"
    assert series["NET evidence"].text == "onednn convolution x 1, mkl SGEMM x 1, cpu operator x 4"


def test_a_profile_is_left_where_one_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "profile"
    arguments = ("--module", "engine:net", *LARGE, "--iterations", "4")
    assert "latency" in {series.metric for series in run(*arguments, AIBENCHD_PROFILE=str(file)).series}
    profiles.keep(file, model.Profiler.OWN)
    found = profiles.of_trace(file.with_name("profile.json.gz"))
    assert found.runs == 4
    assert found.own["aten::mkldnn_convolution"] > 0
    assert not any(name.startswith("ProfilerStep") for name in found.own)


def test_torchscript_and_export_compute_the_same(here: Here, networks: Path) -> None:
    found = [here.measured("--model", str(networks / name), *SMALL, "--operators") for name in ("net.pt", "net.pt2")]
    assert [[key for key in series if key.startswith("ID_")] for series in found] == [OPERATORS] * 2
    assert len({series["NET output_digest"].text for series in found}) == 1


def test_several_inputs_of_several_types(here: Here, tmp_path: Path) -> None:
    arguments = ("--module", "engine:two", "--input-dims", "2,3;1", "--input-type", "float;int64")
    here.measured(*arguments, "--output-directory", str(tmp_path))
    total, index = np.load(tmp_path / "sum.npy"), np.load(tmp_path / "index.npy")
    assert (total.dtype, total.shape, index.dtype, index.shape) == (np.float32, (2, 3), np.int64, (1,))
    assert (np.abs(total - index) <= 1).all()


def test_outputs_of_any_kind_are_written(here: Here, tmp_path: Path) -> None:
    np.save(tmp_path / "given.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    files = ("--input-file", str(tmp_path / "given.npy"), "--output-directory", str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    here.measured("--module", "engine:nested", *files)
    out = {path.stem: np.load(path) for path in (tmp_path / "out").iterdir()}
    given = [[0, 1, 2], [3, 4, 5]]
    expected = {"0": given, "1.0.bf_16": given, "1.0.sparse": given, "1.0.turned": [[0, 3], [1, 4], [2, 5]], "1.1.0": given}
    assert {name: array.tolist() for name, array in out.items()} == expected | {"1.1.1": 7}
    assert out["1.0.bf_16"].dtype == np.float32


def test_equal_inputs_give_an_equal_digest_wherever_they_come_from(here: Here, networks: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "ones.npy", np.ones((1, 3, 16, 16), np.float32))
    own = here.measured("--model", str(networks / "bundled.pt"), "--use_bundled_input=1")
    file = here.measured("--model", str(networks / "net.pt"), "--input-file", str(tmp_path / "ones.npy"))
    for key in ("NET input_digest", "NET output_digest"):
        assert own[key].text == file[key].text


def test_a_network_may_take_nothing(here: Here) -> None:
    series = here.measured("--module", "engine:constant", "--no_inputs", "true")
    assert len(series["NET latency"].values) == 1


def test_memory_formats_change_no_digest(here: Here, networks: Path) -> None:
    arguments = ("--model", str(networks / "net.pt"), *SMALL)
    plain, last = (here.measured(*arguments, *more) for more in ((), ("--input_memory_format", "channels_last")))
    assert plain["NET input_digest"].text == last["NET input_digest"].text


def test_the_command_line_of_speed_benchmark_torch(runner: ModuleType, capfd: pytest.CaptureFixture[str], networks: Path) -> None:
    """As FAI-PEP's specifications write it."""
    counts = ["--warmup", "0", "--iter=3", "--pthreadpool_size", str(torch.get_num_threads())]
    harmless = ["--report_pep", "true", "--vulkan=false", "--pytext_len", "0"]
    inputs = ["--input_dims", "1,3,16,16", "--input_type=float"]
    assert runner.main(["--model", str(networks / "net.pt"), *inputs, *counts, *harmless]) == 0
    assert len(by_key(read(capfd.readouterr().out))["NET latency"].values) == 3


def test_the_networks_own_modules_may_be_called_as_the_runners(tmp_path: Path) -> None:
    (tmp_path / "common.py").write_text("import torch\n\n\ndef network():\n    return torch.nn.Linear(3, 3)\n")
    (tmp_path / "own.py").write_text("from common import network\n")
    assert run("--module", "own:network", "--input-dims", "1,3", *QUICK, PYTHONPATH=str(tmp_path)).backend == "mkl"


# ---------------------------------------------------------------- torch.compile


def test_what_is_compiled_and_what_not_is_told() -> None:
    """In one process, for it takes seconds: two graphs, what stays between them, and kernels among the operators."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed, which torch.compile needs")
    series = by_key(run("--module", "engine:breaking", *LARGE, *QUICK, "--compile", "--operators"))
    *_, cpu = series["NET evidence"].text.split(", cpu ", 1)
    assert cpu == "compiled graph x 2, cpu graph break x 1, cpu operator outside of compiled graphs x 1"
    operators = [key.split(" ")[0].split("_", 2)[2] for key in series if key.startswith("ID_")]
    assert operators[:2] == ["cpp_fused_relu_0", "conv2d"]
    assert operators[2].startswith("cpp_fused_")
    assert series["NET first_run"].values > series["NET latency"].values


def test_where_nothing_is_compiled_it_is_not_taken_for_compiled(here: Here) -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed, which torch.compile needs")
    status, said = here.refused("--module", "engine:uncompiled", *SMALL, "--compile", *QUICK)
    assert (status, "asked for --compile, but nothing was compiled" in said) == (3, True)


def test_compiling_needs_a_compiler(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    status, said = here.refused("--module", "engine:net", *SMALL, "--compile")
    assert (status, "--compile: needs a C++ compiler, and no-such-compiler is not on PATH; install g++" in said) == (2, True)


def test_torchscript_is_not_compiled(here: Here, networks: Path) -> None:
    status, said = here.refused("--model", str(networks / "net.pt"), *SMALL, "--compile")
    assert (status, "torch compiles no TorchScript; expected --module" in said) == (2, True)


# ---------------------------------------------------------------- backends


def test_what_is_asked_for_is_what_executes() -> None:
    """oneDNN's own log names its primitives, and with oneDNN off MKL's own log names its routine in their place."""
    arguments = ("--module", "engine:net", *LARGE, *QUICK)
    onednn, mkl = run(*arguments, "--backend", "onednn"), run(*arguments, "--backend", "mkl")
    assert (onednn.backend, mkl.backend) == ("onednn", "mkl")
    evidence = [by_key(output)["NET evidence"].text for output in (onednn, mkl)]
    assert evidence == ["onednn convolution x 1, mkl SGEMM x 1, cpu operator x 4", "mkl SGEMM x 2, cpu operator x 4"]


def test_nnpack_takes_a_batch_of_sixteen() -> None:
    if not torch.backends.nnpack.is_available():
        pytest.skip("NNPACK does not run on this processor")
    found = run("--module", "engine:net", "--input-dims", "16,3,32,32", *QUICK, "--backend", "nnpack")
    assert found.backend == "nnpack"


def test_the_processor_is_enough_where_only_it_is_asked_for(here: Here) -> None:
    series = here.measured("--module", "engine:net", *SMALL, "--backend", "cpu")
    assert series["NET evidence"].text == "mkl SGEMM x 2, cpu operator x 4"


def test_cuda_executes_on_the_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    found = run("--module", "engine:net", *LARGE, "--iterations", "2", "--backend", "cuda", "--operators")
    assert found.backend == "cuda"
    assert f"cuda kernel on {torch.cuda.get_device_name(0)}" in by_key(found)["NET evidence"].text


def test_each_of_several_gpus_is_a_device() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("torch sees fewer than two CUDA devices")
    arguments = ("--module", "engine:net", *LARGE, *QUICK, "--backend", "cuda")
    found = [by_key(run(*arguments, CUDA_VISIBLE_DEVICES=number))["NET evidence"].text for number in "01"]
    for number, evidence in enumerate(found):
        assert str(torch.cuda.get_device_properties(number).uuid) in evidence


def test_a_network_that_goes_to_the_gpu_by_itself_is_not_the_processors(
    runner: ModuleType, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "on_gpu", lambda _: ["kernel on a GPU"])
    status, said = here.refused("--module", "engine:net", *SMALL, *QUICK, "--backend", "cpu")
    assert (status, "asked for cpu, but it did not execute: cuda kernel on a GPU x 1" in said) == (3, True)


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("nnpack", "did not execute: mkl SGEMM x 2, cpu operator x 4; torch takes it for float convolutions of a batch"),
        ("onednn", "did not execute: mkl SGEMM x 2, cpu operator x 4; torch takes it for convolutions that are large"),
    ],
)
def test_a_backend_that_did_not_execute_is_refused(here: Here, backend: str, said: str) -> None:
    status, message = here.refused("--module", "engine:net", *SMALL, *QUICK, "--backend", backend)
    assert status == 3
    assert f"asked for {backend}, but it {said}" in message


def test_a_backend_that_is_not_there_is_refused(here: Here) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch sees a CUDA device")
    status, said = here.refused("--module", "engine:net", *SMALL, "--backend", "cuda")
    assert (status, "asked for cuda: torch" in said) == (3, True)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--model", "nowhere.pt", *SMALL), 2, "nowhere.pt: there is no such file"),
        (("--model", __file__, *SMALL), 2, "is not what torch.jit.save writes"),
        (("--module", "engine", *SMALL), 2, "expected MODULE:FACTORY"),
        (("--module", "nowhere:net", *SMALL), 2, "No module named 'nowhere'"),
        (("--module", "engine:nothing", *SMALL), 2, "has no attribute 'nothing'"),
        (("--module", "engine:number", *SMALL), 2, "returned int, expected torch.nn.Module"),
        (("--module", "engine:net"), 2, "expected --input-dims, or --input-file"),
        (("--module", "engine:net", *SMALL, "--use_bundled_input", "0"), 2, "expected --model, a TorchScript file"),
        (("--module", "engine:net", *SMALL, "--input_memory_format", "nhwc"), 2, "once or for each of 1 inputs"),
        (("--module", "engine:net", "--input-dims", "3,4", "--input_memory_format", "channels_last"), 2, "float32 [3, 4] in"),
        (("--module", "engine:net", "--input-dims", "1,4,9,9"), 1, "engine.py:"),
        (("--module", "engine:failing", *SMALL), 1, "ValueError: no"),
        (("--module", "engine:unbuildable", *SMALL), 1, "RuntimeError: weights are missing"),
        (("--module", "engine:net", *SMALL, *QUICK, "--output-directory", "nowhere"), 2, "--output-directory nowhere: "),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(here: Here, arguments: tuple[str, ...], status: int, said: str) -> None:
    code, message = here.refused(*arguments)
    assert code == status
    assert said in message


def test_files_that_are_not_what_they_should_be(here: Here, networks: Path, tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"PK\x03\x04 no")
    np.save(tmp_path / "words.npy", np.array(["one"]))
    net, bundled, words = str(networks / "net.pt"), str(networks / "bundled.pt"), str(tmp_path / "words.npy")
    found = [
        here.refused("--model", str(tmp_path / "net.pt2"), *SMALL),
        here.refused("--model", net, "--input-file", words),
        here.refused("--model", net, "--use_bundled_input", "0"),
        here.refused("--model", bundled, "--use_bundled_input", "2"),
    ]
    assert {status for status, _ in found} == {2}
    expected = (
        "is not what torch.export.save writes",
        "<U3 [1] in contiguous_format",
        "has no bundled inputs",
        "bundled.pt has 2",
    )
    assert [text for text, (_, said) in zip(expected, found, strict=True) if text not in said] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "one of the arguments --model --module is required"),
        (("--module", "a:b", *SMALL, "--iterations", "0"), "must be 1 or more"),
        (("--module", "a:b", *SMALL, "--vulkan"), "--vulkan: cannot be true: torch for Python has no Vulkan"),
        (("--module", "a:b", *SMALL, "--use_caching_allocator", "true"), "--use_caching_allocator: cannot be true"),
        (("--module", "a:b", *SMALL, "--pytext_len", "7"), "--pytext_len: cannot be 7: the length is one more input"),
        (("--module", "a:b", *SMALL, "--no_inputs", "maybe"), "expected true or false, not 'maybe'"),
        (("--module", "a:b", *SMALL, "--backend", "eigen"), "invalid choice: 'eigen'"),
    ],
)
def test_arguments_that_are_none(
    runner: ModuleType, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        runner.main(list(arguments))
    assert caught.value.code == 2
    shown = capfd.readouterr().err
    assert "usage: torch_runner" in shown
    assert said in shown


def test_without_torch_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch is missing')\n")
    command = [sys.executable, str(RUNNERS / "torch_runner.py"), "--module", "a:b"]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "torch_runner: torch cannot be imported: libtorch is missing\n")
