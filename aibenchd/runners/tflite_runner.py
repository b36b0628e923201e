#!/usr/bin/env python3
"""Times a TensorFlow Lite network on LiteRT and says so in observer lines. Needs common.py beside it, numpy and ai-edge-litert.

    tflite_runner.py --model net.tflite --warmup 3 --iterations 20 --operators
    tflite_runner.py --graph=net.tflite --num_runs=20 --input_layer=input --input_layer_shape=1,224,224,3 --use_xnnpack=false

Takes the options of every runner, and those of TensorFlow's ``benchmark_model`` as synonyms, so that specifications written
for that program run on this one. Shapes and types of inputs are the network's own where none are given; images are NHWC, as
TensorFlow Lite has them, and drawn so that they are the pictures which other frameworks get as NCHW.

Backends are XNNPACK, which LiteRT applies by itself, and ``cpu``, LiteRT's built-in kernels without a delegate. Which one
executed is read off the graph as LiteRT rewrote it: a node that a delegate took is not reached any more. LiteRT announces
that it created XNNPACK's delegate even where that took no node, so the announcement proves nothing.

What is printed, and the exit status: see common.py. Operators are timed by LiteRT's own profiler, in whole microseconds: those
within the delegate by XNNPACK's names, others by TensorFlow Lite's. Threads are OMP_NUM_THREADS where ``--threads`` does not
say, as for other frameworks' runners, else one.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import importlib
import os
import re
import sys

import numpy as np

MYPY = False
if MYPY:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from aibenchd.runners import common
else:
    import common

NAME = "tflite_runner"

try:
    litert: Any = importlib.import_module("ai_edge_litert.interpreter")
except ImportError as absent:
    sys.exit(common.fail(NAME, common.UNUSABLE, f"ai-edge-litert cannot be imported: {absent}"))

BACKENDS = ("xnnpack", "cpu")
DELEGATE = "DELEGATE"  # what LiteRT calls a node that stands for those which a delegate took
SWITCHES = {"1": True, "true": True, "0": False, "false": False}

# Options of benchmark_model that say how it measures or what else it prints: taken, and without effect here.
IGNORED = (
    "min_secs",
    "max_secs",
    "warmup_min_secs",
    "run_delay",
    "run_frequency",
    "benchmark_name",
    "output_prefix",
    "verbose",
    "allow_fp16",
    "gpu_backend",
    "print_preinvoke_state",
    "print_postinvoke_state",
    "report_peak_memory_footprint",
    "memory_footprint_check_interval_ms",
    "max_profiling_buffer_entries",
    "profiling_output_csv_file",
    "enable_platform_tracing",
)

# Options of benchmark_model that ask for what LiteRT's wheel has not: refused where they are switched on.
ABSENT = ("use_gpu", "use_nnapi", "use_legacy_nnapi", "use_hexagon", "use_coreml")


def main(argv: list[str] | None = None) -> int:
    return common.main(NAME, parse_arguments(argv), LiteRt, inputs=make_inputs)


# ---------------------------------------------------------------- options


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Every runner's options, and benchmark_model's under its own names; ends the process with status 2 for others."""
    parser = argparse.ArgumentParser(
        prog=NAME, allow_abbrev=False, description="Times a TensorFlow Lite network and prints observer lines."
    )
    parser.add_argument("--model", "--graph", required=True, metavar="FILE", help="a .tflite file")
    common.add_options(parser, BACKENDS)
    parser.set_defaults(input_layout="nhwc", input_type=None)
    alike = parser.add_argument_group("options of TensorFlow's benchmark_model")
    alike.add_argument("--input_layer", metavar="NAMES", help='whose shapes are given, such as "image,state"')
    alike.add_argument("--input_layer_shape", dest="layer_shapes", metavar="DIMS", help='such as "1,224,224,3:1,10"')
    alike.add_argument("--warmup_runs", dest="warmup", type=common.whole(0), metavar="N")
    alike.add_argument("--num_runs", dest="iterations", type=common.whole(1), metavar="N")
    alike.add_argument("--num_threads", dest="threads", type=common.whole(1), metavar="N")
    alike.add_argument("--use_xnnpack", dest="backend", type=kernels, metavar="SWITCH", help="as --backend xnnpack, or cpu")
    alike.add_argument("--enable_op_profiling", dest="operators", type=switch, metavar="SWITCH", help="as --operators")
    for name in ABSENT:
        alike.add_argument("--" + name, type=switch, help=argparse.SUPPRESS)
    for name in IGNORED:
        alike.add_argument("--" + name, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def switch(text: str) -> bool:
    """A type of argument: true or false, as TensorFlow writes them."""
    if text not in SWITCHES:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(SWITCHES)}")
    return SWITCHES[text]


