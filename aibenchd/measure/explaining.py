"""What a confirmed regression is made of: the operators, and what else of the process changed with it. Pure."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aibenchd import model
from aibenchd.decide import attribution, sequential, summary

SHOWN = 50  # operators that are kept, the largest changes first
NOT_OPERATORS = ("NET", "PROCESS", "ERROR ", "ARMS ")  # how the types begin of what is of the network, or of the whole process


@dataclass(frozen=True, slots=True)
class Measured:
    """One series of one trial, and which one that was."""

    block: int
    arm: model.ArmName
    series: model.Series


_Numbers = Mapping[model.ArmName, Mapping[int, float]]  # of one series, by arm and block


def explained(measured: Iterable[Measured], rule: model.Summary = summary.DEFAULT) -> model.JsonObject:
    """Which operators the network's change comes from, where it was measured by operator; and each other quantity's change.

    Every interval of one quantity holds with 95 % at once. Changes are treatment less control, in the quantity's unit.

    Args:
        measured: all series of valid blocks of two arms.
        rule: how a process becomes a number, where it is a time.
    """
    by_key, units = _numbers(measured, rule)
    network = by_key.get(model.NETWORK)
    others = {key: numbers for key, numbers in by_key.items() if key != model.NETWORK and not _is_operator(key, units)}
    return {
        "unit": units.get(model.NETWORK, ""),
        **(_of_network(network, by_key, units) if network else {"network": None, "operators": [], "rest": None}),
        "quantities": [found for key, numbers in others.items() if (found := _of_quantity(key, numbers, units[key])) is not None],
    }


def _numbers(measured: Iterable[Measured], rule: model.Summary) -> tuple[dict[str, _Numbers], dict[str, str]]:
    """Of each key the one number of each process, and its unit."""
    found: dict[str, dict[model.ArmName, dict[int, float]]] = defaultdict(lambda: {arm: {} for arm in model.ArmName})
    units: dict[str, str] = {}
    for one in measured:
        values = [value for value in one.series.values if math.isfinite(value)]
        if values:
            timed = one.series.metric == "latency" and min(values) > 0
            found[one.series.key][one.arm][one.block] = summary.of_process(values, rule) if timed else statistics.median(values)
            units[one.series.key] = one.series.unit
    return dict(found), units


def _is_operator(key: str, units: Mapping[str, str]) -> bool:
    same = key.endswith(" latency") and units[key] == units.get(model.NETWORK)
    return same and not key.startswith(NOT_OPERATORS)


def _of_network(network: _Numbers, by_key: Mapping[str, _Numbers], units: Mapping[str, str]) -> dict[str, model.Json]:
    blocks = _common(network)
    names = [key for key in by_key if _is_operator(key, units)]
    if not blocks:
        return {"network": None, "operators": [], "rest": None}
    arms = [
        attribution.Arm(
            np.array([network[arm][block] for block in blocks]),
            {name.removesuffix(" latency"): _row(by_key[name][arm], blocks) for name in names},
        )
        for arm in model.ArmName
    ]
    found = attribution.explain(*arms)
    return {
        "network": _json(found.network),
        "operators": [_json(one) for one in found.operators[:SHOWN]],
        "rest": _json(found.rest) if names else None,
    }


def _of_quantity(key: str, numbers: _Numbers, unit: str) -> model.JsonObject | None:
    """One quantity's change; None where it was not measured in both arms."""
    blocks = _common(numbers)
    if not blocks:
        return None
    treatment, control = (attribution.Arm(np.array([numbers[arm][block] for block in blocks]), {}) for arm in model.ArmName)
    found = attribution.explain(treatment, control).network
    base = statistics.fmean(numbers[model.ArmName.CONTROL][block] for block in blocks)
    return {
        "key": key,
        "unit": unit,
        "control": base,
        "change": found.change,
        "low": _known(found.low),
        "high": _known(found.high),
    }


def _common(numbers: _Numbers) -> Sequence[int]:
    return sorted(set(numbers[model.ArmName.TREATMENT]) & set(numbers[model.ArmName.CONTROL]))


def _row(numbers: Mapping[int, float], blocks: Sequence[int]) -> sequential.Floats:
    return np.array([numbers.get(block, math.nan) for block in blocks])


def _json(one: attribution.Contribution) -> model.JsonObject:
    numbers = ("change", "low", "high", "share", "share_low", "share_high")
    return {"name": one.name, "status": one.status.value, **{name: _known(getattr(one, name)) for name in numbers}}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
