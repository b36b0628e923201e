#!/usr/bin/env python3
"""Times a network in ExecuTorch and says so in observer lines.

    executorch_runner.py --model net.pte --warmup 3 --iterations 20 --operators
    executorch_runner.py --module engine:squeezenet --input-dims "1,3,224,224" --backend cpu

Needs common.py and torch_runner.py beside it, executorch and torch. Options, what is printed, and the exit status: see
common.py. Shapes and types of inputs are the program's own where none are given. Of several methods the first is run.

What ExecuTorch executes is decided when a network is exported, and a ``.pte`` file holds that decision: asking for another
backend than the file was lowered to is an error. ``--module`` names a function of no arguments that returns a PyTorch network,
which is exported here for its inputs, and lowered to XNNPACK unless the backend is ``cpu``. That takes seconds, and is done
before the network is loaded: it is in the cold start and in the peak of memory, and in no other time.

Backends are XNNPACK, and ``cpu``: ExecuTorch's own kernels, with no delegate. Which one executed each instruction is read from
ExecuTorch's trace of a run of its own (ETDump), after all that is timed. Operators within XNNPACK's delegate are those that it
names, in whole microseconds.
"""

from __future__ import annotations

import argparse
import atexit
import collections
import importlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

import numpy as np

MYPY = False
if MYPY:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from aibenchd.runners import common, torch_runner
else:
    import common
    import torch_runner

import torch  # noqa: E402  torch_runner says so where there is none

NAME = "executorch_runner"

try:  # what executorch.runtime wraps; that imports all of the exporter, which would triple the time of a trial
    runtime: Any = importlib.import_module("executorch.extension.pybindings._C")
except ImportError as absent:
    sys.exit(common.fail(NAME, common.UNUSABLE, f"executorch cannot be imported: {absent}"))

PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__))))
PROGRAM = "exir/_serialize/program.fbs"
TRACE = "devtools/etdump/etdump_schema_flatcc.fbs"

BACKENDS = ("xnnpack", "cpu")
DELEGATES = {"XnnpackBackend": "xnnpack"}
KERNEL_CALL, DELEGATE_CALL = "OPERATOR_CALL", "DELEGATE_CALL"  # how the trace calls an instruction
NO_JSON = re.compile(r'(?<="double_val": )-?(?:inf|nan)')  # how flatc writes constants that JSON has not
TYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64", 11: "bool"}
ADVICE = {
    "cpu": "; the program was lowered to a delegate: export it without a partitioner",
    "xnnpack": "; a program must be lowered to it when it is exported, by XnnpackPartitioner",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=NAME, allow_abbrev=False, description="Times a network in ExecuTorch and prints observer lines."
    )
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--model", metavar="FILE", help="a .pte file")
    network.add_argument("--module", metavar="MODULE:FACTORY", help="a function that returns a PyTorch network, to be exported")
    common.add_options(parser, BACKENDS)
    return common.main(NAME, parser.parse_args(argv), Program, inputs=make_inputs)


# ---------------------------------------------------------------- inputs, and the program where it is made for them


def make_inputs(options: argparse.Namespace) -> list[np.ndarray]:
    """The inputs that the options name, else those that the program states. Where it is a module's, it is made now."""
    if options.module:
        inputs = common.make_inputs(options)
        options.model = exported(options, inputs)
        return inputs
    if not options.input_dims and not options.input_file:
        take_own_inputs(options)
    return common.make_inputs(options)


def take_own_inputs(options: argparse.Namespace) -> None:
    """Put the shapes and types that the program states into the options.

    Raises:
        UnusableError: they are not all tensors of numbers.
    """
    program = opened(options.model)
    stated = program.method_meta(program.get_method_name(0))
    try:
        inputs = [stated.input_tensor_meta(index) for index in range(stated.num_inputs())]
        types = [TYPES[one.dtype()] for one in inputs]
    except (KeyError, RuntimeError) as error:
        message = f"{options.model}: its inputs are not all tensors of numbers; expected --input-file or --input-dims: {stated}"
        raise common.UnusableError(message) from error
    options.input_dims = ";".join(",".join(map(str, one.sizes())) for one in inputs)
    options.input_type = ";".join(types)


