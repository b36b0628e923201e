"""Caffe2: its own ``caffe2_benchmark``, or :mod:`aibenchd.runners.caffe2_runner`, which takes the same options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aibenchd import model
from aibenchd.frameworks import base, legacy, observer, placeholders


class Caffe2(base.Framework):
    name: ClassVar[str] = "caffe2"
    line: ClassVar[str] = observer.CAFFE2 + observer.LINE
    backends: ClassVar[Mapping[str, str]] = {
        "cpu": "operators on the device CPU; which library computes is what the network names, else Caffe2's choice",
        "mkl": "MKL's own log of the routines that were called (MKL_VERBOSE), with no engine named in the network",
        "eigen": "operators of the engine EIGEN, which Caffe2 has and did not refuse, while no library logged a call",
        "nnpack": "NNPACK's own profile of each convolution (caffe2_profile_nnpack), with the engine NNPACK",
        "onednn": "oneDNN's own log of the primitives that it executed (DNNL_VERBOSE), on the device IDEEP",
    }

    def commands(self, benchmark: model.Benchmark, place: base.Place) -> tuple[str, ...]:
        """Where the test gives none: FAI-PEP's, and the backend only where the experiment asks for one."""
        if benchmark.test.get("commands"):
            return placeholders.commands(benchmark, place)
        asked = " --backend {backend}" if place.backend else ""
        commands = [command + asked for command in legacy.caffe2(benchmark)]
        return placeholders.commands(
            model.Benchmark(benchmark.model, {**benchmark.test, "commands": commands}, benchmark.source), place
        )

    def parse(self, output: str, benchmark: model.Benchmark) -> base.Output:
        return observer.parse(output, benchmark, (observer.CAFFE2,))
