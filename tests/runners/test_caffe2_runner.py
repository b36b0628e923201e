from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aibenchd import model
from aibenchd.frameworks import base, caffe2
from aibenchd.runners import caffe2_runner, common

HERE = Path(__file__).parent
SPECIFICATIONS = HERE.parents[1] / "specifications"
GENERATOR = SPECIFICATIONS / "generators/networks.py"
NOTHING = model.Benchmark({}, {})
SMALL = ("--input", "data", "--input_dims", "2,3,16,16")
SHAPES = {"squeezenet": "1,3,224,224", "shufflenet": "1,3,224,224", "transformer": "1,64,256"}

Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def nets(caffe2_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nets")
    subprocess.run([caffe2_python, HERE / "caffe2_nets.py", directory], capture_output=True, check=True)
    return directory


@pytest.fixture(scope="session")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The networks that are delivered, as ``<name>_predict.pb`` and ``<name>_init.pb``."""
    directory = tmp_path_factory.mktemp("delivered")
    for name in SHAPES:
        for kind in ("predict", "init"):
            command = [sys.executable, GENERATOR, name, f"caffe2-{kind}", directory / f"{name}_{kind}.pb"]
            subprocess.run(command, check=True)
    return directory


@pytest.fixture
def run(caffe2_python: Path, nets: Path) -> Runner:
    """The runner as a device runs it: by Caffe2's own interpreter, on one of the networks above."""

    def runner(name: str, *arguments: str, directory: Path = nets) -> subprocess.CompletedProcess[str]:
        files = ("--net", str(directory / f"{name}_predict.pb"), "--init_net", str(directory / f"{name}_init.pb"))
        command = [caffe2_python, "-B", caffe2_runner.__file__, *files, "--iter", "2", *arguments]
        environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    return runner


def read(done: subprocess.CompletedProcess[str]) -> base.Output:
    assert (done.returncode, done.stderr) == (0, "")
    return caffe2.Caffe2().parse(done.stdout, NOTHING)


def by_key(output: base.Output) -> dict[str, model.Series]:
    return {series.key: series for series in output.series}


def refused(done: subprocess.CompletedProcess[str], status: int) -> str:
    assert (done.returncode, done.stderr.count("\n"), "Traceback" in done.stderr) == (status, 1, False), done.stderr
    assert done.stderr.startswith("caffe2_runner: ")
    return done.stderr


# ---------------------------------------------------------------- backends


@pytest.mark.parametrize(
    ("backend", "evidence"),
    [
        ("", "mkl SGEMM x 18, mkl SGEMM_BATCH x 34, cpu operator x 66"),
        ("cpu", "mkl SGEMM x 18, mkl SGEMM_BATCH x 34, cpu operator x 66"),
        ("mkl", "mkl SGEMM x 18, mkl SGEMM_BATCH x 34, cpu operator x 66"),
        ("eigen", "eigen Conv x 26, cpu operator x 66"),
        ("nnpack", "nnpack Conv x 26, cpu operator x 66"),
        ("onednn", "onednn convolution x 26, onednn eltwise x 26, onednn pooling x 4"),
    ],
)
def test_squeezenet_is_computed_by_what_is_asked_for(
    run: Runner, delivered: Path, tmp_path: Path, backend: str, evidence: str
) -> None:
    """Each library says itself what it computed, and the numbers are those that they should be."""
    found = read(run("squeezenet", *_of("squeezenet", backend, tmp_path), "--run_individual", "true", directory=delivered))
    series = by_key(found)
    assert found.backend == (backend or "mkl")
    assert series["NET evidence"].text == evidence
    _agrees(tmp_path, "squeezenet")
    assert [len(series[f"NET {metric}"].values) for metric in ("load", "first_run", "cold_start", "latency")] == [1, 1, 1, 2]
    operators = [one for one in found.series if one.type.startswith("ID_")]
    assert [one.type for one in operators[:4]] == ["ID_0_Conv", "ID_1_Relu", "ID_2_MaxPool", "ID_3_Conv"]
    assert (len(operators), {len(one.values) for one in operators}, {one.unit for one in operators}) == (66, {2}, {"us"})


@pytest.mark.parametrize(
    ("network", "backend", "evidence"),
    [
        ("shufflenet", "eigen", "eigen Conv x 2, mkl SGEMM x 18, mkl SGEMM_BATCH x 78"),
        ("shufflenet", "nnpack", "nnpack Conv x 2255, mkl SGEMM x 2"),
        ("shufflenet", "onednn", "onednn concat x 1, onednn convolution x 49"),
        ("transformer", "mkl", "mkl SGEMM x 50"),
        ("transformer", "onednn", "onednn inner_product x 1, onednn sum x 8, mkl SGEMM x 48"),
    ],
)
def test_what_a_backend_does_not_have_is_computed_elsewhere_and_shows(
    run: Runner, delivered: Path, tmp_path: Path, network: str, backend: str, evidence: str
) -> None:
    """Eigen refuses groups; oneDNN has no Gelu, and no product of more than two dimensions, so there are copies around."""
    found = read(run(network, *_of(network, backend, tmp_path), directory=delivered))
    assert found.backend == backend
    assert by_key(found)["NET evidence"].text.startswith(evidence)
    _agrees(tmp_path, network)


def test_copies_are_operators_too(run: Runner, delivered: Path, tmp_path: Path) -> None:
    done = run("transformer", *_of("transformer", "onednn", tmp_path), "--run_individual", "true", directory=delivered)
    kinds = [one.type.partition("_")[2].partition("_")[2] for one in read(done).series if one.type.startswith("ID_")]
    assert kinds[:4] == ["LayerNorm", "FC", "CopyCPUToIDEEP", "Reshape"]
    assert {"Gelu", "CopyIDEEPToCPU"} <= set(kinds)


def _of(network: str, backend: str, directory: Path) -> tuple[str, ...]:
    inputs = ("--input", "data", "--input_dims", SHAPES[network])
    return (*inputs, "--backend", backend, "--output_folder", str(directory))


def _agrees(directory: Path, network: str) -> None:
    golden = np.load(GENERATOR.parent / f"golden/{network}.npy")
    np.testing.assert_allclose(np.load(directory / "output.npy"), golden, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("network", "arguments", "said"),
    [
        ("padded", (*SMALL, "--backend", "nnpack"), "asked for nnpack, but it did not execute: mkl SGEMM x"),
        ("padded", (*SMALL, "--backend", "nnpack"), "; Conv: NNPACK only supports pad < kernel size"),
        ("grouped", (*SMALL, "--backend", "eigen"), "; Conv: Group convolution not supported yet"),
        ("relu", (*SMALL, "--backend", "eigen"), "asked for eigen: Caffe2 has no engine EIGEN for any of Relu"),
        ("relu", (*SMALL, "--backend=nnpack"), "asked for nnpack: Caffe2 has no engine NNPACK for any of Relu"),
        ("relu", (*SMALL, "--backend", "mkl"), "asked for mkl, but it did not execute: cpu operator x 1"),
        ("gelu", (*SMALL, "--backend", "onednn"), "asked for onednn, but it did not execute: cpu operator x 1"),
        ("small", (*SMALL, "--backend", "cuda"), "asked for cuda: this runner computes on CPUs alone"),
    ],
)
def test_what_silently_falls_back_is_refused(run: Runner, network: str, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(run(network, *arguments), common.OTHER_BACKEND)


def test_an_engine_that_caffe2_does_not_know_is_not_believed(run: Runner) -> None:
    """The network names MKLDNN, which caffe2_benchmark's own backend mkl does too: Caffe2 ignores it."""
    assert read(run("unknown_engine", *SMALL)).backend == "mkl"


# ---------------------------------------------------------------- inputs and outputs


def test_inputs_of_several_types(run: Runner, tmp_path: Path) -> None:
    inputs = ("--input", "data,bytes", "--input_dims", "2,3;2,3", "--input_type", "float;uint8_t")
    results = {}
    for backend in ("cpu", "onednn"):
        found = by_key(read(run("two", *inputs, "--backend", backend, "--output", "*", "--output_folder", str(tmp_path))))
        results[backend] = [found[f"NET {kind}_digest"].text for kind in ("input", "output")]
    assert results["cpu"] == results["onednn"]
    data, numbers = common.seeded((2, 3), "float"), common.seeded((2, 3), "uint8_t", 1)
    assert results["cpu"][0] == common.digest([data, numbers])
    np.testing.assert_array_equal(np.load(tmp_path / "sum.npy"), data + numbers)
    np.testing.assert_array_equal(np.load(tmp_path / "numbers.npy"), numbers.astype(np.float32))


def test_a_file_s_tensors_are_batches_whose_outputs_follow_each_other(run: Runner, nets: Path, tmp_path: Path) -> None:
    """As accuracy is measured: one text, of one row of sizes and one of values, for all batches."""
    text = ("--text_output", "true", "--output", "out/probabilities", "--output_folder", str(tmp_path))
    found = {}
    for name in ("one.npy", "one.pb", "three.pb"):
        read(run("small", "--input", "data", "--input_file", str(nets / name), "--input_type", "float", *text))
        sizes, values = (tmp_path / "out_probabilities.txt").read_text().splitlines()
        found[name] = np.array([float(value) for value in values.split(",")]).reshape([int(size) for size in sizes.split(", ")])
    assert found["three.pb"].shape == (6, 10)
    np.testing.assert_array_equal(found["one.pb"], found["one.npy"])
    np.testing.assert_array_equal(found["three.pb"][:2], found["one.pb"])
    np.testing.assert_allclose(found["three.pb"].sum(axis=1), 1, rtol=1e-6)


def test_a_network_of_the_old_kind(run: Runner, tmp_path: Path) -> None:
    """Without a name, without outputs, and of a net type that runs operators in parallel."""
    found = read(run("nameless", *SMALL, "--run_individual", "--output_folder", str(tmp_path), "--threads", "1"))
    assert [one.type for one in found.series if one.type.startswith("ID_")] == [
        "ID_0_Conv",
        "ID_1_Relu",
        "ID_2_AveragePool",
        "ID_3_FC",
        "ID_4_Softmax",
    ]
    assert np.load(tmp_path / "out_probabilities.npy").shape == (2, 10)


# ---------------------------------------------------------------- what cannot be used


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--input", "data"), "expected --input-dims, or --input-file"),
        (("--input", "image", "--input_dims", "2,3,16,16"), "small_predict.pb takes data"),
        (("--input", "data,c", "--input_dims", "2,3,16,16;1"), "small_predict.pb takes data"),
        (("--input", "data,more", "--input_dims", "2,3,16,16"), "--input data,more: 2 names for 1 inputs"),
        (("--input", "data", "--input_dims", "2,x"), "'2,x' is no shape"),
        (("--input", "data", "--input_file", "a.npy,b.npy"), "--input_file: 2 files for 1 inputs"),
        (("--input", "data", "--input_file", "nowhere.npy"), "nowhere.npy: cannot be read as .npy"),
        (("--input", "data", "--input_file", "nowhere.pb"), "nowhere.pb: cannot be read: No such file or directory"),
        (("--input", "data", "--input_file", "{nets}/none.pb"), "none.pb: holds no tensor"),
        (("--input", "data", "--input_file", __file__), "is not Caffe2's TensorProtos"),
        (("--input", "data,c", "--input_file", "{nets}/one.npy,{nets}/three.pb"), "expected as many tensors in each"),
        ((*SMALL, "--output", "out/probabilities,nothing"), "small_predict.pb makes no nothing; it makes c, pooled, f, out/prob"),
        ((*SMALL, "--output_folder", "/nowhere"), "/nowhere"),
        ((*SMALL, "--output_folder", "/nowhere", "--text_output"), "--output_folder /nowhere"),
        ((*SMALL, "--net", "nowhere.pb"), "nowhere.pb: cannot be read: No such file or directory"),
        ((*SMALL, "--net", __file__), "is not a network of Caffe2's"),
        ((*SMALL, "--net", "/dev/null"), "/dev/null: is not a network of Caffe2's: it has no operators"),
        ((*SMALL, "--init_net", __file__), "does not make a network's weights"),
        ((*SMALL, "--init_net", "/dev/null"), "small_predict.pb takes data, c_w, c_b, f_w, f_b"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(run: Runner, nets: Path, arguments: tuple[str, ...], said: str) -> None:
    given = [argument.replace("{nets}", str(nets)) for argument in arguments]
    assert said in refused(run("small", *given), common.UNUSABLE)


@pytest.mark.parametrize(
    ("network", "arguments", "said"),
    [
        ("no_operator", SMALL, "Cannot create operator of type 'NoSuchOperator'"),
        ("small", ("--input", "data", "--input_dims", "2,4,16,16"), "the network failed"),
        ("two", ("--input", "data,bytes", "--input_dims", "2,3;4,5"), "the network failed"),
    ],
)
def test_a_network_that_fails_says_why(run: Runner, network: str, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(run(network, *arguments), common.FAILED)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--net", "a"),
        ("--net", "a", "--input", "b", "--iter", "0"),
        ("--net", "a", "--input", "b", "--backend", "mkldnn"),
        ("--net", "a", "--input", "b", "--run_individual", "perhaps"),
        ("--net", "a", "--input", "b", "--unknown", "1"),
    ],
)
def test_arguments_that_are_none(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        caffe2_runner.parse_arguments(list(arguments))
    assert caught.value.code == common.UNUSABLE
    assert "usage: caffe2_runner" in capsys.readouterr().err


def test_without_caffe2_it_says_where_caffe2_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert caffe2_runner.main(["--net", "a", "--input", "b"]) == common.UNUSABLE
    assert (
        "caffe2 cannot be imported: No module named 'caffe2'; torch 1.8.1's wheel for Python 3.7 has it"
        in capsys.readouterr().err
    )


def test_the_options_of_caffe2_benchmark() -> None:
    """As the published specifications give them."""
    line = (
        "--net predict_net.pb --init_net init_net.pb --warmup 1 --iter 1000 --input data --input_dims 1,3,224,224 "
        "--input_type float --sleep_before_run 20 --run_individual false --output softmaxout --text_output true "
        "--output_folder out"
    )
    options = caffe2_runner.parse_arguments(line.split())
    assert (options.iterations, options.warmup, options.sleep_before_run) == (1000, 1, 20)
    assert (options.operators, options.text_output, options.output_directory) == (False, True, "out")
    for own in ("builtin", "default", ""):
        assert caffe2_runner.parse_arguments([*line.split(), f"--backend={own}"]).backend == ""
    assert caffe2_runner.parse_arguments(["--net", "a", "--input", "b", "--input-dims", "1", "--run-individual"]).operators


def test_a_command_that_the_test_does_not_give_runs(caffe2_python: Path, delivered: Path, tmp_path: Path) -> None:
    """FAI-PEP's old form, through a shell, as the daemon runs it."""
    inputs = {"data": {"shapes": [[1, 3, 224, 224]], "type": "float"}}
    test = {"identifier": "old", "iter": 2, "warmup": 0, "inputs": inputs, "output_files": {"output": {"filename": "output.txt"}}}
    files = {"init": {"filename": "init_net.pb"}, "predict": {"filename": "predict_net.pb"}}
    paths = {key: str(delivered / f"squeezenet_{key}.pb") for key in files}
    program = f"{caffe2_python} -B {caffe2_runner.__file__}"
    place = base.Place(f"{tmp_path}/", "", "", {"program": program}, paths, backend="nnpack")
    (command,) = caffe2.Caffe2().commands(model.Benchmark({"files": files}, test), place)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300, check=False)
    assert read(done).backend == "nnpack"
    assert (tmp_path / "output.txt").read_text().startswith("1, 1000\n")


# ---------------------------------------------------------------- the second process


def test_the_second_process_ends_with_the_first(caffe2_python: Path, nets: Path) -> None:
    files = ("--net", str(nets / "small_predict.pb"), "--init_net", str(nets / "small_init.pb"))
    command = [caffe2_python, caffe2_runner.__file__, *files, *SMALL, "--sleep_before_run", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        assert any("cold_start" in row for row in first.stdout)
        (second,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        first.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{second}/exe").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_compiles_where_it_runs(caffe2_python: Path, tmp_path: Path) -> None:
    for module in (caffe2_runner, common):
        source = f"import py_compile, sys; py_compile.compile({module.__file__!r}, {str(tmp_path / 'out')!r}, doraise=True)"
        assert module.__file__
        subprocess.run([caffe2_python, "-W", "error", "-c", source], check=True)