def kernels(text: str) -> str:
    """A type of argument: the backend that ``--use_xnnpack`` asks for."""
    return "xnnpack" if switch(text) else "cpu"


def make_inputs(options: argparse.Namespace) -> list[np.ndarray]:
    """The inputs that the options name; where these give no shapes or types, the network's own.

    Raises:
        UnusableError: the file is no network, or its inputs are not those of the options.
        OtherBackendError: the options ask for a delegate that is not here.
    """
    asked = [name for name in ABSENT if getattr(options, name)]
    if asked:
        raise common.OtherBackendError(f"--{asked[0]}: LiteRT for Python has {' and '.join(BACKENDS)} alone")
    if options.operators:
        check_profiler()
    described = opened(options.model, litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, 1).get_input_details()
    shapes = [",".join(map(str, one["shape"])) for one in described]
    options.input_dims = options.input_dims or ";".join(given_shapes(options, [one["name"] for one in described], shapes))
    options.input_type = options.input_type or ";".join(np.dtype(one["dtype"]).name for one in described)
    return common.make_inputs(options)


def given_shapes(options: argparse.Namespace, names: list[str], shapes: list[str]) -> list[str]:
    """The shape of each input, in the network's order: benchmark_model's where it names one, else the network's own."""
    layers = options.input_layer.split(",") if options.input_layer else names
    unknown = [layer for layer in layers if layer not in names]
    if unknown:
        raise common.UnusableError(f"--input_layer {unknown[0]}: the network's inputs are {', '.join(names)}")
    if not options.layer_shapes:
        return shapes
    given = options.layer_shapes.split(":")
    if len(given) != len(layers):
        raise common.UnusableError(f"--input_layer_shape {options.layer_shapes}: expected {len(layers)}, separated by colons")
    wanted = dict(zip(layers, given))  # noqa: B905  as many
    return [wanted.get(name, shape) for name, shape in zip(names, shapes)]  # noqa: B905  as many


# ---------------------------------------------------------------- the network


def opened(path: str, kernels: Any, threads: int) -> Any:
    """An interpreter, without memory for tensors yet.

    Raises:
        UnusableError: the file is no network.
    """
    if not os.path.isfile(path):
        raise common.UnusableError(f"{path}: there is no such file")
    try:
        return litert.Interpreter(path, num_threads=threads, experimental_op_resolver_type=kernels)
    except (ValueError, RuntimeError) as error:
        raise common.UnusableError(f"{path}: is no network of TensorFlow Lite: {common.first_line(error)}") from error


