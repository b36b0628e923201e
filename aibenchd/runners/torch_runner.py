#!/usr/bin/env python3
"""Times a PyTorch network and says so in observer lines. One file; needs torch and nothing else.

    torch_runner.py --model net.pt --input-dims 1,3,224,224 --warmup 3 --iterations 20
    torch_runner.py --module engine:squeezenet --input-dims "1,3,224,224;1,10" --input-type "float;int64" --operators

``--model`` takes TorchScript, or what ``torch.export.save`` wrote where its name ends in ``.pt2``; ``--module`` a function of
no arguments that returns a network. Inputs are drawn from a generator that depends on nothing but their shape and type, so
that every version of torch, every device and every arm gets the same bytes.

Printed, as ``PyTorchObserver {"type": …, "metric": …, "unit": …, "value"|"values"|"info_string": …}``:

    NET load, NET first_run      us; once per process: the network made, and run for the first time
    NET latency                  us; one value per iteration, in order
    NET output_digest            SHA-256 over the types, shapes and bytes of all outputs
    NET backend, NET evidence    what executed, and by what that is known
    ID_<n>_<operator> latency    us; with --operators: one value per profiled iteration, after all of the above was timed

Exit status: 0 done; 1 the network failed; 2 the arguments or files cannot be used; 3 another backend than asked for executed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import gc
import hashlib
import importlib
import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # none of the profiler's own log; read when torch is loaded

try:
    import torch
except ImportError as absent:
    print(f"torch_runner: torch cannot be imported: {absent}", file=sys.stderr)
    sys.exit(2)

FAILED, UNUSABLE, OTHER_BACKEND = 1, 2, 3  # exit status
BACKENDS = ("cpu", "onednn", "mkl", "nnpack", "cuda")
MOST_TELLING = ("cuda", "nnpack", "onednn", "mkl")  # which of those that executed is stated, where none was asked for
PROFILED = 10  # iterations at most: profiles grow large, and each process is one sample anyway
ITERATION = "aibenchd iteration"
SEED = 0

TYPES = {
    "float": torch.float32,
    "float32": torch.float32,
    "double": torch.float64,
    "float64": torch.float64,
    "half": torch.float16,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "uint8": torch.uint8,
    "uint8_t": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int": torch.int32,
    "int32": torch.int32,
    "long": torch.int64,
    "int64": torch.int64,
    "bool": torch.bool,
}

ONEDNN_ROW = re.compile(r"^onednn_verbose,(?:[^,]*,)?primitive,exec,[^,]*,(?!reorder,)(\w+)", re.MULTILINE)
MKL_ROW = re.compile(r"^MKL_VERBOSE (\w+)\(", re.MULTILINE)
NNPACK_OPERATOR = "aten::_nnpack_spatial_convolution"


class UnusableError(Exception):
    """The arguments name something that cannot be used."""


class OtherBackendError(Exception):
    """What was asked for is not what executed, or cannot be had here."""


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    try:
        with torch.inference_mode():
            measure(options)
    except UnusableError as error:
        return fail(UNUSABLE, error)
    except OtherBackendError as error:
        return fail(OTHER_BACKEND, error)
    except Exception as error:  # noqa: BLE001  a network may raise anything
        return fail(FAILED, f"the network failed{place_of(error)}: {type(error).__name__}: {first_line(error)}")
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torch_runner", description="Times a PyTorch network and prints observer lines.")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--model", metavar="FILE", help="TorchScript, or torch.export's where it ends in .pt2")
    network.add_argument("--module", metavar="MODULE:FACTORY", help="a function that returns a network")
    parser.add_argument("--input-dims", required=True, metavar="DIMS", help='shapes, such as "1,3,224,224;1,10"')
    parser.add_argument("--input-type", default="float", metavar="TYPES", help='for all inputs, or one for each: "float;int64"')
    parser.add_argument("--warmup", type=whole(0), default=1, metavar="N", help="runs after the first and before those timed")
    parser.add_argument("--iterations", type=whole(1), default=10, metavar="N", help="runs that are timed")
    parser.add_argument("--threads", type=whole(1), metavar="N", help="of one operator; default: what torch takes")
    parser.add_argument("--backend", default="", choices=("", *BACKENDS), help="must execute; default: what torch chooses")
    parser.add_argument("--operators", action="store_true", help="time each operator too")
    return parser.parse_args(argv)


def whole(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more")
        return value

    return number


def measure(options: argparse.Namespace) -> None:
    """Run the network and print all that is known of it."""
    choose(options.backend)
    if options.threads:
        torch.set_num_threads(options.threads)
    inputs = [tensor.to(device_of(options.backend)) for tensor in make_inputs(options.input_dims, options.input_type)]
    started = time.perf_counter_ns()
    network = load(options)
    observe("load", "us", value=microseconds(time.perf_counter_ns() - started))

    first, outputs = timed(network, inputs)
    observe("first_run", "us", value=first)
    for _ in range(options.warmup):
        timed(network, inputs)
    observe("latency", "us", values=latencies(network, inputs, options.iterations))

    observe("output_digest", "", info_string=digest(outputs))
    evidence = watch(network, inputs)
    observe("backend", "", info_string=judged(evidence, options.backend))
    observe("evidence", "", info_string=shown(evidence))
    if options.operators:
        for (index, name), values in operators(network, inputs, min(options.iterations, PROFILED)).items():
            observe("latency", "us", kind=f"ID_{index}_{name}", values=values)


def observe(metric: str, unit: str, *, kind: str = "NET", **facts: object) -> None:
    print("PyTorchObserver " + json.dumps({"type": kind, "metric": metric, "unit": unit, **facts}), flush=True)


# ---------------------------------------------------------------- the network and its inputs


def load(options: argparse.Namespace) -> torch.nn.Module:
    torch.manual_seed(SEED)
    network = from_module(options.module) if options.module else from_file(options.model)
    return network.to(device_of(options.backend))


def from_file(path: str) -> torch.nn.Module:
    if not os.path.isfile(path):  # noqa: PTH113  pathlib is one more import
        raise UnusableError(f"{path}: there is no such file")
    try:
        if path.endswith(".pt2"):
            return importlib.import_module("torch.export").load(path).module()
        return torch.jit.load(path, map_location="cpu").eval()
    except Exception as error:
        expected = "torch.export.save" if path.endswith(".pt2") else "torch.jit.save"
        raise UnusableError(f"{path}: is not what {expected} writes: {first_line(error)}") from error


def from_module(text: str) -> torch.nn.Module:
    name, _, factory = text.partition(":")
    if not name or not factory:
        raise UnusableError(f"--module {text}: expected MODULE:FACTORY, such as engine:squeezenet")
    try:
        make = getattr(importlib.import_module(name), factory)
    except (ImportError, AttributeError) as error:
        raise UnusableError(f"--module {text}: {first_line(error)}") from error
    network = make()
    if not isinstance(network, torch.nn.Module):
        raise UnusableError(f"--module {text}: returned {type(network).__name__}, expected torch.nn.Module")
    return network.eval()


def make_inputs(dims: str, types: str) -> list[torch.Tensor]:
    shapes = [shape_of(text) for text in dims.split(";")]
    names = types.split(";")
    if len(names) not in (1, len(shapes)):
        raise UnusableError(f"--input-type {types}: expected one type, or one for each of {len(shapes)} inputs")
    names = names * len(shapes) if len(names) == 1 else names
    return [make_input(shape, name.strip(), index) for index, (shape, name) in enumerate(zip(shapes, names))]  # noqa: B905


def shape_of(text: str) -> list[int]:
    try:
        shape = [int(number) for number in text.split(",")]
    except ValueError:
        shape = []
    if not shape or min(shape) < 1:
        raise UnusableError(f"--input-dims: {text!r} is no shape; expected sizes such as 1,3,224,224")
    return shape


def make_input(shape: list[int], name: str, index: int) -> torch.Tensor:
    """Numbers from SHAKE-256 of shape, type and place: floats in [-1, 1) in steps of 2^-15, integers from 0 to 127."""
    if name not in TYPES:
        raise UnusableError(f"--input-type: {name!r} is none of {', '.join(TYPES)}")
    count = 1
    for size in shape:
        count *= size
    stream = hashlib.shake_256(f"aibenchd {SEED} {index} {shape} {str(TYPES[name])[len('torch.') :]}".encode())
    if TYPES[name].is_floating_point:
        numbers = torch.frombuffer(bytearray(stream.digest(2 * count)), dtype=torch.int16)
        return (numbers.to(torch.float32) / 32768).to(TYPES[name]).reshape(shape)
    numbers = torch.frombuffer(bytearray(stream.digest(count)), dtype=torch.uint8)
    return (numbers % (2 if name == "bool" else 128)).to(TYPES[name]).reshape(shape)


# ---------------------------------------------------------------- time


def timed(network: torch.nn.Module, inputs: list[torch.Tensor]) -> tuple[float, object]:
    """One run: microseconds until its outputs are there, and the outputs."""
    started = time.perf_counter_ns()
    outputs = network(*inputs)
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return microseconds(time.perf_counter_ns() - started), outputs


def latencies(network: torch.nn.Module, inputs: list[torch.Tensor], iterations: int) -> list[float]:
    gc.collect()
    gc.disable()
    try:
        return [timed(network, inputs)[0] for _ in range(iterations)]
    finally:
        gc.enable()


def microseconds(nanoseconds: int) -> float:
    return nanoseconds / 1000


def operators(network: torch.nn.Module, inputs: list[torch.Tensor], iterations: int) -> dict[tuple[int, str], list[float]]:
    """Microseconds of each operator that no other operator called, by its turn and name, one value per iteration."""
    found = collections.defaultdict(list)
    for events in profiled(network, inputs, iterations):
        for index, event in enumerate(events):
            name = event.name.rpartition("::")[2]
            found[index, name].append(event.device_time_total if inputs[0].is_cuda else event.cpu_time_total)
    return dict(found)


def profiled(network: torch.nn.Module, inputs: list[torch.Tensor], iterations: int) -> list[list[Any]]:
    """The outermost operators of each iteration, in the order in which they began."""
    with profiler(inputs[0].is_cuda) as profile:
        for _ in range(iterations):
            with torch.autograd.profiler.record_function(ITERATION):
                timed(network, inputs)
    by_iteration = collections.defaultdict(list)
    for event in profile.function_events:
        if "::" in event.name:
            *callers, outermost = ancestors(event)
            if outermost.name == ITERATION and not any("::" in caller.name for caller in callers):
                by_iteration[id(outermost)].append(event)
    return [sorted(events, key=lambda event: event.time_range.start) for events in by_iteration.values()]


def ancestors(event: Any) -> list[Any]:
    """All that called an event, from the innermost on; the event itself where none did."""
    callers = []
    while event.cpu_parent is not None:
        event = event.cpu_parent
        callers.append(event)
    return callers or [event]


def profiler(cuda: bool) -> Any:
    # Kineto sees a GPU's kernels, and takes a second to start.
    return torch.autograd.profiler.profile(use_kineto=cuda, use_device="cuda" if cuda else None)


# ---------------------------------------------------------------- what came out


def digest(outputs: object) -> str:
    total = hashlib.sha256()
    for tensor in tensors_in(outputs):
        dense = tensor.detach().cpu().contiguous()
        total.update(f"{dense.dtype} {list(dense.shape)}\n".encode())
        total.update(ctypes.string_at(dense.data_ptr(), dense.numel() * dense.element_size()))
    return total.hexdigest()


def tensors_in(value: object) -> list[torch.Tensor]:
    """All tensors in nested lists, tuples and dictionaries, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for child in children for tensor in tensors_in(child)]


