"""What all runners share. The seeded inputs are a contract between frameworks: what they are is written down here."""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aibenchd import model
from aibenchd.frameworks import generic
from aibenchd.runners import common

# SHA-256 over type, shape and bytes of one input, the first of a network; another number would be another picture.
PINNED = {
    "float32": "aff15f36f46e92cf2a652f28f2a6a792a10451e07470c7789b5a1e897b09ef8e",
    "float64": "20d9ff5e7b5c120e384c47c8d0691cd93cfc2ec66a9b6d0d82f8cef5a13b9a48",
    "float16": "efa433f0b42c3c0b687b4d7214c0f9497a786a95958ea3037c3dd126b621460a",
    "uint8": "1cb0a171e15bbe52d29eccde887b2bdec66d47b097d07dad183dd25e994865be",
    "int8": "4ecbacebe31538e58bc68470493cb5ffa304a7c61983e82ba2718f68e9848fb2",
    "int16": "0756ba01898a6f5c79a6bcf0e315c0b7dd19792e27b89af5ec640ce42e2c17d9",
    "int32": "6afb1676c5298007b16dbefab9e60ddc2560fba05580bd3d820110cb69e0f65b",
    "int64": "93b8b216ff2bf1ec81fe3bb39b000c250be0cdecac5ceb403c545518b506a2f8",
    "bool": "9cadf7854b804bf235a887bedbbe8308b1a7e427eee2ec9fa3aba5345cddbe2b",
}
DIMENSIONS = "1,3,4,5"


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="a_runner")
    common.add_options(parser, ("cpu", "mkl"))
    return parser.parse_args(arguments)


def inputs(*arguments: str) -> list[np.ndarray[Any, Any]]:
    return common.make_inputs(options(*arguments))


class Sums(common.Network):
    """Adds up its inputs; what it does beyond is what a test says."""

    def __init__(self, inputs: Sequence[np.ndarray[Any, Any]], evidence: Mapping[str, Mapping[str, int]]) -> None:
        self.inputs, self.found, self.runs = inputs, evidence, 0

    def run(self) -> None:
        self.runs += 1

    def outputs(self) -> Mapping[str, np.ndarray[Any, Any]]:
        return {"runs": np.asarray(self.runs), "a/sum": np.asarray([value.sum() for value in self.inputs])}

    def evidence(self) -> Mapping[str, Mapping[str, int]]:
        return self.found

    def operators(self, iterations: int) -> Mapping[tuple[int, str], Sequence[float]]:
        return {(0, "Sum"): [1.5] * iterations}


