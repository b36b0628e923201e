#!/usr/bin/env python3
"""Times a PyTorch network and says so in observer lines; needs torch, numpy, and ``common.py`` beside this file.

    torch_runner.py --model net.pt --input-dims 1,3,224,224 --warmup 3 --iterations 20
    torch_runner.py --module engine:squeezenet --input-dims "1,3,224,224;1,10" --input-type "float;int64" --operators --compile

``--model`` takes TorchScript, or what ``torch.export.save`` wrote where its name ends in ``.pt2``; ``--module`` a function of
no arguments that returns a network. ``--compile`` has torch.compile do it: anew in each process, in the first run, with nothing
kept from an earlier one; with ``--operators`` the code that is timed has marks for the profiler in it. What is printed, and the
exit status: see ``common.py``. The evidence says too which GPU executed, and how many compiled graphs were called, and how many
operators outside of them.

The GPU is the first that the process sees; ``CUDA_VISIBLE_DEVICES`` says which that is.

The options of PyTorch's own ``speed_benchmark_torch`` are taken too, and those that cannot be honoured here are refused by name.
"""

from __future__ import annotations

import argparse
import atexit
import collections
import contextlib
import importlib
import json
import os
import re
import shutil
import sys
import tempfile

MYPY = False
if MYPY:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    import numpy as np

    from aibenchd.runners import common
else:
    import common

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # none of the profiler's own log; read when torch is loaded

try:
    import torch
except ImportError as absent:
    sys.exit(common.fail("torch_runner", common.UNUSABLE, f"torch cannot be imported: {absent}"))

BACKENDS = ("cpu", "onednn", "mkl", "nnpack", "cuda")
MEMORY_FORMATS = ("contiguous_format", "channels_last")
ITERATION = "aibenchd iteration"
TRACED = ("cpu_op", "user_annotation", "kernel", "gpu_memcpy", "gpu_memset")  # kinds of a trace's events
TRUTHS = {"true": True, "1": True, "false": False, "0": False}
SYNONYMS = {
    "--input_dims": "--input-dims",
    "--input_type": "--input-type",
    "--iter": "--iterations",
    "--pthreadpool_size": "--threads",
}
FIXED = {
    "--report_pep": ("true", "observer lines are what this program prints"),
    "--print_output": ("false", "outputs are written, by --output-directory"),
    "--use_caching_allocator": ("false", "Python does not reach torch's allocator for phones"),
    "--vulkan": ("false", "torch for Python has no Vulkan"),
    "--pytext_len": ("0", "the length is one more input; give it by --input-file"),
}
ADVICE = {
    "nnpack": "; torch takes it for float convolutions of a batch of 16 or more",
    "onednn": "; torch takes it for convolutions that are large enough",
}

ONEDNN_ROW = re.compile(r"^onednn_verbose,(?:[^,]*,)?primitive,exec,[^,]*,(?!reorder,)(\w+)", re.MULTILINE)
MKL_ROW = re.compile(r"^MKL_VERBOSE (\w+)\(", re.MULTILINE)
NNPACK_OPERATOR = "aten::_nnpack_spatial_convolution"
COMPILED = "## Call CompiledFxGraph"  # how the profiler calls one run of what torch.compile made
OPERATOR = re.compile(r"(?:\w+::)+(\S+)|(?:graph_\d+_)?((?:cpp|triton)_\w+)")  # or what torch.compile fused of several


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    with torch.inference_mode():
        return common.main("torch_runner", options, load, inputs=make_inputs)