class LiteRt(common.Network):
    """A network in LiteRT's interpreter, given its inputs once: running it leaves them as they are."""

    def __init__(self, options: argparse.Namespace, inputs: list[np.ndarray]) -> None:
        self._options, self._inputs = options, inputs
        kinds = litert.OpResolverType
        kernels = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if options.backend == "cpu" else kinds.AUTO
        self._interpreter = opened(options.model, kernels, common.threads(options))
        self._found: Mapping[str, Mapping[str, int]] = {}
        self._fill()

    def _fill(self) -> None:
        described = self._interpreter.get_input_details()
        if len(described) != len(self._inputs):
            raise common.UnusableError(f"{len(self._inputs)} inputs are given; the network takes {len(described)}")
        for one, value in zip(described, self._inputs):  # noqa: B905  as many
            if value.dtype != one["dtype"]:
                raise common.UnusableError(
                    f"input {one['name']}: {value.dtype} is given; the network takes {np.dtype(one['dtype']).name}"
                )
            if list(value.shape) != list(one["shape"]):
                self._interpreter.resize_tensor_input(one["index"], value.shape)
        try:
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            given = "; ".join(str(list(value.shape)) for value in self._inputs)
            raise common.UnusableError(f"the network takes no inputs of {given}: {common.first_line(error)}") from error
        for one, value in zip(described, self._inputs):  # noqa: B905  as many
            self._interpreter.set_tensor(one["index"], value)

    def run(self) -> None:
        self._interpreter.invoke()

    def outputs(self) -> Mapping[str, np.ndarray]:
        return {one["name"]: self._interpreter.get_tensor(one["index"]) for one in self._interpreter.get_output_details()}

    def evidence(self) -> Mapping[str, Mapping[str, int]]:
        """The nodes of the network by type: those that the delegate took, and those that are still executed one by one."""
        self._found = self._found or self._nodes()
        return self._found

    def _nodes(self) -> Mapping[str, Mapping[str, int]]:
        nodes = self._interpreter._get_ops_details()
        outputs = [one["index"] for one in self._interpreter.get_output_details()]
        executed = reached(nodes, outputs)
        replaced = reached([node for node in nodes if node["op_name"] != DELEGATE], outputs)
        all_of_them = collections.Counter(node["op_name"] for node in replaced)
        left = collections.Counter(node["op_name"] for node in executed)
        del left[DELEGATE]
        return {"xnnpack": all_of_them - left, "cpu": left}

    def operators(self, iterations: int) -> Mapping[tuple[int, str], Sequence[float]]:
        outputs = list(self.outputs().values())
        self.evidence()  # while the graph is there
        self._interpreter = None  # two networks at once would be what the most memory is found to be
        profiled = Profiled(self._options, self._inputs, outputs)
        found = collections.defaultdict(list)
        for _ in range(iterations):
            for index, (tag, microseconds) in enumerate(profiled.run()):
                found[index, re.sub(r"\W+", "_", tag).strip("_")].append(microseconds)
        return found


def reached(nodes: Sequence[Mapping[str, Any]], outputs: Sequence[int]) -> list[Mapping[str, Any]]:
    """The nodes that are needed for the outputs. Of two that give the same tensor the later counts: LiteRT appends those
    that it puts in place of others, and does not run what it replaced."""
    makers = {int(tensor): index for index, node in enumerate(nodes) for tensor in node["outputs"]}
    wanted, found = list(outputs), set()
    while wanted:
        index = makers.get(int(wanted.pop()))
        if index is not None and index not in found:
            found.add(index)
            wanted.extend(nodes[index]["inputs"])
    return [nodes[index] for index in sorted(found)]


# ---------------------------------------------------------------- operators

PROFILER_OF = "2.3."  # versions of ai-edge-litert whose structures are those below
OPERATOR = 2 | 4 | 8  # event types: a node, an operator within a delegate's node, and one that takes the node's place
CPU_ACCELERATOR = 1
TO_WRITE = 1  # a lock

# As LiteRT counts types of tensors.
ELEMENTS = {
    "float32": 1,
    "int32": 2,
    "uint8": 3,
    "int64": 4,
    "bool": 6,
    "int16": 7,
    "int8": 9,
    "float16": 10,
    "float64": 11,
}


class Layout(ctypes.Structure):
    """``LiteRtLayout`` of LiteRT's C interface."""

    _fields_ = (
        ("rank", ctypes.c_uint, 7),
        ("has_strides", ctypes.c_bool, 1),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    )


class TensorType(ctypes.Structure):
    """``LiteRtRankedTensorType`` of LiteRT's C interface."""

    _fields_ = (("element", ctypes.c_int), ("layout", Layout))