def exported(options: argparse.Namespace, inputs: Sequence[np.ndarray]) -> str:
    """A file of the module's network, lowered to the backend; it is gone when the process ends."""
    warnings.simplefilter("ignore")  # of what torch and its exporter tell their own developers
    logging.disable(logging.WARNING)
    exir: Any = importlib.import_module("executorch.exir")
    passes: Any = importlib.import_module("executorch.exir.passes")
    partition: Any = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    partitioners = [] if options.backend == "cpu" else [partition.XnnpackPartitioner()]
    where_they_lie = passes.MemoryPlanningPass(alloc_graph_input=False)  # inputs are read, and no copy of them is timed
    torch.manual_seed(common.SEED)
    network = torch_runner.from_module(options.module)
    program = exir.to_edge_transform_and_lower(torch.export.export(network, tuple(tensors(inputs))), partitioner=partitioners)
    directory = tempfile.mkdtemp(prefix="executorch-export-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    path = os.path.join(directory, "network.pte")
    with open(path, "wb") as file:
        program.to_executorch(exir.ExecutorchBackendConfig(memory_planning_pass=where_they_lie)).write_to_file(file)
    return path


def tensors(inputs: Sequence[np.ndarray]) -> list[torch.Tensor]:
    return torch_runner.as_tensors(inputs, "contiguous_format", "cpu")


# ---------------------------------------------------------------- the network


def opened(path: str, trace: bool = False) -> Any:
    """A program of ExecuTorch's, with no method loaded yet.

    Raises:
        UnusableError: the file is none.
    """
    if not os.path.isfile(path):
        raise common.UnusableError(f"{path}: there is no such file")
    try:
        return runtime._load_program(path, enable_etdump=trace, program_verification=runtime.Verification.InternalConsistency)
    except RuntimeError as error:
        raise common.UnusableError(f"{path}: is no program of ExecuTorch: {common.first_line(error)}") from error


class Program(common.Network):
    """The first method of a program."""

    def __init__(self, options: argparse.Namespace, inputs: list[np.ndarray]) -> None:
        self._path, self._asked = options.model, options.backend
        self._profiled = (min(options.iterations, common.PROFILED) if options.operators else 0) + 1
        self._inputs = tensors(inputs)
        self._runs: list[list[Call]] = []
        runtime._unsafe_reset_threadpool(common.threads(options))
        self._program = opened(self._path)
        self._method = method_of(self._program, self._path)
        self._check()

    def _check(self) -> None:
        try:
            self._method.set_inputs(self._inputs)
        except RuntimeError as error:
            given = "; ".join(f"{tensor.dtype} {list(tensor.shape)}" for tensor in self._inputs)
            message = f"the network takes no inputs of {given}, but as follows: {self._method.method_meta()}"
            raise common.UnusableError(message) from error

    def run(self) -> None:
        self._method.set_inputs(self._inputs)  # each time: a program may plan to use their memory again within a run
        self._method.execute()

    def outputs(self) -> Mapping[str, np.ndarray]:
        given = self._method.get_outputs()
        every = torch_runner.named(given[0] if len(given) == 1 else given, "")
        return {name: torch_runner.as_array(value) for name, value in every}

    def evidence(self) -> Mapping[str, Mapping[str, int]]:
        found = evidence_of(self._trace()[0])
        common.judged(found, self._asked, ADVICE.get(self._asked, ""))
        return found

    def operators(self, iterations: int) -> Mapping[tuple[int, str], Sequence[float]]:
        found = collections.defaultdict(list)
        for calls in self._trace()[1 : iterations + 1]:
            for index, call in enumerate(calls):
                found[index, re.sub(r"\W+", "_", call.operator).strip("_")].append(call.microseconds)
        return found

    def _trace(self) -> list[list[Call]]:
        """What each run of a program that is traced executed. The first run is a warm-up."""
        if not self._runs:
            program = opened(self._path, trace=True)
            method = method_of(program, self._path)
            for _ in range(self._profiled):
                method.set_inputs(self._inputs)
                method.execute()
            with tempfile.TemporaryDirectory() as directory:
                dump = os.path.join(directory, "trace.etdp")
                program.write_etdump_result_to_file(dump, os.path.join(directory, "unused"))
                trace = as_json(TRACE, dump, "--size-prefixed")
            plan = as_json(PROGRAM, self._path)["execution_plan"][0]
            runs = [run["events"] for run in trace["run_data"] if run["name"] == "Execute"]
            self._runs = [list(calls_in(plan, events)) for events in runs]
        return self._runs


def method_of(program: Any, path: str) -> Any:
    """
    Raises:
        OtherBackendError: it is lowered to a delegate that is not here.
        UnusableError: it cannot be loaded for another reason.
    """
    try:
        return program.load_method(program.get_method_name(0))
    except RuntimeError as error:
        there = runtime._get_registered_backend_names()
        named = [delegate["id"] for delegate in as_json(PROGRAM, path)["execution_plan"][0]["delegates"]]
        absent = sorted(set(named) - set(there))
        if absent:
            message = f"{path}: is lowered to {', '.join(absent)}, which ExecuTorch lacks here; it has {', '.join(there)}"
            raise common.OtherBackendError(message) from error
        raise common.UnusableError(f"{path}: cannot be loaded: {common.first_line(error)}") from error


# ---------------------------------------------------------------- what executed


class Call:
    """An operator that was executed, once."""

    def __init__(self, backend: str, operator: str, event: Mapping[str, Any]) -> None:
        self.backend, self.operator = backend, operator
        self.microseconds: float = (event["end_time"] - event["start_time"]) / 1000


def calls_in(plan: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Iterator[Call]:
    """The operators of one run, in order: a delegate's own where it names them, else all that it does as one."""
    within = []
    for event in (event["profile_event"] for event in events if "profile_event" in event):
        name = event.get("name", "")
        if "delegate_debug_id_str" in event:
            within.append(event)
        elif name == KERNEL_CALL:
            kernel = plan["operators"][arguments_of(plan, event)["op_index"]]["name"]
            yield Call("cpu", kernel.rpartition("::")[2], event)
        elif name == DELEGATE_CALL:
            delegate = plan["delegates"][arguments_of(plan, event)["delegate_index"]]["id"]
            backend = DELEGATES.get(delegate, delegate)
            for one in within:
                yield Call(backend, re.sub(r" #\d+$", "", one["delegate_debug_id_str"]), one)
            if not within:
                yield Call(backend, delegate, event)
            within = []


def arguments_of(plan: Mapping[str, Any], event: Mapping[str, Any]) -> Any:
    """Those of the instruction that an event is of."""
    return plan["chains"][event["chain_index"]]["instructions"][event["instruction_id"]]["instr_args"]


def evidence_of(calls: Sequence[Call]) -> dict[str, collections.Counter[str]]:
    """By backend. What was left outside of a delegate is told with the delegate: it is no proof of the backend ``cpu``."""
    found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for call in calls:
        found[call.backend][call.operator] += 1
    delegates = [backend for backend in found if backend != "cpu"]
    if delegates:
        outside = found.pop("cpu", collections.Counter())
        found[delegates[0]].update({f"{name} outside of the delegate": count for name, count in outside.items()})
    return found


def as_json(schema: str, path: str, *options: str) -> Any:
    """A FlatBuffers file of one of ExecuTorch's own schemas, read by the program that its package brings."""
    with tempfile.TemporaryDirectory() as directory:
        program, options = os.path.join(PACKAGE, "data/bin/flatc"), ("--json", "--strict-json", "--defaults-json", *options)
        command = [program, *options, "--raw-binary", "-o", directory, os.path.join(PACKAGE, schema), "--", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (name,) = os.listdir(directory)
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            return json.loads(NO_JSON.sub("null", file.read()))


if __name__ == "__main__":
    sys.exit(main())
