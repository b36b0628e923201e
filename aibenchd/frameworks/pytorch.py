"""PyTorch: :mod:`aibenchd.runners.torch_runner`, or its own ``speed_benchmark_torch`` behind a script with the same options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aibenchd import model
from aibenchd.frameworks import base, observer, placeholders, runner_command

NETWORK = ("network", "model")  # keys of the file that holds the network, where a model has several


class PyTorch(base.Framework):
    name: ClassVar[str] = "pytorch"
    line: ClassVar[str] = observer.PYTORCH + observer.LINE
    backends: ClassVar[Mapping[str, str]] = {
        "cpu": "operators, by the profiler, and no kernel on a GPU beside them; which library computed is left to PyTorch",
        "onednn": "oneDNN's own log of the primitives that it executed (torch.backends.mkldnn.verbose)",
        "mkl": "MKL's own log of the routines that were called (torch.backends.mkl.verbose), with oneDNN switched off",
        "nnpack": "_nnpack_spatial_convolution among the operators, by the profiler; takes a batch of 16 or more",
        "cuda": "kernels on the GPU, by the profiler",
    }

    def commands(self, benchmark: model.Benchmark, place: base.Place) -> tuple[str, ...]:
        return placeholders.commands(runner_command.commanded(benchmark, NETWORK), place)

    def parse(self, output: str, benchmark: model.Benchmark) -> base.Output:
        return observer.parse(output, benchmark, (observer.PYTORCH,))