class Event(ctypes.Structure):
    """``ProfiledEventData`` of LiteRT's C interface; ``memory`` is bytes: three at its beginning, three at its end."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int32),
        ("start", ctypes.c_uint64),
        ("microseconds", ctypes.c_uint64),
        ("memory", ctypes.c_uint64 * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int32),
    )


def check_profiler() -> None:
    """
    Raises:
        UnusableError: the profiler's structures are unknown in this version.
    """
    version = importlib.import_module("importlib.metadata").version("ai-edge-litert")
    if not version.startswith(PROFILER_OF):
        raise common.UnusableError(f"--operators: ai-edge-litert {version} is installed; expected {PROFILER_OF}*")


def place(index: int) -> tuple[ctypes.c_size_t, ctypes.c_size_t]:
    """An index within the first signature, as the C interface is told."""
    return ctypes.c_size_t(0), ctypes.c_size_t(index)


class Profiled:
    """The network once more, in LiteRT's C interface: Python's has no profiler. Lives until the process ends."""

    def __init__(self, options: argparse.Namespace, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        self._library = ctypes.CDLL(os.path.join(os.path.dirname(litert.__file__), "libLiteRt.so"))
        self._environment = self._made("LiteRtCreateEnvironment", 0, None)
        network = self._made("LiteRtCreateModelFromFile", self._environment, os.fsencode(options.model))
        self._network = self._made("LiteRtCreateCompiledModel", self._environment, network, self._options(options))
        self._resize(inputs, len(outputs))
        self._inputs = self._buffers("Input", inputs)
        self._outputs = self._buffers("Output", outputs)
        for buffer, value in zip(self._inputs, inputs):  # noqa: B905  as many
            self._write(ctypes.c_void_p(buffer), np.ascontiguousarray(value))
        self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._network)

    def run(self) -> list[tuple[str, float]]:
        """Each operator of one run, in order, and its microseconds."""
        self._call("LiteRtStartProfiler", self._profiler)  # forgets the last run
        self._call(
            "LiteRtRunCompiledModel",
            self._network,
            ctypes.c_size_t(0),
            ctypes.c_size_t(len(self._inputs)),
            self._inputs,
            ctypes.c_size_t(len(self._outputs)),
            self._outputs,
        )
        self._call("LiteRtStopProfiler", self._profiler)
        return [(event.tag.decode(), float(event.microseconds)) for event in self._events() if event.type & OPERATOR]

    def _resize(self, inputs: Sequence[np.ndarray], outputs: int) -> None:
        for index, value in enumerate(inputs):
            sizes = (ctypes.c_int * value.ndim)(*value.shape)
            self._call(
                "LiteRtCompiledModelResizeInputTensorNonStrict", self._network, *place(index), sizes, ctypes.c_size_t(value.ndim)
            )
        layouts, allocate = (Layout * outputs)(), ctypes.c_bool(True)
        self._call("LiteRtGetCompiledModelOutputTensorLayouts", self._network, *place(outputs), layouts, allocate)

    def _events(self) -> ctypes.Array[Event]:
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        return events

    def _options(self, options: argparse.Namespace) -> ctypes.c_void_p:
        made = self._made("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", made, CPU_ACCELERATOR)
        kernels = "builtin" if options.backend == "cpu" else "xnnpack"
        texts = {
            "runtime_options_string": "enable_profiling = true\n",
            "xnnpack": f'kernel_mode = "{kernels}"\nnum_threads = {common.threads(options)}\n',  # the name of all CPU options
        }
        for name, text in texts.items():
            self._call("LiteRtAddOpaqueOptions", made, self._opaque(name, text))
        return made

    def _opaque(self, name: str, text: str) -> ctypes.c_void_p:
        allocator = ctypes.CDLL(None)
        allocator.strdup.restype = ctypes.c_void_p
        copied = ctypes.c_void_p(allocator.strdup(text.encode()))
        return self._made("LiteRtCreateOpaqueOptions", name.encode(), copied, ctypes.cast(allocator.free, ctypes.c_void_p))

    def _buffers(self, which: str, values: Sequence[np.ndarray]) -> Any:
        buffers = [self._buffer(which, index, value) for index, value in enumerate(values)]
        return (ctypes.c_void_p * len(buffers))(*buffers)

    def _buffer(self, which: str, index: int, value: np.ndarray) -> int | None:
        required = self._made(f"LiteRtGetCompiledModel{which}BufferRequirements", self._network, *place(index))
        described = TensorType(element=ELEMENTS[value.dtype.name])
        described.layout.rank = value.ndim
        described.layout.dimensions[: value.ndim] = value.shape
        made = self._made("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, ctypes.byref(described), required)
        return made.value

    def _write(self, buffer: ctypes.c_void_p, value: np.ndarray) -> None:
        address = ctypes.c_void_p()
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), TO_WRITE)
        ctypes.memmove(address, value.ctypes.data, value.nbytes)
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def _made(self, function: str, *arguments: Any) -> ctypes.c_void_p:
        """What the function stores at the address that is its last argument."""
        made = ctypes.c_void_p()
        self._call(function, *arguments, ctypes.byref(made))
        return made

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise RuntimeError(f"{function} of LiteRT's C interface returned {status}")


if __name__ == "__main__":
    sys.exit(main())
