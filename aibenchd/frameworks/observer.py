"""Reads observer lines: ``PyTorchObserver {…}``, one JSON record after an identifier, as PyTorch's and Caffe2's programs print.

    {"type": "NET", "metric": "latency", "unit": "us", "value": 1234.5}     or "values": […], or "info_string": "…",
                                                                            or "summary": {"p50": …}, "num_runs": …
    {"NET": {"latency": {"value": "1234.5", "unit": "us"}}, "ID_0_Conv": {…}}                       the older form

A program may print anything: what is no record is skipped, and nothing here raises. Text counts as a number where it reads
as one. NaN and infinities are handed on: who judges the trial must see them. A summary's median stands for its samples.
``NET backend`` is no series but the evidence of what executed. ``{"custom_output": …}`` is for people, and skipped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aibenchd import model
from aibenchd.frameworks import base

PYTORCH = "PyTorchObserver "
CAFFE2 = "Caffe2Observer "

LARGEST = 1e150  # of a sample; a larger one, whose square is no number any more, counts as infinite
MAX_VALUES = 1_000_000  # samples of one output; what comes after them is dropped
MAX_SERIES = 20_000  # of one output
MAX_NAME = 300  # characters of a type, a metric or a unit
MAX_TEXT = 64 << 10  # characters of an info_string

_DECODER = json.JSONDecoder(parse_int=float)  # a float: an integer of ten thousand digits must not cost time


def parse(output: str, benchmark: model.Benchmark, identifiers: Sequence[str]) -> base.Output:
    """All records of an output, gathered by key in the order in which keys first appear.

    Args:
        benchmark: its model's ``converter`` may name another identifier, or none.
        identifiers: what stands before a record, by the framework's custom.
    """
    gathered = _Gathered()
    for record in _records(output, _identifiers(benchmark, identifiers)):
        for series in _new_form(record) if {"type", "metric"} <= record.keys() else _old_form(record):
            gathered.add(series)
    return gathered.output()


def _identifiers(benchmark: model.Benchmark, identifiers: Sequence[str]) -> tuple[str, ...]:
    converter = benchmark.model.get("converter")
    if not isinstance(converter, Mapping):
        return tuple(identifiers)
    arguments = converter.get("args")
    identifier = arguments.get("identifier") if isinstance(arguments, Mapping) else None
    takes_one = converter.get("name") == "json_with_identifier_converter"
    return (identifier,) if takes_one and isinstance(identifier, str) else ("",)


def _records(output: str, identifiers: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for row in output.split("\n"):
        starts = [(row.find(identifier), len(identifier)) for identifier in identifiers if identifier in row]
        if starts:
            place, length = min(starts)
            record = _decoded(row, row.find("{", place + length))
            if isinstance(record, dict):
                yield record


def _decoded(row: str, start: int) -> Any:
    """The JSON value that begins at ``start``, whatever comes after it; None where there is none."""
    if start < 0:
        return None
    try:
        return _DECODER.raw_decode(row, start)[0]
    except (ValueError, RecursionError):
        return None


def _new_form(record: Mapping[str, Any]) -> Iterator[model.Series]:
    names = (record["type"], record["metric"], record.get("unit") or "")
    if all(isinstance(name, str) for name in names):
        yield _series(*names, record)


def _old_form(record: Mapping[str, Any]) -> Iterator[model.Series]:
    for kind, metrics in record.items():
        if isinstance(metrics, dict) and "custom_output" not in record:
            for metric, facts in metrics.items():
                if isinstance(facts, dict):
                    yield _series(kind, metric, str(facts.get("unit") or ""), facts)


def _series(kind: str, metric: str, unit: str, facts: Mapping[str, Any]) -> model.Series:
    text = facts.get("info_string", "")
    return model.Series(
        _name(kind), _name(metric), _name(unit), tuple(_values(facts)), _text(text) if isinstance(text, str) else ""
    )


def _values(facts: Mapping[str, Any]) -> Iterator[float]:
    summary, values = facts.get("summary"), facts.get("values")
    given = [facts.get("value"), *(values if isinstance(values, list) else ())]
    if isinstance(summary, dict) and all(value is None for value in given):
        given = [summary.get("p50", summary.get("mean"))]
    return (number for number in map(_number, given) if number is not None)


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, float | str) else None
    except ValueError:
        return None
    return math.copysign(math.inf, number) if number is not None and abs(number) > LARGEST else number


def _name(text: str) -> str:
    """As it may stand in a file name, a table or a log: bounded, in one line, encodable."""
    text = text[:MAX_NAME]
    return text if text.isprintable() else "".join(character if character.isprintable() else "?" for character in text)


def _text(text: str) -> str:
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()


class _Gathered:
    """Series by key, with a bound on how much they hold."""

    def __init__(self) -> None:
        self._first: dict[str, model.Series] = {}
        self._values: dict[str, list[float]] = {}
        self._left = MAX_VALUES
        self._backends: dict[str, None] = {}

    def add(self, series: model.Series) -> None:
        """Samples of a key in another unit than its first are dropped: they cannot be laid beside the others."""
        if series.key == "NET backend":
            self._backends[series.text] = None
            return
        if series.key not in self._first and len(self._first) < MAX_SERIES:
            self._first[series.key], self._values[series.key] = series, []
        if series.key in self._first and self._first[series.key].unit == series.unit:
            kept = series.values[: self._left]
            self._left -= len(kept)
            self._values[series.key].extend(kept)

    def output(self) -> base.Output:
        """Two backends that were stated are both given, so that neither passes for the one."""
        series = tuple(
            model.Series(first.type, first.metric, first.unit, tuple(self._values[key]), first.text)
            for key, first in self._first.items()
        )
        return base.Output(series, "+".join(sorted(filter(None, self._backends))))
