"""TensorFlow Lite: TensorFlow's own ``benchmark_model``, or :mod:`aibenchd.runners.tflite_runner`, which takes its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from aibenchd import model
from aibenchd.frameworks import base, benchmark_model, gathering, legacy, observer, placeholders

# What asks for a backend where a command does not name {backend} itself.
OPTIONS = {
    "cpu": "--use_xnnpack=false",
    "xnnpack": "--use_xnnpack=true",
    "opengl": "--use_gpu=true --gpu_backend=gl",
    "dsp": "--use_hexagon=true",
}


class TfLite(base.Framework):
    name: ClassVar[str] = "tflite"
    backends: ClassVar[Mapping[str, str]] = {
        "cpu": "the built-in kernels: no delegate is in the graph that LiteRT executes, or in benchmark_model's log",
        "xnnpack": "nodes that its delegate took, by the graph that LiteRT executes, or by benchmark_model's log",
        "opengl": "benchmark_model's log: the GPU delegate was applied, and its OpenGL-based API initialized",
        "dsp": "benchmark_model's log: nodes that the Hexagon delegate took",
    }

    def commands(self, benchmark: model.Benchmark, place: base.Place) -> tuple[str, ...]:
        """Without commands of its own a test has those that FAI-PEP composed."""
        given = benchmark.test.get("commands") or legacy.tflite(benchmark)
        if place.backend in OPTIONS and "{backend}" not in str(given):
            arguments = f"{place.extra_arguments} {OPTIONS[place.backend]}".strip()
            place = dataclasses.replace(place, extra_arguments=arguments)
        test = {**benchmark.test, "commands": given}
        return placeholders.commands(model.Benchmark(benchmark.model, test, benchmark.source), place)

    def parse(self, output: str, benchmark: model.Benchmark) -> base.Output:
        gathered = gathering.Gathered()
        observer.gather(output, benchmark, (observer.PYTORCH, observer.CAFFE2), gathered)
        benchmark_model.gather(output, gathered)
        return gathered.output()