class Run:
    """What one run of a runner gave."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.err = status, err
        output = generic.Generic().parse(out, model.Benchmark({}, {}))
        self.backend = output.backend
        self.series = {series.key: series for series in output.series}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str, evidence: Mapping[str, Mapping[str, int]] = {"mkl": {"SGEMM": 2}}) -> Run:
        status = common.main("a_runner", options(*arguments), lambda _, made: Sums(made, evidence))
        return Run(status, *capfd.readouterr())

    return run


# ---------------------------------------------------------------- inputs


@pytest.mark.parametrize(("name", "expected"), PINNED.items())
def test_seeded_inputs_are_the_same_for_ever(name: str, expected: str) -> None:
    assert common.digest(inputs("--input-dims", DIMENSIONS, "--input-type", name)) == expected


def test_what_the_numbers_are_made_of() -> None:
    """Enough to write the generator again in another language."""
    (floats,) = inputs("--input-dims", "2,3")
    stream = hashlib.shake_256(b"aibenchd 0 0 [2, 3] float32").digest(12)
    drawn = [int.from_bytes(stream[at : at + 2], "little", signed=True) for at in range(0, 12, 2)]
    assert floats.flatten().tolist() == [number / 32768 for number in drawn]
    _, indices = inputs("--input-dims", "1;4", "--input-type", "float;int64")
    assert indices.tolist() == [byte % 128 for byte in hashlib.shake_256(b"aibenchd 0 1 [4] int64").digest(4)]


@pytest.mark.parametrize("name", sorted(common.TYPES))
def test_each_type_has_its_range(name: str) -> None:
    first, second = inputs("--input-dims", "5,100;5,100", "--input-type", name)
    assert first.dtype == second.dtype == np.dtype(common.TYPES[name])
    assert not np.array_equal(first, second)
    low, high = (-1, 1) if first.dtype.kind == "f" else (0, 1 if name == "bool" else 127)
    assert low <= first.min() < first.max() <= high


def test_images_are_the_same_picture_in_both_layouts() -> None:
    (nchw,) = inputs("--input-dims", "2,3,4,5")
    (nhwc,) = inputs("--input-dims", "2,4,5,3", "--input-layout", "nhwc")
    assert nhwc.flags.c_contiguous
    assert np.array_equal(nhwc, nchw.transpose(0, 2, 3, 1))
    assert common.digest(common.as_nchw([nhwc], "nhwc")) == common.digest([nchw])


def test_only_images_have_a_layout() -> None:
    plain, other = (inputs("--input-dims", "2,3,4", "--input-layout", layout) for layout in ("nchw", "nhwc"))
    assert np.array_equal(*plain, *other)


def test_one_type_is_for_all_inputs() -> None:
    assert [value.dtype for value in inputs("--input-dims", "1;2;3", "--input-type", "half")] == [np.float16] * 3


def test_inputs_from_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    np.save(tmp_path / "b.npy", np.ones((2, 2), np.float16))
    first, second = inputs("--input-file", f"{tmp_path}/a.npy;{tmp_path}/b.npy")
    assert (first.tolist(), second.shape, second.dtype) == ([0, 1, 2], (2, 2), np.float16)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.sampled_from(sorted(common.TYPES)), st.integers(0, 3))
def test_any_shape_is_drawn_as_it_is_asked_for(shape: list[int], name: str, index: int) -> None:
    drawn = common.seeded(tuple(shape), name, index)
    assert (drawn.shape, drawn.dtype) == (tuple(shape), np.dtype(common.TYPES[name]))
    assert drawn.tobytes() == common.seeded(tuple(shape), name, index).tobytes()


# ---------------------------------------------------------------- what is printed and written


def test_all_that_is_known_is_printed(run: Any) -> None:
    done = run("--input-dims", "2,3", "--warmup", "3", "--iterations", "20", "--operators")
    assert (done.status, done.err, done.backend) == (0, "", "mkl")
    counts = {key: len(series.values) for key, series in done.series.items()}
    assert counts == {
        "NET input_digest": 0,
        "NET load": 1,
        "NET first_run": 1,
        "NET cold_start": 1,
        "NET latency": 20,
        "NET peak_memory": 1,
        "NET output_digest": 0,
        "NET evidence": 0,
        "ID_0_Sum latency": common.PROFILED,
    }
    assert done.series["NET evidence"].text == "mkl SGEMM x 2"
    assert done.series["NET input_digest"].text == common.digest(inputs("--input-dims", "2,3"))


def test_outputs_are_written_by_name_after_the_last_timed_run(run: Any, tmp_path: Path) -> None:
    done = run("--input-dims", "2,3;1", "--warmup", "2", "--iterations", "5", "--output-directory", str(tmp_path))
    assert done.status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_sum.npy", "runs.npy"]
    runs = np.load(tmp_path / "runs.npy")
    assert (runs.shape, runs.item()) == ((), 1 + 2 + 5)
    assert np.load(tmp_path / "a_sum.npy").shape == (2,)


def test_a_runner_may_make_its_inputs_itself(capfd: pytest.CaptureFixture[str]) -> None:
    status = common.main("a_runner", options(), lambda _, made: Sums(made, {}), inputs=lambda _: [])
    done = Run(status, *capfd.readouterr())
    assert (done.status, done.series["NET input_digest"].text) == (0, hashlib.sha256().hexdigest())


def test_the_cold_start_is_the_processs() -> None:
    """From its exec, of which the interpreter's own start is a part that no clock of its own sees."""
    program = "import time, common; time.sleep(0.2); print(common.since_start())"
    began = time.monotonic()
    environment = {"PYTHONPATH": str(Path(common.__file__).parent)}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout
    assert 0.2e6 < float(said) < (time.monotonic() - began + 0.02) * 1e6


