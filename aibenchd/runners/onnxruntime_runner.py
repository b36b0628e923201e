#!/usr/bin/env python3
"""Times a network in ONNX Runtime and says so in observer lines.

    onnxruntime_runner.py --model net.onnx --warmup 3 --iterations 20 --operators
    onnxruntime_runner.py --module engine:squeezenet --input-dims "1,3,224,224;1,10" --input-type "float;int64"

Needs common.py, onnx_file.py and onnx_model.py beside it, and onnxruntime. Options, what is printed, and the exit status: see
common.py and onnx_model.py.

Each backend is an execution provider, and the session is made with that one and the CPU's, which takes what nodes it leaves.
Which provider executed each node is read from ONNX Runtime's profile of a run of its own, after all that is timed: what a
session lists as its providers says nothing. CUDA's device is chosen by CUDA_VISIBLE_DEVICES. Where the package onnxruntime-qnn
is installed it brings Qualcomm's DSP, or its model in software on a processor that has none, for networks that are quantized.

Operators are nodes as ONNX Runtime executes them: fused, and in its own order. Where a GPU executes some they are left out,
for ONNX Runtime only knows when it launched them.
"""

from __future__ import annotations

import collections
import importlib
import json
import os
import re
import sys
import tempfile

import numpy as np

MYPY = False
if MYPY:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from aibenchd.runners import common, onnx_model
else:
    import common
    import onnx_model

NAME = "onnxruntime_runner"

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else released builds send to their maker what they run, beside what is timed

try:
    onnxruntime: Any = importlib.import_module("onnxruntime")
except ImportError as absent:
    sys.exit(common.fail(NAME, common.UNUSABLE, f"onnxruntime cannot be imported: {absent}"))

CUDA = "CUDAExecutionProvider"
PROVIDERS = {  # the most telling first
    "cuda": CUDA,
    "dsp": "QNNExecutionProvider",
    "onednn": "DnnlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
PLUGINS = {"QNNExecutionProvider": "onnxruntime_qnn"}  # packages that bring a provider to an ONNX Runtime without it
KINDS = {"float32": "float", "float64": "double"}  # ONNX Runtime's own names
FATAL = 4  # of ONNX Runtime's log levels; errors are raised too
RUN = "model_run"  # what the profile calls a run


def main(argv: list[str] | None = None) -> int:
    return onnx_model.main(NAME, "Times a network in ONNX Runtime and prints observer lines.", tuple(PROVIDERS), load, argv)


def load(options: argparse.Namespace, inputs: list[np.ndarray]) -> OrtNetwork:
    return OrtNetwork(onnx_model.model_of(options), options, inputs)


class OrtNetwork(common.Network):
    """A network in a session of ONNX Runtime's."""

    def __init__(self, model: bytes | str, options: argparse.Namespace, inputs: Sequence[np.ndarray]) -> None:
        self._model = model
        self._plugin = plug_in(PROVIDERS.get(options.backend, ""))
        self._providers = providers(options.backend)
        self._threads = common.threads(options)
        self._profiled = (min(options.iterations, common.PROFILED) if options.operators else 0) + 1
        self._session = self._make()
        self._inputs = by_name(self._session, inputs)
        self._names = [one.name for one in self._session.get_outputs()]
        self._binding = self._bound(self._session)
        self._runs: list[list[dict[str, Any]]] = []

    def run(self) -> None:
        executed(self._session, self._binding)

    def outputs(self) -> Mapping[str, Any]:
        return dict(zip(self._names, self._binding.copy_outputs_to_cpu()))  # noqa: B905  Python 3.9

    def evidence(self) -> Mapping[str, Mapping[str, int]]:
        nodes = collections.Counter(node["args"].get("provider", "") for node in self._profile()[0])
        return {backend: {provider: nodes[provider]} for backend, provider in PROVIDERS.items() if nodes[provider]}

    def operators(self, iterations: int) -> Mapping[tuple[int, str], Sequence[float]]:
        if "cuda" in self.evidence():
            return {}
        found = collections.defaultdict(list)
        for nodes in self._profile()[1 : iterations + 1]:
            for index, node in enumerate(nodes):
                found[index, operator_of(node)].append(float(node["dur"]))
        return found

    def profile(self, runs: int) -> Sequence[Mapping[str, Any]]:
        return self._profiled_events(runs)

    def _make(self, profile: str = "") -> Any:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = FATAL
        settings.intra_op_num_threads = self._threads
        settings.inter_op_num_threads = 1
        if profile:
            settings.enable_profiling, settings.profile_file_prefix = True, profile
        if self._plugin:
            devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == self._providers[0]]
            settings.add_provider_for_devices(devices[:1], self._plugin)
        try:
            return onnxruntime.InferenceSession(self._model, settings, providers=None if self._plugin else self._providers)
        except Exception as error:
            if isinstance(self._model, bytes):
                raise
            raise common.UnusableError(
                f"{self._model}: ONNX Runtime {onnxruntime.__version__} makes no session of it: {common.first_line(error)}"
            ) from error

    def _bound(self, session: Any) -> Any:
        """The inputs where the first provider reads them, and outputs that stay where it leaves them."""
        memory = "cuda" if CUDA in session.get_providers() else "cpu"
        binding = session.io_binding()
        for name, value in self._inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, memory, 0))
        for name in self._names:
            binding.bind_output(name, memory)
        return binding

    def _profile(self) -> list[list[dict[str, Any]]]:
        """The nodes of each run of a session that is profiled. The first run is a warm-up."""
        if not self._runs:
            self._runs = list(runs_in(self._profiled_events(self._profiled)))
        return self._runs

    def _profiled_events(self, runs: int) -> list[dict[str, Any]]:
        """All that ONNX Runtime's profile of a session of its own holds."""
        self._session = self._binding = None  # two sessions at once would be what the most memory is found to be
        with tempfile.TemporaryDirectory() as directory:
            session = self._make(os.path.join(directory, "profile"))
            binding = self._bound(session)
            for _ in range(runs):
                executed(session, binding)
            with open(session.end_profiling(), encoding="utf-8") as file:
                events: list[dict[str, Any]] = json.load(file)
        return events


