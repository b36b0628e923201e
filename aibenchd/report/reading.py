"""Records as those formats read them that send thousands a second.

A format declares which fields it is made of, and a ``msgspec.json.Decoder`` of that reads these alone: most of a record is
numbers, and it takes longer to make objects of those that nobody asks for than to do all the rest. A number that is only
written on is :data:`AsWritten`, and never becomes one at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, TypedDict

import msgspec

from aibenchd import errors, model

AsWritten: TypeAlias = msgspec.Raw  # the JSON of a value


class Device(TypedDict):
    """Its name in the configuration, and what tells it from others of its kind: its name again, where it has nothing else."""

    name: str
    hash: str


class Backend(TypedDict):
    """What was to execute the network (empty: the program chose), and what did by its own evidence (empty: it states none)."""

    asked: str
    ran: str


class Payload(TypedDict):
    """What a measurement is of, as :mod:`aibenchd.report.records` has it; a format's own payload adds to it."""

    time: str
    experiment: int
    run_type: str
    repository: str
    commit: str
    control_commit: str | None
    framework: str
    platform: str
    device: Device
    backend: Backend
    model: str
    benchmark: str
    type: str
    metric: str
    unit: str
    estimate: float | None
    low: float | None
    high: float | None


def read(decoder: msgspec.json.Decoder[Any], record: model.Record) -> Mapping[str, Any]:
    """The fields of a record that a format is made of.

    Raises:
        BadRecordError: it is no JSON, which has no NaN, or lacks one of them.
    """
    try:
        fields: Mapping[str, Any] = decoder.decode(record.text)
    except msgspec.DecodeError as error:
        raise errors.BadRecordError(f"record {record.id} cannot be read: {error}") from error
    return fields


def backend(payload: Mapping[str, Any]) -> str:
    """What ran, or where there is no evidence of that, what was asked for."""
    return str(payload["backend"]["ran"] or payload["backend"]["asked"])
