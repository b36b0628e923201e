"""Payload format ``faipep``: what FAI-PEP's remote reporter posts, for receivers that were made for it.

``{"access_token", "logs"}``, where ``logs`` is the JSON text of a list of ``{"category", "message", "line_escape"}``
and ``message`` the JSON text of one metric. Its ``int`` part holds integers only: statistics are truncated there,
as FAI-PEP had it. The reply's ``count`` must be the number of logs. It has no identity: a record may arrive twice.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NotRequired, TypedDict

import msgspec

from aibenchd import model
from aibenchd.report import base, reading


class _Arms(TypedDict):
    treatment: dict[str, float]
    control: dict[str, float]


class _Payload(reading.Payload):
    """``values`` are written on as they are; the statistics are not, for they are truncated."""

    commit_time: str
    control_commit_time: str | None
    group: str
    benchmark_metric: str
    info_string: str
    verdict: str | None
    regressed_types: NotRequired[list[str]]  # what waited in the outbox before there were any has none
    num_runs: int
    statistics: _Arms
    values: dict[str, reading.AsWritten]
    user_identifier: str
    user: str
    meta: dict[str, Any]


_DECODER = msgspec.json.Decoder(_Payload)


class Faipep(base.Format):
    """Verdicts only: FAI-PEP has no word for the samples of a block."""

    token_in_body = True

    def __init__(self, settings: base.FormatSettings, category: str = "") -> None:
        super().__init__(settings)
        if not category:
            raise ValueError("FAI-PEP's receivers want a category: write url as <url>|<category>")
        self._category = category

    def accepts(self, record: model.Record) -> bool:
        return record.kind == "verdict"

    def body(self, records: Sequence[model.Record], token: str) -> bytes:
        logs = [self._log(record) for record in records]
        return msgspec.json.encode({"access_token": token, "logs": _text(logs)})

    def _log(self, record: model.Record) -> dict[str, Any]:
        return {"category": self._category, "message": _text(message(reading.read(_DECODER, record))), "line_escape": False}

    def answer(self, records: Sequence[model.Record], reply: bytes) -> base.Answer:
        try:
            said = json.loads(reply)
        except (ValueError, RecursionError):
            return base.Answer.AGAIN
        complete = isinstance(said, dict) and said.get("count") == len(records)
        return base.Answer.DONE if complete else base.Answer.AGAIN


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def message(payload: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """One metric as FAI-PEP's ``int``, ``normal`` and ``normvector``; ``payload`` is a record's."""
    one = series(payload)
    sides = (one["summary"], one["control_summary"], one["diff_summary"])
    counts = {**times(payload), "num_runs": payload["num_runs"], "regressed": payload["verdict"] == "regressed"}
    names, values = _named(*map(tuple, sides)), itertools.chain.from_iterable(side.values() for side in sides)
    return {
        "int": dict(zip((*counts, *names), map(int, (*counts.values(), *values)), strict=True)),
        "normal": {**meta(payload), **{name: one[name] for name in ("type", "metric", "unit", "info_string")}},
        "normvector": {"values": one["values"], "control_values": one["control_values"]},
    }


@functools.lru_cache
def _named(summary: Sequence[str], control: Sequence[str], diff: Sequence[str]) -> Sequence[str]:
    return (*summary, *(f"control_{name}" for name in control), *(f"diff_{name}" for name in diff))


def meta(payload: Mapping[str, Any]) -> dict[str, Any]:
    """FAI-PEP's words for what a measurement is of; those that a build adds give way to them."""
    return {
        **payload["meta"],
        "backend": payload["backend"]["ran"] or payload["backend"]["asked"],
        "framework": payload["framework"],
        "platform": payload["platform"],
        "platform_hash": payload["device"]["hash"],
        "user_identifier": payload["user_identifier"],
        "user": payload["user"],
        "net_name": payload["model"],
        "group": payload["group"],
        "metric": payload["benchmark_metric"],
        "identifier": payload["benchmark"],
        "commit": payload["commit"],
        "control_commit": payload["control_commit"] or "",
        "run_type": payload["run_type"],
        **_confirmed(payload),
    }


def _confirmed(payload: Mapping[str, Any]) -> dict[str, str]:
    regressed = payload.get("regressed_types")
    return {"regressed_types": json.dumps(regressed)} if regressed else {}


def times(payload: Mapping[str, Any]) -> dict[str, float]:
    """Seconds since 1970 UTC; without the control's where there is none."""
    names = ("time", "commit_time", "control_commit_time")
    return {name: _seconds(payload[name]) for name in names if payload[name]}


@functools.lru_cache
def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def series(payload: Mapping[str, Any]) -> dict[str, Any]:
    """One metric as FAI-PEP keeps it, numbers not truncated."""
    treatment, control = payload["statistics"]["treatment"], payload["statistics"]["control"]
    return {
        **{name: payload[name] for name in ("type", "metric", "unit", "info_string")},
        "values": payload["values"]["treatment"],
        "summary": treatment,
        "control_values": payload["values"]["control"],
        "control_summary": control,
        "diff_summary": differences(treatment, control),
    }


def differences(treatment: Mapping[str, float], control: Mapping[str, float]) -> dict[str, float]:
    """Treatment minus control by statistic; percentiles are crossed (p90 minus p10), so that they span the worst case."""
    return {name: treatment[name] - control[other] for name, other in _pairs(tuple(treatment), tuple(control))}


@functools.lru_cache  # for these are the same names again and again
def _pairs(treatment: Sequence[str], control: Sequence[str]) -> Sequence[tuple[str, str]]:
    return [(name, _crossed(name)) for name in treatment if _crossed(name) in control]


def _crossed(name: str) -> str:
    percentile = re.fullmatch(r"p(\d+(?:\.\d+)?)", name)
    return f"p{100 - float(percentile[1]):g}" if percentile else name