# ---------------------------------------------------------------- options


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Every runner's options, and speed_benchmark_torch's; ends the process with status 2 for others."""
    parser = argparse.ArgumentParser(
        prog="torch_runner", description="Times a PyTorch network and prints observer lines.", allow_abbrev=False
    )
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--model", metavar="FILE", help="TorchScript, or torch.export's where it ends in .pt2")
    network.add_argument("--module", metavar="MODULE:FACTORY", help="a function that returns a network")
    parser.add_argument("--compile", action="store_true", help="have torch.compile compile it, in the first run")
    common.add_options(parser, BACKENDS)
    add_options_of_speed_benchmark(parser)
    return parser.parse_args(translated(argv))


def translated(argv: Sequence[str]) -> list[str]:
    """Options of ``speed_benchmark_torch`` by the names that they have here."""
    parts = (word.partition("=") for word in argv)
    return [SYNONYMS.get(name, name) + equals + value for name, equals, value in parts]


def add_options_of_speed_benchmark(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("of speed_benchmark_torch", f"and {', '.join(SYNONYMS)} for {', '.join(SYNONYMS.values())}")
    group.add_argument("--use_bundled_input", type=int, default=-1, metavar="N", help="the N-th that the model brings, from 0")
    group.add_argument("--no_inputs", nargs="?", const="true", default=False, type=truth, metavar="true", help="it takes none")
    group.add_argument("--input_memory_format", default="contiguous_format", metavar="FORMATS", help="or channels_last")
    for name, (value, why) in FIXED.items():
        group.add_argument(name, nargs="?", const="true", type=only(value, why), metavar=value, help=f"always: {why}")


def truth(text: str) -> bool:
    """A type of argument: true or false, as :data:`TRUTHS` has them."""
    if text.lower() not in TRUTHS:
        raise argparse.ArgumentTypeError(f"expected true or false, not {text!r}")
    return TRUTHS[text.lower()]


def only(value: str, why: str) -> Callable[[str], str]:
    """A type of argument that may say nothing but what happens anyway."""

    def same(text: str) -> str:
        if text != value and TRUTHS.get(text.lower()) is not TRUTHS[value]:
            raise argparse.ArgumentTypeError(f"cannot be {text}: {why}")
        return text

    return same


# ---------------------------------------------------------------- inputs


def make_inputs(options: argparse.Namespace) -> list[np.ndarray]:
    """Those of :mod:`common`, unless the network brings its own or takes none."""
    if options.no_inputs:
        return []
    if options.use_bundled_input >= 0:
        return bundled(options)
    return common.make_inputs(options)


def bundled(options: argparse.Namespace) -> list[np.ndarray]:
    """The inputs that a TorchScript model brings, by ``torch.utils.bundled_inputs``. It is loaded once more for them."""
    if not options.model:
        raise common.UnusableError("--use_bundled_input: expected --model, a TorchScript file")
    network, number = from_file(options.model), options.use_bundled_input
    if not hasattr(network, "get_all_bundled_inputs"):
        raise common.UnusableError(f"{options.model}: has no bundled inputs")
    every = network.get_all_bundled_inputs()
    if number >= len(every):
        raise common.UnusableError(f"--use_bundled_input {number}: {options.model} has {len(every)}")
    if not all(isinstance(value, torch.Tensor) for value in every[number]):
        raise common.UnusableError(f"--use_bundled_input {number}: {options.model}: expected tensors alone")
    return [as_array(tensor) for tensor in every[number]]


def as_tensors(inputs: Sequence[np.ndarray], formats: str, device: str) -> list[torch.Tensor]:
    """Inputs on a device, each in its memory format: one of those named is for all, else each has its own."""
    names = formats.split(";")
    names = names * len(inputs) if len(names) == 1 else names
    if len(names) != len(inputs) or not set(names) <= set(MEMORY_FORMATS):
        expected = f"expected {' or '.join(MEMORY_FORMATS)}, once or for each of {len(inputs)} inputs"
        raise common.UnusableError(f"--input_memory_format {formats}: {expected}")
    return [as_tensor(array, name).to(device) for array, name in zip(inputs, names)]  # noqa: B905  Python 3.9


def as_tensor(array: np.ndarray, memory_format: str) -> torch.Tensor:
    """On the CPU; it shares the array's memory where that has the format already.

    Raises:
        UnusableError: torch has no such type, or the format is for another number of axes.
    """
    try:
        return torch.from_numpy(array).contiguous(memory_format=getattr(torch, memory_format))
    except (TypeError, RuntimeError) as error:
        what = f"an input of {array.dtype} {list(array.shape)} in {memory_format}"
        raise common.UnusableError(f"{what} cannot be given to torch: {common.first_line(error)}") from error


# ---------------------------------------------------------------- the network


class Network(common.Network):
    """A module with its inputs, on the device that it runs on.

    Args:
        module: the network, compiled or not.
        inputs: on the same device.
        options: of the command line.
    """

    def __init__(self, module: torch.nn.Module, inputs: Sequence[torch.Tensor], options: argparse.Namespace) -> None:
        self._module, self._inputs = module, inputs
        self._compiled: bool = options.compile
        self._asked: str = options.backend
        self._given: object = None

    def run(self) -> None:
        self._given = None  # freed before the next outputs are made, as where nobody keeps them
        self._given = self._module(*self._inputs)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()

    def outputs(self) -> Mapping[str, np.ndarray]:
        return {name: as_array(value) for name, value in named(self._given, "")}

    def evidence(self) -> Mapping[str, Mapping[str, int]]:
        """From one more run, in which each library says what it executes."""
        with common.captured() as log, profiler() as profile, contextlib.ExitStack() as stack:
            for library in (torch.backends.mkldnn, torch.backends.mkl):
                if library.is_available():
                    stack.enter_context(library.verbose(1))
            self.run()
        events = profile.function_events
        kernels = on_gpu(events)
        found = {
            "cuda": collections.Counter(kernels),
            "nnpack": collections.Counter("convolution" for event in events if event.name == NNPACK_OPERATOR),
            "onednn": collections.Counter(ONEDNN_ROW.findall(log[0])),
            "mkl": collections.Counter(MKL_ROW.findall(log[0])),
            "cpu": collections.Counter(),
        }
        found["cuda" if kernels else "cpu"].update(executed(events, self._compiled))
        common.judged(found, self._asked, ADVICE.get(self._asked, ""))
        return found

    def operators(self, iterations: int) -> Mapping[tuple[int, str], Sequence[float]]:
        found = collections.defaultdict(list)
        for events in self._profiled(iterations):
            for index, event in enumerate(events):
                microseconds = event.device_time_total if torch.cuda.is_initialized() else event.cpu_time_total
                found[index, operator_of(event)].append(microseconds)
        return dict(found)

    def profile(self, runs: int) -> Sequence[Mapping[str, Any]]:
        """By torch.profiler. Traces of Kineto's hold much else: kept are what ran on the processor, and on a GPU."""
        with torch.profiler.profile() as profile:
            for _ in range(runs):
                with torch.autograd.profiler.record_function(ITERATION):
                    self.run()
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "trace.json")
            profile.export_chrome_trace(path)
            with open(path, encoding="utf-8") as file:
                events = json.load(file)["traceEvents"]
        return [event for event in events if event.get("cat") in TRACED]

    def _profiled(self, iterations: int) -> list[list[Any]]:
        """The outermost operators of each iteration, in the order in which they began."""
        with profiler() as profile:
            for _ in range(iterations):
                with torch.autograd.profiler.record_function(ITERATION):
                    self.run()
        by_iteration = collections.defaultdict(list)
        for event in outermost(profile.function_events):
            iteration = [event, *ancestors(event)][-1]
            if iteration.name == ITERATION:
                by_iteration[id(iteration)].append(event)
        return [sorted(events, key=lambda event: event.time_range.start) for events in by_iteration.values()]


