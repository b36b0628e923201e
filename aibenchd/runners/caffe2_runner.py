#!/usr/bin/env python3
"""Times a Caffe2 network and says so in observer lines. Needs common.py beside it, and caffe2, which torch 1.8.1's wheel holds.

    caffe2_runner.py --net predict_net.pb --init_net init_net.pb --input data --input_dims 1,3,224,224 --input_type float \\
        --warmup 1 --iter 50 --run_individual true

Takes the options of Caffe2's own ``caffe2_benchmark``, so that commands written for it run unchanged; ``-`` is as good as ``_``
in their names. Runs on Python 3.7 and later, for Caffe2 has wheels for no newer one.

Backends: ``eigen`` and ``nnpack`` are engines, set on the operators that have them; ``mkl`` takes all engines away, which leaves
what Caffe2 computes by MKL; ``onednn`` puts operators on the device IDEEP, and copies around those that it does not have; ``cpu``
takes the network as it is. A name of an engine that Caffe2 does not know, it ignores without a word, and an operator that an
engine refuses runs without it. So what executed is read from logs of their own: MKL's, oneDNN's and NNPACK's name what they were
called for, and Eigen's operators are those of the engine that Caffe2 did not refuse and for which no library was called.
Those logs can only be switched on before a library is first used, so a second process reads them: it is forked before the
network is loaded, and loads and runs it once, operator by operator, when all has been timed.

Threads are those of OpenMP and MKL: Caffe2's NNPACK and Eigen compute by one, whatever ``--threads`` says.

What is printed, and the exit status: see common.py. Operators are those of a simple net: one after the other.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import importlib
import json
import logging
import os
import re
import sys
import tempfile
import time

import numpy as np

MYPY = False
if MYPY or __package__:
    from aibenchd.runners import common
else:  # beside this file, on a device
    import common

if MYPY:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

NAME = "caffe2_runner"
ENGINES = {"eigen": "EIGEN", "nnpack": "NNPACK", "mkl": "", "onednn": ""}
BACKENDS = ("cpu", "mkl", "eigen", "nnpack", "onednn", "cuda")
OWN_CHOICE = ("builtin", "default")  # of caffe2_benchmark's backends
WARNINGS, NOTHING = 1, 3  # of Caffe2's log: from which severity on
MILLISECOND = 1000.0  # us

MKL_ROW = re.compile(r"^MKL_VERBOSE (?!Intel)(\w+)\(", re.MULTILINE)
ONEDNN_ROW = re.compile(r"^(?:dnnl|mkldnn)_verbose,exec,(?:cpu,)?(?!cpu,|reorder,)(\w+)", re.MULTILINE)
NNPACK_ROW = re.compile(r"^H: .*blockT: ", re.MULTILINE)
REFUSED_ROW = re.compile(r"Operator (\w+) does not support the requested feature\. Msg: (.*?)\.* Proto is", re.DOTALL)


def main(argv: list[str] | None = None) -> int:
    """The exit status: as of :func:`common.main`, and UNUSABLE where Caffe2 is not installed."""
    options = parse_arguments(argv)
    try:
        caffe2("python.workspace")
    except ImportError as absent:
        return common.fail(
            NAME, common.UNUSABLE, f"caffe2 cannot be imported: {absent}; torch 1.8.1's wheel for Python 3.7 has it"
        )
    with contextlib.closing(Session(options)) as session:
        return common.main(NAME, options, session.load, "Caffe2Observer", session.make_inputs)


def caffe2(name: str) -> Any:
    """A module of caffe2's, which warns of there being no GPU."""
    logging.disable(logging.WARNING)
    return importlib.import_module(f"caffe2.{name}")


