"""Reads what ONNX Runtime's own ``onnxruntime_perf_test`` prints, as its versions from 2019 on do.

    Session creation time cost: 0.217932 s
    First inference time cost: 196 ms
    Total inference requests: 5
    Average inference time cost: 98.962 ms                            "… cost total: …" in newer versions
    P50 Latency: 0.0995086 s                                          with -s; "P50 Latency is 0.0995086sec" in older versions

The program prints no samples, so ``NET latency`` is their median, or their mean where it prints none: one sample for all its
runs. The rest stands beside it: ``NET latency_mean`` and so on, and ``NET runs``. Of the execution provider it says nothing.
"""

from __future__ import annotations

import re

from aibenchd.frameworks import gathering

MICROSECONDS = {"s": 1e6, "sec": 1e6, "ms": 1e3}
NAMES = {"Session creation": "load", "First": "first_run", "Average": "latency_mean"}

_COST = re.compile(r"(Session creation|First|Average)(?: inference)? time cost(?: total)?: ?([0-9a-z.+-]{1,40}) (s|ms)\s*")
_LATENCY = re.compile(r"(Min|Max|P50|P90|P95|P99|P999) Latency(?::| is) ([0-9a-z.+-]{1,40}?) ?(s|sec)\s*")
_RUNS = re.compile(r"Total (?:inference requests|iterations): ?(\d{1,15})\s*")


def gather(output: str, gathered: gathering.Gathered) -> None:
    """Add what an output says, as far as it is the program's."""
    found: dict[str, list[float]] = {}
    for row in output.split("\n"):
        if ("ime cost" in row or "Latency" in row) and len(row) <= gathering.MAX_ROW:
            _time(row, found)
        elif match := _RUNS.fullmatch(row):
            gathered.add(gathering.series("NET", "runs", "", (float(match[1]),)))
    median = found.pop("latency_p50", None)
    for name, values in {"latency": median or found.get("latency_mean", []), **found}.items():
        if values:
            gathered.add(gathering.series("NET", name, "us", values))


def _time(row: str, found: dict[str, list[float]]) -> None:
    match = _COST.fullmatch(row) or _LATENCY.fullmatch(row)
    value = gathering.number(match[2]) if match else None
    if match and value is not None:
        name = NAMES.get(match[1]) or f"latency_{match[1].lower()}"
        values = found.setdefault(name, [])
        if len(values) < gathering.MAX_VALUES:
            values.append(value * MICROSECONDS[match[3]])