def load(options: argparse.Namespace, inputs: list[np.ndarray]) -> Network:
    """Sets the threads and the seed of the whole process, the seed before the network is made."""
    choose(options.backend)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = "cuda" if options.backend == "cuda" else "cpu"
    tensors = as_tensors(inputs, options.input_memory_format, device)
    torch.manual_seed(common.SEED)
    module = (from_module(options.module) if options.module else from_file(options.model)).to(device)
    with contextlib.suppress(RuntimeError):  # the network's own code has set it, and it can be set once
        torch.set_num_interop_threads(torch.get_num_threads())  # else as many as there are processors
    return Network(compiled(module, options) if options.compile else module, tensors, options)


def from_file(path: str) -> torch.nn.Module:
    """What torch.jit.save wrote, or torch.export.save where it ends in .pt2.

    Raises:
        UnusableError: it is not there, or is something else.
    """
    if not os.path.isfile(path):
        raise common.UnusableError(f"{path}: there is no such file")
    try:
        if path.endswith(".pt2"):
            return importlib.import_module("torch.export").load(path).module()
        return torch.jit.load(path, map_location="cpu").eval()
    except Exception as error:
        expected = "torch.export.save" if path.endswith(".pt2") else "torch.jit.save"
        raise common.UnusableError(f"{path}: is not what {expected} writes: {common.first_line(error)}") from error


def from_module(text: str) -> torch.nn.Module:
    """What a function returns, in evaluation mode.

    Raises:
        UnusableError: there is no such function, or it returns something else.
    """
    network = common.made(text)
    if not isinstance(network, torch.nn.Module):
        raise common.UnusableError(f"--module {text}: returned {type(network).__name__}, expected torch.nn.Module")
    return network.eval()