# ---------------------------------------------------------------- backends


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


def choose(backend: str) -> None:
    """Have torch take a backend, by leaving it no other that it would prefer."""
    there = {
        "onednn": torch.backends.mkldnn.is_available,
        "mkl": torch.backends.mkl.is_available,
        "nnpack": torch.backends.nnpack.is_available,
        "cuda": torch.cuda.is_available,
    }
    if backend in there and not there[backend]():
        raise OtherBackendError(f"asked for {backend}: torch {torch.__version__} has none here")
    if backend in ("mkl", "nnpack"):
        torch.backends.mkldnn.set_flags(False)
    if backend in ("mkl", "onednn"):
        torch.backends.nnpack.set_flags(False)


def watch(network: torch.nn.Module, inputs: list[torch.Tensor]) -> dict[str, collections.Counter[str]]:
    """Run the network once more while each library says what it executes: calls by backend and name."""
    with captured() as log, profiler(inputs[0].is_cuda) as profile, contextlib.ExitStack() as stack:
        for library in (torch.backends.mkldnn, torch.backends.mkl):
            if library.is_available():
                stack.enter_context(library.verbose(1))
        timed(network, inputs)
    on_gpu = (
        ["kernel" for event in profile.function_events if event.device_type == torch.autograd.DeviceType.CUDA]
        if inputs[0].is_cuda
        else ["context"] * torch.cuda.is_initialized()
    )
    return {
        "onednn": collections.Counter(ONEDNN_ROW.findall(log[0])),
        "mkl": collections.Counter(MKL_ROW.findall(log[0])),
        "nnpack": collections.Counter("convolution" for event in profile.function_events if event.name == NNPACK_OPERATOR),
        "cuda": collections.Counter(on_gpu),
    }


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
    """A list that holds, when the block is left, what C code wrote to standard output meanwhile."""
    log: list[str] = []
    flush()
    saved = os.dup(1)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 1)
            try:
                yield log
            finally:
                flush()  # before descriptor 1 is given back: C's buffer would land in our own output
                os.dup2(saved, 1)
            file.seek(0)
            log.append(file.read().decode(errors="replace"))
    finally:
        os.close(saved)


