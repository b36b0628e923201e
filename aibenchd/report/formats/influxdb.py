r"""Formats ``influxdb-v1`` and ``influxdb-v2``: line protocol, for InfluxDB and what else takes it, such as VictoriaMetrics.

One point per record, of one measurement. What a series is of are tags; what changes with each commit are fields, so that a
cell is one series however many commits it is measured at.

=========== =======================================================================================================
tags        ``repository benchmark model framework platform device backend type metric unit run_type kind``, as in a
            record; one that is empty is left out
fields      ``treatment_<statistic> control_<statistic> diff_<statistic> estimate low high alpha min_effect``, floats;
            ``experiment block blocks num_runs``, integers; ``verdict commit control_commit info_string``, strings
time        of the record; below a millisecond the number of the experiment, so that no two have the same
=========== =======================================================================================================

The syntax: https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/. It has no way to write a line break in a
tag, and none for a backslash before a delimiter: a space and a slash stand for them.

A server that takes a batch in part answers 400 or 422 and says what was wrong: the batch is bisected, the points that it took
are written over by the same ones, and what it refuses alone is a dead letter.
"""

from __future__ import annotations

import abc
import base64
import functools
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import pydantic

from aibenchd import model
from aibenchd.report import base, reading, records

PER_UNIT = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}  # nanoseconds
CACHED = 4_096  # texts that are kept as they are written: a batch repeats its tags and commits
TAGS = ("repository", "benchmark", "model", "framework", "platform", "type", "metric", "unit", "run_type")  # and three more
FLOATS = ("estimate", "low", "high", "alpha", "min_effect")
INTEGERS = ("experiment", "block", "blocks", "num_runs")
STRINGS = ("verdict", "commit", "control_commit", "info_string")

_TAG = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ ", "\\": "/"})
_STRING = str.maketrans({'"': '\\"', "\\": "\\\\"})

Name = Annotated[str, pydantic.Field(min_length=1)]


class _Settings(base.FormatSettings):
    measurement: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="that all points are of")] = (
        "aibenchd"
    )
    precision: Annotated[
        Literal["ns", "us", "ms", "s"],
        pydantic.Field(description="of times; by ns alone two experiments that end in one moment are sure to be two points"),
    ] = "ns"


class _Payload(reading.Payload):
    alpha: float
    min_effect: float
    block: int | None
    blocks: int | None
    num_runs: int
    verdict: str | None
    info_string: str
    statistics: dict[str, reading.AsWritten]  # by side: treatment, control, diff


_DECODER = msgspec.json.Decoder(_Payload)


class _LineProtocol(base.Format):
    content_type = "text/plain; charset=utf-8"
    path: ClassVar[str]  # below the server's address

    settings: _Settings

    def accepts(self, record: model.Record) -> bool:
        return record.kind in ("verdict", "samples")

    def address(self, url: str, records: Sequence[model.Record]) -> str:  # noqa: ARG002
        return f"{url.rstrip('/')}{self.path}?{urllib.parse.urlencode(self.query())}"

    @abc.abstractmethod
    def query(self) -> dict[str, str]:
        """What the address says of where points go."""

    def body(self, records: Sequence[model.Record], token: str) -> bytes:  # noqa: ARG002
        unit = PER_UNIT[self.settings.precision]
        return "\n".join(line(record, self.settings.measurement, unit) for record in records).encode()


class InfluxDb1(_LineProtocol):
    """InfluxDB 1: ``/write?db=``. The file of ``token_file`` holds ``user:password``."""

    path = "/write"

    class Settings(_Settings):
        database: Annotated[Name, pydantic.Field(description="must be there")]
        retention_policy: Annotated[str, pydantic.Field(description="of that database; empty: its default")] = ""

    settings: Settings

    def query(self) -> dict[str, str]:
        own = self.settings
        precision = {"ns": "n", "us": "u"}.get(own.precision, own.precision)
        policy = {"rp": own.retention_policy} if own.retention_policy else {}
        return {"db": own.database, **policy, "precision": precision}

    def authorization(self, token: str) -> str:
        return f"Basic {base64.b64encode(token.encode()).decode()}"


class InfluxDb2(_LineProtocol):
    """InfluxDB 2 and 3: ``/api/v2/write?org=&bucket=``, with an API token."""

    path = "/api/v2/write"

    class Settings(_Settings):
        org: Annotated[str, pydantic.Field(description="name or id of the organisation; empty where there is none")] = ""
        bucket: Annotated[Name, pydantic.Field(description="name or id; must be there")]

    settings: Settings

    def query(self) -> dict[str, str]:
        own = self.settings
        return {**({"org": own.org} if own.org else {}), "bucket": own.bucket, "precision": own.precision}

    def authorization(self, token: str) -> str:
        return f"Token {token}"


def line(record: model.Record, measurement: str, unit: int) -> str:
    """One point.

    Args:
        unit: of its time, in nanoseconds.
    """
    payload = reading.read(_DECODER, record)
    tags = _tags(*(payload[name] for name in TAGS), payload["device"]["name"], reading.backend(payload), record.kind)
    return f"{measurement}{tags} {','.join(_fields(payload))} {records.nanoseconds(payload) // unit}"


@functools.lru_cache(CACHED)
def _tags(*values: str) -> str:
    """Of :data:`TAGS`, device, backend and kind."""
    pairs = zip((*TAGS, "device", "backend", "kind"), map(_tag, values), strict=True)
    return "".join(f",{name}={value}" for name, value in pairs if value)


def _fields(payload: Mapping[str, Any]) -> list[str]:
    statistics = [_numbers(side, str(numbers, "ascii")) for side, numbers in payload["statistics"].items()]
    floats = [f"{name}={payload[name]}" for name in FLOATS if payload[name] is not None]
    integers = [f"{name}={payload[name]}i" for name in INTEGERS if payload[name] is not None]
    return (
        list(filter(None, statistics))
        + floats
        + integers
        + [f'{name}="{_string(payload[name])}"' for name in STRINGS if payload[name]]
    )


def _numbers(side: str, numbers: str) -> str:
    """``{"mean":1.5,"p50":1.4}`` as the fields ``<side>_mean=1.5,<side>_p50=1.4``: a record's JSON has no spaces, and of a
    statistic's name no letter has a meaning here."""
    return numbers[1:-1].replace('":', "=").replace('"', f"{side}_")


def _tag(value: str) -> str:
    return _one_line(value).translate(_TAG)


@functools.lru_cache(CACHED)
def _string(value: str) -> str:
    return _one_line(value).translate(_STRING)


def _one_line(value: str) -> str:
    return value if value.isprintable() else "".join(each if each.isprintable() else " " for each in value)
