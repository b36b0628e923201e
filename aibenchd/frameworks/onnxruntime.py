"""ONNX files: :mod:`aibenchd.runners.onnxruntime_runner` and its neighbour for OpenGL, or ``onnxruntime_perf_test``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aibenchd import model
from aibenchd.frameworks import base, gathering, observer, perf_test, placeholders, runner_command

NETWORK = ("network", "model", "graph")  # keys of the file that holds the network, where a model has several


class OnnxRuntime(base.Framework):
    name: ClassVar[str] = "onnxruntime"
    line: ClassVar[str] = observer.PYTORCH + observer.LINE
    backends: ClassVar[Mapping[str, str]] = {
        "cpu": "nodes that the CPUExecutionProvider executed, by ONNX Runtime's profile of a run",
        "xnnpack": "nodes that the XnnpackExecutionProvider executed, by ONNX Runtime's profile of a run",
        "onednn": "nodes that the DnnlExecutionProvider executed, by ONNX Runtime's profile of a run",
        "cuda": "nodes that the CUDAExecutionProvider executed, by ONNX Runtime's profile of a run",
        "dsp": "nodes that the QNNExecutionProvider executed, by ONNX Runtime's profile of a run",
        "opengl": "OpenGL's renderer, and how many shaders were dispatched; the file is computed without ONNX Runtime",
    }

    def commands(self, benchmark: model.Benchmark, place: base.Place) -> tuple[str, ...]:
        """Without commands of its own a test has the runner's."""
        return placeholders.commands(runner_command.commanded(benchmark, NETWORK), place)

    def parse(self, output: str, benchmark: model.Benchmark) -> base.Output:
        gathered = gathering.Gathered()
        observer.gather(output, benchmark, (observer.PYTORCH,), gathered)
        perf_test.gather(output, gathered)
        return gathered.output()