def test_the_peak_of_memory_is_the_processs() -> None:
    """Not that of the process which started it, which is what the kernel says of a child."""
    program = (
        "import common; before = common.peak_memory(); held = bytearray(b'x') * (64 << 20); print(before, common.peak_memory())"
    )
    held = bytearray(b"x") * (512 << 20)
    environment = {"PYTHONPATH": str(Path(common.__file__).parent)}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout
    before, after = map(int, said.split())
    assert before + (60 << 20) < after < len(held)


@pytest.mark.parametrize(
    ("name", "expected"), [("prob", "prob"), ("a/b:0", "a_b_0"), ("../../x", "_.._x"), ("..", "output"), ("", "output")]
)
def test_names_of_outputs_lead_nowhere(name: str, expected: str) -> None:
    assert common.file_names([name]) == [expected]


@given(st.lists(st.text(alphabet="a/:_2.") | st.text(), unique=True, max_size=8))
@example(["a/b", "a:b", "a_b_2", "a b"])
def test_no_name_leaves_the_directory_and_none_takes_another_s_place(names: list[str]) -> None:
    files = common.file_names(names)
    assert len(set(files)) == len(names)
    assert all(Path(file).name == file for file in files)


@pytest.mark.parametrize(("given", "variable", "expected"), [(None, "3", 3), (2, "3", 2), (None, "many", 1), (None, "0", 1)])
def test_threads_are_those_of_the_environment_where_options_do_not_say(
    monkeypatch: pytest.MonkeyPatch, given: int | None, variable: str, expected: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert common.threads(argparse.Namespace(threads=given)) == expected


def test_every_framework_has_one_thread_where_nobody_says() -> None:
    program = "import os, common; print(os.environ['OMP_NUM_THREADS'])"
    for said, expected in (({}, "1"), ({"OMP_NUM_THREADS": "3"}, "3")):
        environment = {"PYTHONPATH": str(Path(common.__file__).parent), **said}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_the_digest_is_of_values_types_and_shapes() -> None:
    array = np.arange(6, dtype=np.float32)
    others = [[array + 1], [array.astype(np.float64)], [array.reshape(2, 3)], [array, array], []]
    assert common.digest([array.reshape(3, 2).T]) == common.digest([np.ascontiguousarray(array.reshape(3, 2).T)])
    assert len({common.digest(one) for one in [[array], *others]}) == 6


def test_what_c_writes_is_captured_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with common.captured() as log:
        os.write(1, b"a library\n")
    print("after")
    assert log == ["a library\n"]
    assert capfd.readouterr().out == "before\nafter\n"


# ---------------------------------------------------------------- backends


@pytest.mark.parametrize(
    ("asked", "evidence", "backend"),
    [
        ("", {}, "cpu"),
        ("", {"mkl": {}, "cpu": {"operator": 1}}, "cpu"),
        ("", {"mkl": {"SGEMM": 1}, "cpu": {"operator": 1}}, "mkl"),
        ("cpu", {"mkl": {"SGEMM": 1}, "cpu": {"operator": 1}}, "cpu"),
    ],
)
def test_the_first_that_executed_is_stated_or_what_was_asked_for(
    run: Any, asked: str, evidence: Mapping[str, Mapping[str, int]], backend: str
) -> None:
    assert run("--input-dims", "1", f"--backend={asked}", evidence=evidence).backend == backend


def test_what_did_not_execute_is_refused_with_what_did(run: Any) -> None:
    done = run("--input-dims", "1", "--backend", "mkl", evidence={"mkl": {"SGEMM": 0}, "cpu": {"operator": 3}})
    assert done.status == common.OTHER_BACKEND
    assert done.err == "a_runner: asked for mkl, but it did not execute: mkl SGEMM x 0, cpu operator x 3\n"
    assert done.backend == ""


# ---------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected --input-dims, or --input-file"),
        (("--input-dims", "1,x"), "'1,x' is no shape; expected sizes such as 1,3,224,224"),
        (("--input-dims", "1;0"), "'0' is no shape"),
        (("--input-dims", "1;"), "'' is no shape"),
        (("--input-dims", "1;1", "--input-type", "float;int;int"), "expected one type, or one for each of 2 inputs"),
        (("--input-dims", "1", "--input-type", "complex"), "'complex' is none of float"),
        (("--input-file", "nowhere.npy"), "--input-file nowhere.npy: cannot be read as .npy: "),
        (("--input-file", __file__), "cannot be read as .npy: "),
        (("--input-dims", "1", "--output-directory", "nowhere"), "--output-directory nowhere: "),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(run: Any, arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert (done.status, done.err.count("\n")) == (common.UNUSABLE, 1)
    assert said in done.err


def test_what_is_no_array_is_not_read_from_a_file(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{}]), allow_pickle=True)
    assert run("--input-file", str(path)).status == common.UNUSABLE
    with path.open("wb") as file:
        np.savez(file, a=np.arange(3))
    assert run("--input-file", str(path)).status == common.UNUSABLE
    np.save(path, np.arange(300))
    content = path.read_bytes()
    for damaged in (b"", content[:5], content[:60], content[:-1], content.replace(b"(300,), ", b"(3" + b"0" * 15 + b",)")):
        path.write_bytes(damaged)
        done = run("--input-file", str(path))
        assert (done.status, done.err.count("\n")) == (common.UNUSABLE, 1), damaged


