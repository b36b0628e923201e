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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aibenchd import model
from aibenchd.frameworks import base, gathering

PYTORCH = "PyTorchObserver "
CAFFE2 = "Caffe2Observer "
BACKEND = "NET backend"
LINE = '{"type": "NET", "metric": "latency", "unit": "us", "values": [812.0, 809.5]}'  # after an identifier

_DECODER = json.JSONDecoder(parse_int=float)  # a float: an integer of ten thousand digits must not cost time


def parse(output: str, benchmark: model.Benchmark, identifiers: Sequence[str]) -> base.Output:
    """All records of an output, gathered by key in the order in which keys first appear.

    Args:
        benchmark: its model's ``converter`` may name another identifier, or none.
        identifiers: what stands before a record, by the framework's custom.
    """
    gathered = gathering.Gathered()
    gather(output, benchmark, identifiers, gathered)
    return gathered.output()


def gather(output: str, benchmark: model.Benchmark, identifiers: Sequence[str], gathered: gathering.Gathered) -> None:
    """As :func:`parse`, for a framework whose programs print more than observer lines."""
    for record in _records(output, _identifiers(benchmark, identifiers)):
        add(record, gathered)


def add(record: Mapping[str, Any], gathered: gathering.Gathered) -> None:
    """Add what one record says, in either form."""
    for series in _new_form(record) if {"type", "metric"} <= record.keys() else _old_form(record):
        if series.key == BACKEND:
            gathered.state(series.text)
        else:
            gathered.add(series)


def decoded(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at ``start``, whatever comes after it, and where it ends; None where there is none."""
    if start < 0:
        return None, start
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, start


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
            record, _ = decoded(row, row.find("{", place + length))
            if isinstance(record, dict):
                yield record


def _new_form(record: Mapping[str, Any]) -> Iterator[model.Series]:
    names = (record["type"], record["metric"], record.get("unit") or "")
    if all(isinstance(name, str) for name in names):
        yield _series(*names, record)
        if isinstance(record.get("summary"), dict) and "num_runs" in record and record["metric"] == "latency":
            yield gathering.series(record["type"], "runs", "", _values({"value": record["num_runs"]}))


def _old_form(record: Mapping[str, Any]) -> Iterator[model.Series]:
    for kind, metrics in record.items():
        if isinstance(metrics, dict) and "custom_output" not in record:
            for metric, facts in metrics.items():
                if isinstance(facts, dict):
                    yield _series(kind, metric, str(facts.get("unit") or ""), facts)


def _series(kind: str, metric: str, unit: str, facts: Mapping[str, Any]) -> model.Series:
    text = facts.get("info_string", "")
    return gathering.series(kind, metric, unit, _values(facts), text if isinstance(text, str) else "")


def _values(facts: Mapping[str, Any]) -> Iterator[float]:
    summary, values = facts.get("summary"), facts.get("values")
    given = [facts.get("value"), *(values if isinstance(values, list) else ())]
    if isinstance(summary, dict) and all(value is None for value in given):
        given = [summary.get("p50", summary.get("mean"))]
    return (number for number in map(gathering.number, given) if number is not None)
