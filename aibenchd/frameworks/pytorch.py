"""PyTorch: programs such as :mod:`aibenchd.runners.torch_runner`, or PyTorch's own ``speed_benchmark_torch``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aibenchd import model
from aibenchd.frameworks import base, observer, placeholders


class PyTorch(base.Framework):
    name: ClassVar[str] = "pytorch"
    backends: ClassVar[Mapping[str, str]] = {
        "cpu": "the process never made a CUDA context; which library computed is left to PyTorch",
        "onednn": "oneDNN's own log of the primitives that it executed (torch.backends.mkldnn.verbose)",
        "mkl": "MKL's own log of the routines that were called (torch.backends.mkl.verbose), with oneDNN switched off",
        "nnpack": "_nnpack_spatial_convolution among the operators, by the profiler; takes a batch of 16 or more",
        "cuda": "kernels on the GPU, by the profiler",
    }

    def commands(self, benchmark: model.Benchmark, place: base.Place) -> tuple[str, ...]:
        return placeholders.commands(benchmark, place)

    def parse(self, output: str, benchmark: model.Benchmark) -> base.Output:
        return observer.parse(output, benchmark, (observer.PYTORCH,))
