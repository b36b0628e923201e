"""Any program at all: it is told what to do by its benchmark's commands, and prints observer lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aibenchd import model
from aibenchd.frameworks import base, observer, placeholders


class Generic(base.Framework):
    name: ClassVar[str] = "generic"
    line: ClassVar[str] = observer.PYTORCH + observer.LINE
    backends: ClassVar[Mapping[str, str]] = {}  # a program has to state NET backend, and is believed

    def commands(self, benchmark: model.Benchmark, place: base.Place) -> tuple[str, ...]:
        return placeholders.commands(benchmark, place)

    def parse(self, output: str, benchmark: model.Benchmark) -> base.Output:
        return observer.parse(output, benchmark, (observer.PYTORCH, observer.CAFFE2))
