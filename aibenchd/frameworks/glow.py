"""Glow: the programs of its ``tests/benchmark``, ``net_runner``, ``image-classifier``, and whatever prints records in JSON.

    {"type": "NET", "metric": "latency", "unit": "us", "value": 12.5}     a row of JSON: a record, as observers print them
    BenchResult,AddBench,SW,4096,10,100,10,1,CPU,Float32,0.000012,4.50    seconds of a run, and Gb or Gflop a second
    individual inference latency [glow]: 1234 us
    latency per request [glow]:                                           then rows with latency(us): p50: 1234.5
    resnet: glow vs pytorch(fp32)                                         then rows with abs error p50: 0.001
    Total inference duration (ms): 500                                    and so Avg inference duration, Avg inference per second
    Wall time per item (s): 0.0123                                        newer: Average wall time per item, Best wall time

Each goes by the key that FAI-PEP gave it. ``NET latency``, which a delay is decided on, is made of the best that there is:
each inference, else each run of a benchmark, else the median, else the mean; unless a record states it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from aibenchd import model
from aibenchd.frameworks import base, gathering, observer, placeholders

MICROSECONDS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}
BACKENDS = {"CPU": "cpu", "OpenCL": "opencl", "Interpreter": "interpreter", "NNPI": "nnpi", "Habana": "habana"}
OWN = "glow"  # among the implementations that net_runner compares

_NUMBER = r"([0-9.eE+-]{1,400})"
_INDIVIDUAL = re.compile(rf"individual inference latency \[(\w{{1,100}})\]: {_NUMBER} us\s*$")
_PERCENTILE = re.compile(rf"latency\((\w{{1,10}})\): p([0-9.]{{1,10}}): {_NUMBER}", re.IGNORECASE)
_ERROR = re.compile(rf"abs error p([0-9.]{{1,10}}): {_NUMBER}", re.IGNORECASE)
_COMPARED = re.compile(r": ([^:(]{1,100}) vs ([^:(]{1,100})\(")
_DURATION = re.compile(rf"((?:Total|Avg) inference (?:duration|per second))(?: \(ms\))?: {_NUMBER}")
_WALL = re.compile(rf"(Wall time per item|Average wall time per item|Best wall time) \(s\): {_NUMBER}")


class Glow(base.Framework):
    name: ClassVar[str] = "glow"
    backends: ClassVar[Mapping[str, str]] = {
        "cpu": "the backend that a BenchResult row names: Glow compiles a network for one backend, or fails",
    }

    def commands(self, benchmark: model.Benchmark, place: base.Place) -> tuple[str, ...]:
        return placeholders.commands(benchmark, place)

    def parse(self, output: str, benchmark: model.Benchmark) -> base.Output:
        gathered = gathering.Gathered()
        observer.gather(output, benchmark, ("",), gathered)
        stated = any(series.key == model.NETWORK for series in gathered.output().series)
        found = _Found()
        for row in output.split("\n"):
            if len(row) <= gathering.MAX_ROW and not row.startswith("{"):
                for series in found.read(row):
                    gathered.add(series)
        for backend in found.backends:
            gathered.state(backend)
        if not stated and found.best():
            gathered.add(gathering.series("NET", "latency", "us", found.best()))
        return gathered.output()


class _Found:
    """What rows say, one after the other."""

    def __init__(self) -> None:
        self._heading = ("NET", "")  # type and metric of the percentiles that follow
        self._compared = ""
        self._latencies: dict[str, list[float]] = {"individual": [], "benchmark": [], "median": [], "mean": []}  # us, best first
        self.backends: dict[str, None] = {}

    def best(self) -> list[float]:
        return next(filter(None, self._latencies.values()), [])

    def read(self, row: str) -> Iterator[model.Series]:
        if row.startswith("BenchResult,"):
            yield from self._benchmark(row.split(","))
        elif "nference " in row or "all time" in row:
            yield from self._mean(row)
        elif "atency" in row:
            yield from self._percentile(row)
        elif " vs " in row and (match := _COMPARED.search(row)):
            self._compared = " vs ".join(sorted((match[1].strip(), match[2].strip())))
        elif "abs error" in row and self._compared and (match := _ERROR.search(row)):
            yield from _one("NET", f"{self._compared} abs error p{match[1]}", "scalar", match[2])

    def _benchmark(self, fields: list[str]) -> Iterator[model.Series]:
        seconds, throughput = (gathering.number(text) for text in fields[-2:])
        if len(fields) < 5 or seconds is None or throughput is None:
            return
        self._latencies["benchmark"].append(seconds * MICROSECONDS["s"])
        self.backends |= {BACKENDS[field]: None for field in fields if field in BACKENDS}
        yield gathering.series("NET", f"{fields[1]}:runtime", "second", (seconds,))
        yield gathering.series("SECONDARY", f"{fields[1]}:throughput", "Gb/second", (throughput,))

    def _mean(self, row: str) -> Iterator[model.Series]:
        if match := _INDIVIDUAL.search(row):
            if match[1] == OWN:
                self._keep("individual", match[2], "us")
            yield from _one(_type(match[1]), f"{match[1]} net_runner inference", "microsecond", match[2])
        elif match := _DURATION.search(row):
            unit = "ms" if "duration" in match[1] else "scalar"
            if match[1] == "Avg inference duration":
                self._keep("mean", match[2], unit)
            yield from _one("NET", match[1], unit, match[2])
        elif match := _WALL.search(row):
            if match[1] != "Best wall time":
                self._keep("mean", match[2], "s")
            yield from _one("NET", match[1], "second", match[2])

    def _percentile(self, row: str) -> Iterator[model.Series]:
        card, heads, rest = row.partition("latency per ")
        kind, _, name = rest.partition(" [")
        if heads and "]:" in name:
            name = name.partition("]:")[0]
            self._heading = _type(name), f"{name} net_runner {'card ' if card else ''}{kind}"
        elif self._heading[1] and (match := _PERCENTILE.search(row)):
            if match[2] == "50" and self._heading[0] == "NET":
                self._keep("median", match[3], match[1].lower())
            yield from _one(self._heading[0], f"{self._heading[1]} p{match[2]}", match[1].lower(), match[3])

    def _keep(self, how: str, text: str, unit: str) -> None:
        value = gathering.number(text)
        if value is not None and unit in MICROSECONDS and len(self._latencies[how]) < gathering.MAX_VALUES:
            self._latencies[how].append(value * MICROSECONDS[unit])


def _type(implementation: str) -> str:
    return "NET" if implementation == OWN else "SECONDARY"


def _one(kind: str, metric: str, unit: str, text: str) -> Iterator[model.Series]:
    value = gathering.number(text)
    if value is not None:
        yield gathering.series(kind, metric, unit, (value,))