# ---------------------------------------------------------------- options


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """caffe2_benchmark's options, under the names that :mod:`common` has for them."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Times a Caffe2 network and prints observer lines.", allow_abbrev=False
    )

    def option(name: str, **facts: Any) -> None:
        parser.add_argument(*dict.fromkeys(("--" + name, "--" + name.replace("_", "-"))), **facts)

    option("net", required=True, metavar="FILE", help="the network: predict_net.pb")
    option("init_net", metavar="FILE", help="the net that makes its weights: init_net.pb")
    option("input", required=True, metavar="NAMES", help='such as "data,im_info"')
    option("input_dims", metavar="DIMS", help='shapes of the seeded inputs, such as "1,3,224,224;1,3"')
    option("input_type", default="float", metavar="TYPES", help='for all inputs, or one for each: "float;uint8_t"')
    option("input_layout", default="nchw", choices=("nchw", "nhwc"), help="of images, in shapes and inputs")
    option("input_file", metavar="FILES", help='.npy files or TensorProtos, such as "a.pb,b.pb", instead of seeded inputs')
    option("output", metavar="NAMES", help="blobs to write and to digest; * for all; default: the network's outputs")
    option("output_folder", dest="output_directory", metavar="DIRECTORY", help="where each output is written, as <name>.npy")
    option(
        "text_output", type=truth, nargs="?", const=True, default=False, help="write <name>.txt: a row of sizes, a row of values"
    )
    option("warmup", type=common.whole(0), default=0, metavar="N", help="runs after the first and before those timed")
    option("iter", dest="iterations", type=common.whole(1), default=10, metavar="N", help="runs that are timed")
    option("run_individual", dest="operators", type=truth, nargs="?", const=True, default=False, help="time each operator too")
    option("sleep_before_run", type=common.whole(0), default=0, metavar="SECONDS", help="between the warm-up and what is timed")
    option("threads", type=common.whole(1), metavar="N", help="of one operator; default: OMP_NUM_THREADS, else 1")
    option("backend", default="", choices=("", *OWN_CHOICE, *BACKENDS), help="must execute; default: what the network names")
    options = parser.parse_args(argv)
    options.backend = "" if options.backend in OWN_CHOICE else options.backend
    return options


def truth(text: str) -> bool:
    """``true`` or ``false``, as Caffe2's flags take them."""
    found = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return found


# ---------------------------------------------------------------- inputs