def executed(session: Any, binding: Any) -> None:
    """Run it once, until the outputs are there."""
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()


def providers(backend: str) -> list[str]:
    """What a session is made with: the backend's provider, or all those known where none is asked for; and the CPU's.

    Raises:
        OtherBackendError: the backend's provider is not there.
    """
    there = onnxruntime.get_available_providers()
    wanted = [PROVIDERS[backend]] if backend else [name for name in PROVIDERS.values() if name in there]
    if wanted[0] not in there:
        raise common.OtherBackendError(
            f"asked for {backend}: ONNX Runtime {onnxruntime.__version__} has no {wanted[0]} here; it has {', '.join(there)}"
        )
    return list(dict.fromkeys([*wanted, PROVIDERS["cpu"]]))


def plug_in(provider: str) -> dict[str, str]:
    """Have a package bring a provider, where there is such a package; the options by which it is used, else none."""
    try:
        plugin = importlib.import_module(PLUGINS.get(provider, "no plug-in"))
    except ImportError:
        return {}
    onnxruntime.register_execution_provider_library(provider, plugin.get_library_path())
    return {"backend_path": plugin.get_qnn_htp_path()}


def by_name(session: Any, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs by the network's names, in its order.

    Raises:
        UnusableError: it takes another number of them, other types or other shapes.
    """
    expected = session.get_inputs()
    if len(expected) != len(inputs):
        names = ", ".join(one.name for one in expected)
        raise common.UnusableError(f"the network takes {len(expected)} inputs ({names}), and is given {len(inputs)}")
    for one, value in zip(expected, inputs):  # noqa: B905  Python 3.9
        kind = f"tensor({KINDS.get(str(value.dtype), value.dtype)})"
        if one.type != kind or not fits(value.shape, one.shape):
            raise common.UnusableError(
                f"the network's input {one.name} is {one.type} {one.shape}, and given is {kind} {list(value.shape)}"
            )
    return {one.name: value for one, value in zip(expected, inputs)}  # noqa: B905  Python 3.9


def fits(shape: Sequence[int], wanted: Sequence[int | str | None]) -> bool:
    """Whether a shape is one of those wanted: names and None stand for any size."""
    fixed = [(size, one) for size, one in zip(shape, wanted) if isinstance(one, int)]  # noqa: B905  Python 3.9
    return len(shape) == len(wanted) and all(size == one for size, one in fixed)


def runs_in(events: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The nodes of each run that no other node was executing, in order of time."""
    nodes = sorted((event for event in events if event["cat"] == "Node"), key=lambda event: (event["ts"], -event["dur"]))
    for run in (event for event in events if event["name"] == RUN):
        inside = [node for node in nodes if run["ts"] <= node["ts"] <= run["ts"] + run["dur"]]
        yield list(outermost(inside))


def operator_of(node: dict[str, Any]) -> str:
    """Its operator, or the provider that made one of several nodes: without the number that this model alone has."""
    return re.sub(r"(ExecutionProvider)_\d+_\d+$", r"\1", node["args"]["op_name"])


def outermost(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Those that lie within no other. They come by their beginning, and of several the longest first."""
    end = 0
    for node in nodes:
        if node["ts"] >= end:
            yield node
            end = node["ts"] + node["dur"]


if __name__ == "__main__":
    sys.exit(main())
