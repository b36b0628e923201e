from __future__ import annotations

import math
import subprocess
from pathlib import Path
from typing import Any

import executorchenv
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import aibenchd.runners
from aibenchd import errors, model
from aibenchd.frameworks import base, executorch

RUNNER = Path(aibenchd.runners.__file__).parent / "executorch_runner.py"
NOTHING = model.Benchmark({}, {})
PROGRAM = {"filename": "net.pte", "location": "net.pte"}
IMAGE = {"inputs": {"image": {"shapes": [[1, 3, 8, 8]], "type": "float"}, "index": {"shapes": [[1]], "type": "int64"}}}

# As executor_runner logs it; what else it prints is between the rows.
LOG = """\
I 00:00:00.004885 executorch:executor_runner.cpp:73] Model file net.pte is loaded.
I 00:00:00.007243 executorch:executor_runner.cpp:480] Model loaded in 2.500000 ms.
I 00:00:00.017243 executorch:executor_runner.cpp:614] Iteration 1 of 3: 9.250000 ms
I 00:00:00.018243 executorch:executor_runner.cpp:614] Iteration 2 of 3: 1.000000 ms
I 00:00:00.020243 executorch:executor_runner.cpp:614] Iteration 3 of 3: 2.000000 ms
I 00:00:00.020943 executorch:executor_runner.cpp:623] Model executed successfully 3 time(s) in 12.250000 ms.
I 00:00:00.020953 executorch:executor_runner.cpp:630] 1 outputs:
OutputX 0: tensor(sizes=[1, 2], [0.5, 1.])
"""


def composed(whole: dict[str, Any], test: dict[str, Any], **place: Any) -> str:
    where = base.Place("/d/", "/h", "/b", {"program": "/p"}, **place)
    (command,) = executorch.ExecuTorch().commands(model.Benchmark(whole, test, "net.json"), where)
    return command


def values(output: str) -> dict[str, tuple[float, ...]]:
    return {series.key: series.values for series in executorch.ExecuTorch().parse(output, NOTHING).series}


# ---------------------------------------------------------------- commands


def test_a_file_is_all_that_a_model_needs() -> None:
    command = composed({"files": {"any": PROGRAM}}, {"iter": 20}, files={"any": "/d/net.pte"}, backend="xnnpack")
    assert command == "/p --model /d/net.pte --iterations 20 --backend=xnnpack --operators --output-directory /d/"


def test_a_function_of_the_repository_is_named_by_module() -> None:
    command = composed({"module": "engine:net"}, {"iter": -1, "warmup": 2, **IMAGE})
    given = "--module engine:net --input-dims '1,3,8,8;1' --input-type 'float;int64' --warmup 2"
    assert command == f"/p {given} --backend= --operators --output-directory /d/"


def test_the_program_is_one_of_several_files_by_its_key() -> None:
    files = {"labels": PROGRAM, "program": PROGRAM}
    assert "--model /d/n " in composed({"files": files}, IMAGE, files={"labels": "/d/l", "program": "/d/n"})
    with pytest.raises(errors.CommandError, match="a file called network or model or program"):
        composed({"files": {"labels": PROGRAM, "weights": PROGRAM}}, IMAGE)


def test_what_is_composed_is_understood_by_the_runner(tmp_path: Path) -> None:
    """To the point where it looks at the program."""
    command = composed({"files": {"any": PROGRAM}}, IMAGE, files={"any": "/nowhere/net.pte"})
    argv = command.replace("/p ", f"{executorchenv.interpreter()} {RUNNER} ", 1)
    done = subprocess.run(["sh", "-c", argv], cwd=tmp_path, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, last) == (2, "executorch_runner: /nowhere/net.pte: there is no such file")


def test_each_backend_that_can_be_asked_for_is_one_of_the_runner_s() -> None:
    for backend in executorch.ExecuTorch.backends:
        assert f'"{backend}"' in RUNNER.read_text()


# ---------------------------------------------------------------- what programs print


def test_the_runner_s_lines_are_read() -> None:
    rows = ['PyTorchObserver {"type": "NET", "metric": "latency", "unit": "us", "values": [10.5, 11]}']
    rows += ['PyTorchObserver {"type": "NET", "metric": "backend", "unit": "", "info_string": "xnnpack"}']
    found = executorch.ExecuTorch().parse("\n".join(rows), NOTHING)
    assert found == base.Output((model.Series("NET", "latency", "us", (10.5, 11.0)),), "xnnpack")


def test_executor_runner_s_log_is_read() -> None:
    assert values(LOG) == {"NET load": (2500,), "NET first_run": (9250,), "NET latency": (1000, 2000)}


def test_without_iterations_their_mean_is_one_sample() -> None:
    rows = [row for row in LOG.splitlines() if "Iteration" not in row]
    assert values("\n".join(rows))["NET latency"] == (pytest.approx(12250 / 3),)


@pytest.mark.parametrize(
    "row",
    [
        "x] Iteration 1 of 2: 1.2.3 ms",
        "x] Iteration 1 of 2: 12",
        "x] Iteration 9999999999 of 2: 1 ms",
        "x] Model executed successfully 0 time(s) in 1.0 ms.",
        "Iteration 1 of 2: 1 ms",
        "x] Model loaded in " + "1" * 50 + " ms.",
        " ms" * 20000 + "x] Iteration 1 of 2: 1 ms",
    ],
)
def test_what_is_no_row_of_the_log_is_skipped(row: str) -> None:
    assert values(row) == {}


def test_numbers_that_are_too_large_are_infinite() -> None:
    assert values("x] Iteration 2 of 2: " + "9" * 40 + " ms")["NET latency"][0] > 1e40
    assert all(not math.isnan(value) for found in values(LOG * 3).values() for value in found)


ROWS = LOG.splitlines()


@example("x] Iteration 2 of 2: . ms")
@given(
    st.text()
    | st.lists(st.sampled_from(ROWS) | st.text(max_size=20)).map("\n".join)
    | st.sampled_from(ROWS).map(lambda row: row[5:-5])
)
def test_nothing_that_is_printed_raises(output: str) -> None:
    for series in executorch.ExecuTorch().parse(output, NOTHING).series:
        assert series.key.isprintable()