class Session:
    """What must happen in this order: inputs, the fork of who will read the logs, Caffe2's start, the network."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._names = options.input.split(",")
        self._witness: Witness | None = None

    def make_inputs(self, options: argparse.Namespace) -> list[np.ndarray]:
        """The inputs of one batch after the other."""
        inputs = self._from_files(options.input_file.split(",")) if options.input_file else common.make_inputs(options)
        if len(inputs) % len(self._names):
            raise common.UnusableError(f"--input {options.input}: {len(self._names)} names for {len(inputs)} inputs")
        self._witness = Witness(lambda: self._watch(inputs))
        return inputs

    def load(self, options: argparse.Namespace, inputs: list[np.ndarray]) -> common.Network:
        """Start Caffe2 and load the network; after :meth:`make_inputs`, and once in a process."""
        start(NOTHING, options.threads)
        return Caffe2Network(options, self._batches(inputs), self._witness)

    def close(self) -> None:
        """Let the second process end."""
        if self._witness:
            self._witness.close()

    def _watch(self, inputs: list[np.ndarray]) -> list[tuple[Any, str]]:
        os.environ.update(MKL_VERBOSE="1", DNNL_VERBOSE="1", MKLDNN_VERBOSE="1")
        start(WARNINGS, self._options.threads, "--caffe2_profile_nnpack=1")
        return Caffe2Network(self._options, self._batches(inputs)).watched()

    def _batches(self, inputs: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
        count = len(self._names)
        return [dict(zip(self._names, inputs[at : at + count])) for at in range(0, len(inputs), count)]  # noqa: B905

    def _from_files(self, paths: list[str]) -> list[np.ndarray]:
        """A file of TensorProtos holds a tensor for each batch; all files must have equally many."""
        if len(paths) != len(self._names):
            raise common.UnusableError(f"--input_file: {len(paths)} files for {len(self._names)} inputs")
        found = [[common.from_file(path)] if path.endswith(".npy") else tensors_of(path) for path in paths]
        if len({len(tensors) for tensors in found}) != 1:
            counts = ", ".join(f"{path} has {len(tensors)}" for path, tensors in zip(paths, found))  # noqa: B905
            raise common.UnusableError(f"--input_file: expected as many tensors in each: {counts}")
        return [tensor for batch in zip(*found) for tensor in batch]  # noqa: B905


def start(severity: int, threads: int | None, *flags: str) -> None:
    """Have Caffe2 start, which it does once in a process."""
    counts = [f"--caffe2_{library}_num_threads={threads}" for library in ("omp", "mkl") if threads]
    caffe2("python.core").GlobalInit(["caffe2", f"--caffe2_log_level={severity}", *counts, *flags])


def tensors_of(path: str) -> list[np.ndarray]:
    """The tensors in a file of TensorProtos."""
    message = read(path, caffe2("proto.caffe2_pb2").TensorProtos(), "Caffe2's TensorProtos")
    if not message.protos:
        raise common.UnusableError(f"{path}: holds no tensor; expected .npy or Caffe2's TensorProtos")
    to_array = caffe2("python.utils").Caffe2TensorToNumpyArray
    try:
        return [to_array(tensor) for tensor in message.protos]
    except (RuntimeError, ValueError) as error:
        raise common.UnusableError(f"{path}: holds a tensor that cannot be used: {common.first_line(error)}") from error


def read_net(path: str) -> Any:
    """The NetDef in a file."""
    net = read(path, caffe2("proto.caffe2_pb2").NetDef(), "a network of Caffe2's")
    if not net.op:
        raise common.UnusableError(f"{path}: is not a network of Caffe2's: it has no operators")
    return net


def read(path: str, message: Any, expected: str) -> Any:
    """The message, filled from a file.

    Raises:
        UnusableError: the file is not there, or is something else.
    """
    data = contents(path)
    try:
        message.ParseFromString(data)
    except Exception as error:  # protobuf's own, which each version keeps elsewhere
        raise common.UnusableError(f"{path}: is not {expected}: {common.first_line(error)}") from error
    return message


def contents(path: str) -> bytes:
    """
    Raises:
        UnusableError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise common.UnusableError(f"{path}: cannot be read: {error.strerror}") from error


# ---------------------------------------------------------------- the network