def compiled(module: torch.nn.Module, options: argparse.Namespace) -> torch.nn.Module:
    """What compiles itself in its first run.

    Raises:
        UnusableError: it cannot be compiled, or nothing is there to compile with.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise common.UnusableError("--compile: torch compiles no TorchScript; expected --module, or torch.export's .pt2")
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise common.UnusableError(f"--compile: needs a C++ compiler, and {compiler} is not on PATH; install g++, or set CXX")
    directory = tempfile.mkdtemp(prefix="torch-compile-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = directory  # what an earlier process compiled would make this one's start a lie
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # in this process: helpers would be there while it is timed
    return torch.compile(module, options={"cpp.enable_kernel_profile": options.operators})


# ---------------------------------------------------------------- outputs


def named(value: object, name: str) -> Iterator[tuple[str, Any]]:
    """All tensors and numbers in nested lists, tuples and dictionaries, in order: ``output``, ``0``, ``key``, ``key.0``."""
    if isinstance(value, (torch.Tensor, bool, int, float)):
        yield name or "output", value
    elif isinstance(value, (dict, list, tuple)):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from named(child, f"{name}.{key}" if name else str(key))


def as_array(value: Any) -> np.ndarray:
    """Any tensor or number as a dense array; of a type that numpy lacks, as float32."""
    tensor = torch.as_tensor(value)
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    array: np.ndarray = tensor.numpy(force=True)
    return array


# ---------------------------------------------------------------- backends


def choose(backend: str) -> None:
    """Have torch take a backend, by leaving it no other that it would prefer."""
    there = {
        "onednn": torch.backends.mkldnn.is_available,
        "mkl": torch.backends.mkl.is_available,
        "nnpack": torch.backends.nnpack.is_available,
        "cuda": torch.cuda.is_available,
    }
    if backend in there and not there[backend]():
        raise common.OtherBackendError(f"asked for {backend}: torch {torch.__version__} has none here")
    if backend in ("mkl", "nnpack"):
        torch.backends.mkldnn.set_flags(False)
    if backend in ("mkl", "onednn"):
        torch.backends.nnpack.set_flags(False)


def executed(events: Sequence[Any], compiled: bool) -> collections.Counter[str]:
    """How many operators ran; where the network is compiled, how many compiled graphs, and what ran outside of them.

    Raises:
        OtherBackendError: it should be compiled, and nothing is.
    """
    operators = outermost(events)
    if not compiled:
        return collections.Counter(operator=len(operators))
    graphs = sum(event.name.startswith(COMPILED) for event in events)
    breaks = importlib.import_module("torch._dynamo.utils").counters["graph_break"]
    if not graphs:
        why = "; ".join(reason.strip().splitlines()[0] for reason in breaks)
        raise common.OtherBackendError(f"asked for --compile, but nothing was compiled{': ' if why else ''}{why}")
    outside = sum(not any(caller.name.startswith(COMPILED) for caller in ancestors(event)) for event in operators)
    counts = {"compiled graph": graphs, "graph break": sum(breaks.values()), "operator outside of compiled graphs": outside}
    return collections.Counter({name: count for name, count in counts.items() if count})


def on_gpu(events: Sequence[Any]) -> list[str]:
    """``kernel on <the GPU's name and UUID>``, once for each that ran."""
    there = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [event for event in there if not event.name.startswith(("Memcpy", "Memset"))]
    if not kernels:
        return []
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    return [f"kernel on {gpu.name} {getattr(gpu, 'uuid', '')}".rstrip()] * len(kernels)


def outermost(events: Sequence[Any]) -> list[Any]:
    """The operators that no other operator called."""
    return [event for event in events if operator_of(event) and not any(map(operator_of, ancestors(event)))]


def operator_of(event: Any) -> str:
    """The operator's name, without its library's; empty where the event is none: a GPU's kernel, a step of torch's own."""
    match = OPERATOR.fullmatch(event.name) if event.device_type == torch.autograd.DeviceType.CPU else None
    return match[match.lastindex or 0] if match else ""


def ancestors(event: Any) -> list[Any]:
    """All that called an event, from the innermost on."""
    callers = []
    while event.cpu_parent is not None:
        event = event.cpu_parent
        callers.append(event)
    return callers


def profiler() -> Any:
    """Of the processor, and of the GPU where the process uses one: Kineto sees its kernels, and takes a second to start."""
    cuda = torch.cuda.is_initialized()
    return torch.autograd.profiler.profile(use_kineto=cuda, use_device="cuda" if cuda else None)


if __name__ == "__main__":
    sys.exit(main())
