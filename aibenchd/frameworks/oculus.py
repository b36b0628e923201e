"""Oculus: FAI-PEP's name for a program of one's own on an Android headset, which writes a report instead of printing one.

    {program} --json {TGTDIR}report.json --input <files> --output <files>

is what a test without commands runs, and then the report is printed. It is JSON: records such as
``{"type": "NET", "metric": "latency", "unit": "us", "value": 1.5}`` in lists, one list for each test that the program made.
Records are read in the rows of any command's output too: bare, or after ``PyTorchObserver`` or ``Caffe2Observer``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from aibenchd import model
from aibenchd.frameworks import base, gathering, observer, placeholders

REPORT = "{TGTDIR}report.json"
MAX_DEPTH = 8  # of lists in lists
MAX_LISTS = 200  # that are tried; a list that does not end is read to the end of the output

_OPENING = re.compile(r"^[ \t]*\[", re.MULTILINE)


class Oculus(base.Framework):
    name: ClassVar[str] = "oculus"
    backends: ClassVar[Mapping[str, str]] = {}  # a program has to state NET backend, and is believed

    def commands(self, benchmark: model.Benchmark, place: base.Place) -> tuple[str, ...]:
        """Without commands of its own a test has those that FAI-PEP composed."""
        test = {**benchmark.test, "commands": benchmark.test.get("commands") or _composed(benchmark)}
        return placeholders.commands(model.Benchmark(benchmark.model, test, benchmark.source), place)

    def parse(self, output: str, benchmark: model.Benchmark) -> base.Output:
        gathered = gathering.Gathered()
        reports, rest = _parted(output)
        for record in _records(reports, MAX_DEPTH):
            observer.add(record, gathered)
        observer.gather(rest, benchmark, ("",), gathered)
        return gathered.output()


def _parted(output: str) -> tuple[list[Any], str]:
    """The lists that begin a row, over as many rows as they go on, and all rows beside them."""
    reports: list[Any] = []
    rest, end, place = [], 0, 0
    for _ in range(MAX_LISTS):
        match = _OPENING.search(output, place)
        if not match:
            break
        report, place = observer.decoded(output, match.end() - 1)
        if report is None:
            place = match.end()
        else:
            reports.append(report)
            rest.append(output[end : match.start()])
            end = place
    return reports, "\n".join([*rest, output[end:]])


def _records(value: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list) and depth:
        for one in value:
            yield from _records(one, depth - 1)


def _composed(benchmark: model.Benchmark) -> list[str]:
    options = [
        f"--{option} " + " ".join(f"{{{key}.{name}}}" for name in names)
        for option, key in (("input", "input_files"), ("output", "output_files"))
        if isinstance(names := benchmark.test.get(key), Mapping) and names
    ]
    return [" ".join([f"{{program}} --json {REPORT}", *options]), f"cat {REPORT}"]