class Caffe2Network(common.Network):
    """A network in Caffe2's workspace.

    Args:
        options: of :func:`parse_arguments`.
        batches: one or more, each an input by its name. The first is what is timed.
        witness: who reads the libraries' logs.
    """

    def __init__(
        self, options: argparse.Namespace, batches: Sequence[Mapping[str, np.ndarray]], witness: Witness | None = None
    ) -> None:
        self._options, self._batches, self._witness = options, batches, witness
        self._workspace = caffe2("python.workspace")
        self._net = read_net(options.net)
        self._net.name = self._net.name or "benchmark"
        self._outputs = self._output_names()
        if options.init_net:
            self._make_weights(options.init_net)
        self._check_inputs()
        self._on_device: frozenset[str] = frozenset()
        self._feed(batches[0])
        self._choose()
        self._workspace.CreateNet(self._net)

    def run(self) -> None:
        self._workspace.RunNet(self._net.name)

    def settle(self) -> None:
        time.sleep(self._options.sleep_before_run)

    def outputs(self) -> dict[str, np.ndarray]:
        """Those of all batches, one after the other along the first axis."""
        if len(self._batches) == 1:
            return self._fetched()
        found = [self._of(batch) for batch in self._batches]
        return {name: np.concatenate([outputs[name] for outputs in found]) for name in self._outputs}

    def save(self, outputs: Mapping[str, np.ndarray], directory: str | None) -> None:
        write = save_text if self._options.text_output else common.save
        write(outputs, directory)

    def operators(self, iterations: int) -> dict[tuple[int, str], list[float]]:
        simple = copy.deepcopy(self._net)
        simple.name, simple.type = f"{self._net.name}, operator by operator", "simple"
        self._workspace.CreateNet(simple)
        found = collections.defaultdict(list)
        with common.captured():  # BenchmarkNet prints a table
            for _ in range(iterations):
                _, *delays = self._workspace.BenchmarkNet(simple.name, 0, 1, True)
                for index, (operator, delay) in enumerate(zip(simple.op, delays)):  # noqa: B905
                    found[index, operator.type].append(delay * MILLISECOND)
        return dict(found)

    def evidence(self) -> Mapping[str, Mapping[str, int]]:
        """The network is gone then, so that there are not two of them in memory."""
        assert self._witness  # noqa: S101
        self._workspace.ResetWorkspace()
        found, refusals = self._witness.report()
        common.judged(found, self._options.backend, "".join(f"; {refusal}" for refusal in refusals))
        return found

    def watched(self) -> list[tuple[Any, str]]:
        """Each operator, run in its turn, and what was written to standard output meanwhile, which must be a file."""
        return [(operator, written_by(self._workspace.RunOperatorOnce, operator)) for operator in self._net.op]

    def _make_weights(self, path: str) -> None:
        """Caffe2 reads the file: a net with its weights is large, and would be in memory twice."""
        try:
            self._workspace.RunNetOnce(contents(path))
        except RuntimeError as error:
            raise common.UnusableError(f"{path}: does not make a network's weights: {common.first_line(error)}") from error

    def _output_names(self) -> list[str]:
        made = list(dict.fromkeys(name for operator in self._net.op for name in operator.output))
        if self._options.output == "*":
            return made
        names = self._options.output.split(",") if self._options.output else list(self._net.external_output) or made[-1:]
        absent = ", ".join(name for name in names if name not in made)
        if absent:
            raise common.UnusableError(f"--output: {self._options.net} makes no {absent}; it makes {', '.join(made)[:500]}")
        return names

    def _check_inputs(self) -> None:
        made: set[str] = set()
        taken: dict[str, None] = {}
        for operator in self._net.op:
            taken.update(dict.fromkeys(name for name in operator.input if name not in made))
            made.update(operator.output)
        wanted = [name for name in taken if not self._workspace.HasBlob(name)]
        given = self._batches[0].keys()
        if not set(wanted) <= given <= taken.keys():
            raise common.UnusableError(
                f"--input {self._options.input}: {self._options.net} takes {', '.join(wanted) or 'none but its weights'}"
            )

    def _feed(self, batch: Mapping[str, np.ndarray]) -> None:
        for name, value in batch.items():
            self._workspace.FeedBlob(name, value, device_option=onednn() if name in self._on_device else None)

    def _of(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._feed(batch)
        self.run()
        return self._fetched()

    def _fetched(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(self._workspace.FetchBlob(name)) for name in self._outputs}

    def _choose(self) -> None:
        """Have Caffe2 take the backend asked for, as far as it can.

        Raises:
            OtherBackendError: it has none of it.
        """
        backend = self._options.backend
        if backend == "cuda":
            raise common.OtherBackendError("asked for cuda: this runner computes on CPUs alone")
        if backend in ENGINES:
            set_engine(self._net, backend, frozenset(self._workspace.RegisteredOperators()))
        if backend == "onednn":
            if not self._workspace.C.use_mkldnn:
                raise common.OtherBackendError("asked for onednn: this Caffe2 is built without it")
            self._net, self._on_device = Placement(self._workspace).placed(self._net)


def save_text(outputs: Mapping[str, np.ndarray], directory: str | None) -> None:
    """Write each output as ``<name>.txt``, as caffe2_benchmark does: its sizes in one row, its values in the next."""
    if directory is None:
        return
    try:
        for name, value in zip(common.file_names(outputs), outputs.values()):  # noqa: B905
            with open(os.path.join(directory, f"{name}.txt"), "w") as file:
                print(", ".join(map(str, value.shape or (1,))), file=file)
                print(",".join(f"{number:.9g}" for number in value.ravel().tolist()), file=file)
    except OSError as error:
        raise common.UnusableError(f"--output_folder {directory}: {error}") from error


# ---------------------------------------------------------------- backends


def set_engine(net: Any, backend: str, registered: frozenset[str]) -> None:
    """Name the backend's engine in all operators that have it, and none in the others.

    Raises:
        OtherBackendError: there is none that has it; Caffe2 would run the network without it, and say nothing.
    """
    engine = ENGINES[backend]
    for operator in net.op:
        operator.engine = engine if f"{operator.type}_ENGINE_{engine}" in registered else ""
    if engine and not any(operator.engine for operator in net.op):
        types = ", ".join(sorted({operator.type for operator in net.op}))
        raise common.OtherBackendError(f"asked for {backend}: Caffe2 has no engine {engine} for any of {types}")


def onednn() -> Any:
    """The option that puts an operator or a blob on oneDNN's device."""
    return caffe2("python.core").DeviceOption(caffe2("proto.caffe2_pb2").IDEEP)


class Placement:
    """Puts a network's operators on oneDNN's device, and copies around those that are not to be had there.

    Weights and inputs must be in the workspace, where each is put where the first operator that takes it wants it.
    """

    def __init__(self, workspace: Any) -> None:
        self._workspace = workspace
        self._given: dict[str, bool] = {}  # weights and inputs, and whether they are on the device
        self._made: set[str] = set()

    def placed(self, net: Any) -> tuple[Any, frozenset[str]]:
        """A net, and which of its weights and inputs are on the device."""
        there = [self._is_there(operator) for operator in net.op]
        result = copy.deepcopy(net)
        del result.op[:]
        for operator, on_device in zip(net.op, there):  # noqa: B905
            for step in self._steps(operator, on_device):
                result.op.add().CopyFrom(step)
                if not all(there):  # where a blob is that an operator makes is known only when it has run
                    self._workspace.RunOperatorOnce(step)
            self._made.update(operator.output)
        return result, frozenset(name for name, on_device in self._given.items() if on_device)

    def _steps(self, operator: Any, on_device: bool) -> list[Any]:
        """The operator, behind copies of those inputs that are not where it is."""
        steps, changed = [], copy.deepcopy(operator)
        if on_device:
            changed.device_option.CopyFrom(onednn())
        for index, name in enumerate(operator.input):
            if name not in self._made and name not in self._given:
                self._move(name, on_device)
            if self._must_move(name, on_device):
                changed.input[index] = f"{name}, {'for' if on_device else 'from'} oneDNN"
                steps.append(self._copy(name, changed.input[index], on_device))
        return [*steps, changed]

    def _move(self, name: str, on_device: bool) -> None:
        """Put a weight or an input where it is wanted; numbers that are no floats stay, for the device takes them so."""
        if self._must_move(name, on_device):
            option = onednn() if on_device else None
            self._workspace.FeedBlob(name, self._workspace.FetchBlob(name), device_option=option)
        self._given[name] = not self._blob(name).is_tensor()

    def _must_move(self, name: str, on_device: bool) -> bool:
        """Whether it is elsewhere. What no operator has made yet is made on the device, as all are then."""
        if not self._workspace.HasBlob(name):
            return False
        plain = self._blob(name).is_tensor()
        return plain and self._is_float(name) if on_device else not plain

    def _copy(self, source: str, target: str, to_device: bool) -> Any:
        kind = "CopyCPUToIDEEP" if to_device else "CopyIDEEPToCPU"
        return caffe2("python.core").CreateOperator(kind, [source], [target], device_option=onednn())

    def _blob(self, name: str) -> Any:
        return self._workspace.C.Workspace.current.blobs[name]

    def _is_float(self, name: str) -> bool:
        return bool(self._workspace.FetchBlob(name).dtype == np.float32)

    def _is_there(self, operator: Any) -> bool:
        """Whether Caffe2 can make it on the device, tried where it harms nothing.

        It can make an FC of any axis, whose output has two dimensions there whatever its axis: that would be another network.
        """
        if operator.type == "FC" and any(argument.name == "axis" and argument.i != 1 for argument in operator.arg):
            return False
        home = self._workspace.CurrentWorkspace()
        self._workspace.SwitchWorkspace("aibenchd, on trial", True)
        net = caffe2("proto.caffe2_pb2").NetDef(name="on trial", op=[operator], device_option=onednn())
        net.op[0].device_option.CopyFrom(onednn())
        try:
            for name in operator.input:
                self._workspace.CreateBlob(name)
            self._workspace.C.create_net(net.SerializeToString(), True)
        except RuntimeError:
            return False
        finally:
            self._workspace.ResetWorkspace()
            self._workspace.SwitchWorkspace(home)
        return True


# ---------------------------------------------------------------- evidence


class Witness:
    """A second process, forked now, that does something when it is asked, and tells what was found in it.

    Args:
        watch: what it does: it gives operators, and what was written while each of them ran.
    """

    def __init__(self, watch: Callable[[], list[tuple[Any, str]]]) -> None:
        common.flush()
        asked, self._ask = os.pipe()
        self._answer, answer = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            os.close(self._ask)
            _bear_witness(watch, asked, answer)
        os.close(asked)
        os.close(answer)

    def report(self) -> tuple[dict[str, dict[str, int]], list[str]]:
        """Calls by backend and routine, the most telling first, and why engines refused operators."""
        os.write(self._ask, b"?")
        with open(self._answer, "rb", closefd=False) as file:
            text = file.read()
        found = json.loads(text or b'{"failed": "it ended without a word"}')
        if "failed" in found:
            raise RuntimeError(f"the process that reads the libraries' logs: {found['failed']}")
        return found["found"], found["refusals"]

    def close(self) -> None:
        """It ends when nobody can ask any more."""
        os.close(self._ask)
        os.close(self._answer)
        os.waitpid(self._process, 0)


def _bear_witness(watch: Callable[[], list[tuple[Any, str]]], asked: int, answer: int) -> None:
    """The whole life of the second process."""
    try:
        if os.read(asked, 1):
            with tempfile.TemporaryFile() as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                found, refusals = findings(watch())
            _write_all(answer, json.dumps({"found": found, "refusals": refusals}))
    except BaseException as error:  # noqa: BLE001  it must not go on as if it were the first process
        _write_all(answer, json.dumps({"failed": f"{type(error).__name__}: {common.first_line(error)}"}))
    finally:
        os._exit(0)


def _write_all(descriptor: int, text: str) -> None:
    with open(descriptor, "w", closefd=False) as file:
        file.write(text)


def written_by(work: Callable[[Any], object], argument: Any) -> str:
    """What is written to standard output, which is a file, while that works."""
    before = os.fstat(1).st_size
    work(argument)
    common.flush()
    return os.pread(1, os.fstat(1).st_size - before, before).decode(errors="replace")


def findings(rows: Iterable[tuple[Any, str]]) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Calls by backend and routine, the most telling first, and why engines refused operators."""
    found: dict[str, collections.Counter[str]] = {
        backend: collections.Counter() for backend in ("onednn", "nnpack", "eigen", "mkl", "cpu")
    }
    refusals: dict[str, None] = {}
    for operator, log in rows:
        refused = [f"{kind}: {' '.join(reason.split())}" for kind, reason in REFUSED_ROW.findall(log)]
        refusals.update(dict.fromkeys(refused))
        logged = {
            "onednn": ONEDNN_ROW.findall(log),
            "nnpack": [operator.type] * len(NNPACK_ROW.findall(log)),
            "mkl": MKL_ROW.findall(log),
        }
        if operator.engine == ENGINES["eigen"] and not refused and not any(logged.values()):
            logged["eigen"] = [operator.type]
        if not operator.device_option.device_type:
            logged["cpu"] = ["operator"]
        for backend, calls in logged.items():
            found[backend].update(calls)
    return {backend: dict(calls) for backend, calls in found.items()}, list(refusals)


if __name__ == "__main__":
    sys.exit(main())