def test_an_array_in_a_file_is_turned_once_and_not_in_each_run(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(np.arange(6).reshape(2, 3)))
    np.save(tmp_path / "b.npy", np.float32(3))
    first, second = inputs("--input-file", f"{tmp_path}/a.npy;{tmp_path}/b.npy")
    assert first.flags.c_contiguous
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert second.shape == ()


@pytest.mark.parametrize("output", [np.array([{}]), np.array(["text"]), [1, 2]])
def test_outputs_that_are_no_numbers_are_refused(run: Any, monkeypatch: pytest.MonkeyPatch, output: object) -> None:
    monkeypatch.setattr(Sums, "outputs", lambda _: {"y": output})
    done = run("--input-dims", "1")
    assert (done.status, done.err) == (common.UNUSABLE, "a_runner: its output y is no tensor of numbers\n")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (common.UnusableError("net.x: is none"), 2, "a_runner: net.x: is none\n"),
        (common.OtherBackendError("there is none"), 3, "a_runner: there is none\n"),
        (ValueError("first\nsecond"), 1, "ValueError: first\n"),
        (MemoryError(), 1, "MemoryError:\n"),
        (common.UnusableError("an output a\nb is none"), 2, "a_runner: an output a b is none\n"),
        (ValueError("x" * 9000), 1, f"ValueError: {'x' * 500}\n"),
    ],
)
def test_what_a_network_raises_decides_the_status(
    capfd: pytest.CaptureFixture[str], error: Exception, status: int, said: str
) -> None:
    def load(_: object, made: object) -> common.Network:
        raise error

    assert common.main("a_runner", options("--input-dims", "1"), load) == status
    shown = capfd.readouterr().err
    assert shown.endswith(said)
    if status == common.FAILED:
        assert f"the network failed at {__file__}:" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--iterations", "0"), "must be 1 or more"),
        (("--warmup", "-1"), "must be 0 or more"),
        (("--threads", "many"), "invalid number value: 'many'"),
        (("--backend", "eigen"), "invalid choice: 'eigen'"),
        (("--input-layout", "nwhc"), "invalid choice: 'nwhc'"),
    ],
)
def test_arguments_that_are_none(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(SystemExit) as caught:
        options(*arguments)
    assert caught.value.code == common.UNUSABLE
    assert said in capfd.readouterr().err


def test_without_numpy_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('there is none')\n")
    done = subprocess.run([sys.executable, common.__file__], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == common.UNUSABLE
    assert done.stderr == "numpy cannot be imported, and every runner needs it: there is none\n"


def test_it_is_python_3_7() -> None:
    """Caffe2 knows no newer one. Syntax alone; that it runs there is tested with Caffe2."""
    ast.parse(Path(common.__file__).read_text(), feature_version=(3, 7))