def flush() -> None:
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)


def judged(evidence: dict[str, collections.Counter[str]], asked: str) -> str:
    """The backend that executed.

    Raises:
        OtherBackendError: it is not the one that was asked for.
    """
    executed = [backend for backend in MOST_TELLING if evidence[backend]]
    if asked in executed or (asked == "cpu" and "cuda" not in executed):
        return asked
    if asked:
        raise OtherBackendError(f"asked for {asked}, but it did not execute: {shown(evidence)}{advice(asked)}")
    return executed[0] if executed else "cpu"


def advice(asked: str) -> str:
    return {
        "nnpack": "; torch takes it for float convolutions of a batch of 16 or more",
        "onednn": "; torch takes it for convolutions that are large enough",
    }.get(asked, "")


def shown(evidence: dict[str, collections.Counter[str]]) -> str:
    calls = (f"{backend} {name} x {count}" for backend, names in evidence.items() for name, count in sorted(names.items()))
    return ", ".join(calls) or "no library logged a call"


# ---------------------------------------------------------------- messages


def fail(status: int, message: object) -> int:
    print(f"torch_runner: {message}", file=sys.stderr)
    return status


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:500]


def place_of(error: BaseException) -> str:
    """Where in the network's own code an exception came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}torch{os.sep}" not in frame.filename]
    foreign = [frame for frame in frames if frame.filename != __file__]
    return f" at {foreign[-1].filename}:{foreign[-1].lineno}" if foreign else ""


if __name__ == "__main__":
    sys.exit(main())
