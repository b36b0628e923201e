from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import aibenchd.runners
from aibenchd import errors, model
from aibenchd.frameworks import base, pytorch

RUNNER = Path(aibenchd.runners.__file__).parent / "torch_runner.py"
NETWORK = {"filename": "net.pt", "location": "net.pt"}
IMAGE = {"inputs": {"image": {"shapes": [[1, 3, 8, 8]], "type": "float"}, "index": {"shapes": [[1]], "type": "int64"}}}


def composed(whole: dict[str, Any], test: dict[str, Any], **place: Any) -> str:
    where = base.Place("/d/", "/h", "/b", {"program": "/p"}, **place)
    (command,) = pytorch.PyTorch().commands(model.Benchmark(whole, test, "net.json"), where)
    return command


def test_a_file_and_the_shapes_of_its_inputs_are_all_that_a_model_needs() -> None:
    command = composed({"files": {"any": NETWORK}}, {**IMAGE, "warmup": 3, "iter": 20}, files={"any": "/d/net.pt"}, backend="mkl")
    given = "--model /d/net.pt --input-dims '1,3,8,8;1' --input-type 'float;int64' --warmup 3 --iterations 20"
    assert command == f"/p {given} --backend=mkl --operators --output-directory /d/"


def test_a_function_of_the_repository_is_named_by_module() -> None:
    command = composed({"module": "engine:net"}, {"iter": -1, "warmup": -1, **IMAGE})
    assert command.startswith("/p --module engine:net --input-dims")
    assert "--iterations" not in command


def test_the_network_is_one_of_several_files_by_its_key() -> None:
    files = {"labels": NETWORK, "network": NETWORK}
    assert "--model /d/n " in composed({"files": files}, IMAGE, files={"labels": "/d/l", "network": "/d/n"})
    with pytest.raises(errors.CommandError, match="a file called network or model"):
        composed({"files": {"labels": NETWORK, "weights": NETWORK}}, IMAGE)


def test_files_of_inputs_count_and_not_what_is_said_of_their_shapes() -> None:
    """As in Caffe2's command, which has both."""
    given = {"image": {"filename": "a.npy", "location": "a.npy"}, "index": {"filename": "b.npy", "location": "b.npy"}}
    paths = {"image": "/d/a.npy", "index": "/d/b.npy"}
    command = composed({"files": {"any": NETWORK}}, {**IMAGE, "input_files": given}, files={"any": "/d/n"}, input_files=paths)
    assert command.startswith('/p --model /d/n --input-file "/d/a.npy;/d/b.npy" --backend=')


def test_commands_of_its_own_are_left_as_they_are() -> None:
    test = {"commands": ["{program} --model {files.any} --use_bundled_input 0 --backend={backend}"], **IMAGE}
    command = composed({"files": {"any": NETWORK}}, test, files={"any": "/d/net.pt"})
    assert command == "/p --model /d/net.pt --use_bundled_input 0 --backend="


def test_what_is_composed_is_understood_by_the_runner(tmp_path: Path) -> None:
    """To the point where it looks at the network, whatever torch says of that."""
    pytest.importorskip("torch", reason="torch is not installed: pip install aibenchd[torch]")
    command = composed({"files": {"any": NETWORK}}, IMAGE, files={"any": "/nowhere/net.pt"})
    argv = command.replace("/p ", f"{sys.executable} {RUNNER} ", 1)
    done = subprocess.run(["sh", "-c", argv], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "torch_runner: /nowhere/net.pt: there is no such file\n")


def test_each_backend_that_can_be_asked_for_is_one_of_the_runners() -> None:
    for backend in pytorch.PyTorch.backends:
        assert f'"{backend}"' in RUNNER.read_text()


def test_what_speed_benchmark_torch_prints_is_read() -> None:
    rows = ["Starting benchmark.", "Running warmup runs.", "Main runs."]
    rows += [f'PyTorchObserver {{"type": "NET", "unit": "us", "metric": "latency", "value": "{value}"}}' for value in (812, 1e6)]
    rows += ["Main run finished. Microseconds per iter: 500406. Iters per second: 1.99838"]
    found = pytorch.PyTorch().parse("\n".join(rows), model.Benchmark({}, {}))
    assert found == base.Output((model.Series("NET", "latency", "us", (812.0, 1e6)),))
