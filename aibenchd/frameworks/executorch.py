"""ExecuTorch: :mod:`aibenchd.runners.executorch_runner`, or its own ``executor_runner`` behind a script with the same options.

Of the latter the log is read, as its versions print it:

    I 00:00:00.004 executorch:executor_runner.cpp:480] Model loaded in 12.5 ms.
    I 00:00:00.017 executorch:executor_runner.cpp:614] Iteration 1 of 11: 9.204000 ms         the first is NET first_run
    I 00:00:00.099 executorch:executor_runner.cpp:623] Model executed successfully 11 time(s) in 98.1 ms.

Versions that log no iterations have their mean for one sample of all their runs, the first among them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from aibenchd import model
from aibenchd.frameworks import base, gathering, observer, placeholders, runner_command

NETWORK = ("network", "model", "program")  # keys of the file that holds the network, where a model has several

_LOADED = re.compile(r"\] Model loaded in ([0-9.]{1,40}) ms\.")
_ITERATION = re.compile(r"\] Iteration (\d{1,9}) of \d{1,9}: ([0-9.]{1,40}) ms")
_EXECUTED = re.compile(r"\] Model executed successfully (\d{1,9}) time\(s\) in ([0-9.]{1,40}) ms\.")


class ExecuTorch(base.Framework):
    name: ClassVar[str] = "executorch"
    backends: ClassVar[Mapping[str, str]] = {
        "xnnpack": "calls of the delegate XnnpackBackend, by ExecuTorch's trace of a run (ETDump); with executor_runner the only"
        " delegate that the program names, for ExecuTorch puts nothing in a delegate's place",
        "cpu": "calls of ExecuTorch's own kernels and of no delegate, by the same trace; with executor_runner a program that"
        " names no delegate",
    }

    def commands(self, benchmark: model.Benchmark, place: base.Place) -> tuple[str, ...]:
        """Without commands of its own a test has the runner's."""
        return placeholders.commands(runner_command.commanded(benchmark, NETWORK), place)

    def parse(self, output: str, benchmark: model.Benchmark) -> base.Output:
        gathered = gathering.Gathered()
        observer.gather(output, benchmark, (observer.PYTORCH,), gathered)
        _gather(output, gathered)
        return gathered.output()


def _gather(output: str, gathered: gathering.Gathered) -> None:
    iterated = False
    for row in output.split("\n"):
        if " ms" not in row or len(row) > gathering.MAX_ROW:
            continue
        if match := _LOADED.search(row):
            _add("load", match[1], 1, gathered)
        elif match := _ITERATION.search(row):
            iterated = True
            _add("first_run" if int(match[1]) == 1 else "latency", match[2], 1, gathered)
        elif (match := _EXECUTED.search(row)) and not iterated:
            _add("latency", match[2], int(match[1]), gathered)


def _add(metric: str, milliseconds: str, runs: int, gathered: gathering.Gathered) -> None:
    value = gathering.number(milliseconds)
    if value is not None and runs:
        gathered.add(gathering.series("NET", metric, "us", (1000 * value / runs,)))
