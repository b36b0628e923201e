"""Format ``otlp``: metrics by OpenTelemetry's protocol over HTTP, for its collector, Prometheus, VictoriaMetrics and others.

The sink's ``url`` is the whole address, such as ``http://collector:4318/v1/metrics``. Bodies are protobuf and not its JSON:
all receivers take it, some take nothing else, and it is half as long.

================================ ================================================================================
metric ``aibenchd.<metric>``     a gauge with the median of each arm's samples, in a record of a block or of an experiment;
                                 such as ``aibenchd.latency``, its unit in UCUM's letters where they have one
``aibenchd.effect``, ``….low``,  of the metric that is decided on: treatment / control - 1, and its interval; unit ``1``
``….high``
resource                         ``service.name`` aibenchd, ``service.version``; ``device.id``, what tells the device apart
attributes                       ``vcs.repository.name``, ``aibenchd.benchmark model framework platform device backend type
                                 run_type kind``, and ``aibenchd.arm`` of medians
exemplar                         ``vcs.ref.head.revision`` and ``vcs.ref.base.revision``: the commits. As attributes of the
                                 point they would make a series of its own of each commit
time                             of the record; below a millisecond the number of the experiment
================================ ================================================================================

Names are those of OpenTelemetry's semantic conventions where they have one (service, device, vcs). Protocol:
https://opentelemetry.io/docs/specs/otlp/. A receiver that takes a batch in part says how many points it refused, and not which:
the batch is bisected, as with 400, and what is refused alone is a dead letter. The same request is not sent again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import msgspec

import aibenchd
from aibenchd import model
from aibenchd.report import base, reading, records

try:
    import google.protobuf.message
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
    from opentelemetry.proto.common.v1 import common_pb2 as common
    from opentelemetry.proto.metrics.v1 import metrics_pb2 as metrics
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("opentelemetry-proto is not installed: pip install 'aibenchd[otlp]'") from error

ARMS = ("treatment", "control")
RESOURCE = ("service.name", "service.version", "device.id")
ATTRIBUTES = (
    "vcs.repository.name",
    "aibenchd.benchmark",
    "aibenchd.model",
    "aibenchd.framework",
    "aibenchd.platform",
    "aibenchd.device",
    "aibenchd.backend",
    "aibenchd.run_type",
    "aibenchd.kind",
)
COMMITS = ("vcs.ref.head.revision", "vcs.ref.base.revision")
EXPERIMENTS = 512  # whose attributes are kept: a batch has many records of few
CACHED = 4_096  # single attributes, metrics and units that are kept
UNITS = {"B": "By", "KB": "kBy", "MB": "MBy", "": "1"}  # UCUM's; those of times, energy and power are the same
UCUM = frozenset(("ns", "us", "ms", "s", "mJ", "J", "mW", "W", "%", "Cel", "Hz"))


class _Median(TypedDict, total=False):
    p50: float


class _Payload(reading.Payload):
    statistics: dict[str, _Median]  # by arm


_DECODER = msgspec.json.Decoder(_Payload)


class Otlp(base.Format):
    """Medians of verdicts and samples, and the effects of verdicts."""

    content_type = "application/x-protobuf"

    def accepts(self, record: model.Record) -> bool:
        return record.kind in ("verdict", "samples")

    def body(self, records: Sequence[model.Record], token: str) -> bytes:  # noqa: ARG002
        return bytes(request(records).SerializeToString())

    def answer(self, records: Sequence[model.Record], reply: bytes) -> base.Answer:  # noqa: ARG002
        try:
            said = service.ExportMetricsServiceResponse.FromString(reply)
        except google.protobuf.message.DecodeError:
            return base.Answer.DONE  # some answer with JSON, or a text
        return base.Answer.REFUSED if said.partial_success.rejected_data_points else base.Answer.DONE


class Point(NamedTuple):
    """One number; ``arm`` is empty where it is of both."""

    metric: str
    unit: str
    arm: str
    value: float


def request(batch: Sequence[model.Record]) -> service.ExportMetricsServiceRequest:
    """All points of a batch, by device and metric."""
    made = service.ExportMetricsServiceRequest()
    scopes: dict[str, metrics.ScopeMetrics] = {}
    gauges: dict[tuple[str, str, str], Any] = {}
    for record in batch:
        payload = reading.read(_DECODER, record)
        device, time, identity = payload["device"]["hash"], records.nanoseconds(payload), _identity(payload, record.kind)
        for point in points(payload):
            key = (device, point.metric, point.unit)
            if key not in gauges:
                if device not in scopes:
                    scopes[device] = _scope(made, device)
                gauges[key] = scopes[device].metrics.add(name=point.metric, unit=point.unit).gauge.data_points
            _fill(gauges[key].add(), identity, payload["type"], point, time)
    return made


def points(payload: Mapping[str, Any]) -> Iterator[Point]:
    """What a record says in numbers."""
    name, unit = metric_name(payload["metric"]), ucum(payload["unit"])
    for arm in ARMS:
        median = payload["statistics"][arm].get("p50")
        if median is not None:
            yield Point(name, unit, arm, median)
    for field, metric in (("estimate", "effect"), ("low", "effect.low"), ("high", "effect.high")):
        if payload[field] is not None:
            yield Point(f"aibenchd.{metric}", "1", "", payload[field])


@functools.lru_cache(CACHED)
def metric_name(metric: str) -> str:
    """A name of the letters that instruments may have."""
    return f"aibenchd.{re.sub(r'[^A-Za-z0-9_./-]', '_', metric)}"[:255]


@functools.lru_cache(CACHED)
def ucum(unit: str) -> str:
    """A unit in UCUM's letters, in braces what it has none for."""
    return UNITS.get(unit) or (unit if unit in UCUM else f"{{{unit}}}")


def _scope(made: service.ExportMetricsServiceRequest, device: str) -> metrics.ScopeMetrics:
    resource = made.resource_metrics.add()
    resource.resource.attributes.extend(_attributes(RESOURCE, ("aibenchd", aibenchd.__version__, device)))
    scope: metrics.ScopeMetrics = resource.scope_metrics.add()
    scope.scope.MergeFrom(common.InstrumentationScope(name="aibenchd", version=aibenchd.__version__))
    return scope


def _identity(payload: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """What all records of an experiment have in common: the values of :data:`ATTRIBUTES` and :data:`COMMITS`."""
    return (
        payload["repository"],
        payload["benchmark"],
        payload["model"],
        payload["framework"],
        payload["platform"],
        payload["device"]["name"],
        reading.backend(payload),
        payload["run_type"],
        kind,
        payload["commit"],
        payload["control_commit"] or "",
    )


def _fill(made: metrics.NumberDataPoint, identity: tuple[str, ...], type_: str, point: Point, time: int) -> None:
    made.CopyFrom(_of_experiment(identity))
    made.attributes.append(_attribute("aibenchd.type", type_))
    if point.arm:
        made.attributes.append(_attribute("aibenchd.arm", point.arm))
    exemplar = made.exemplars[0]
    made.time_unix_nano = exemplar.time_unix_nano = time
    made.as_double = exemplar.as_double = point.value


# What is kept is never changed: many threads have it.
@functools.lru_cache(EXPERIMENTS)
def _of_experiment(identity: tuple[str, ...]) -> metrics.NumberDataPoint:
    common_to_all, commits = identity[: len(ATTRIBUTES)], identity[len(ATTRIBUTES) :]
    exemplar = metrics.Exemplar(filtered_attributes=_attributes(COMMITS, commits))
    return metrics.NumberDataPoint(attributes=_attributes(ATTRIBUTES, common_to_all), exemplars=[exemplar])


def _attributes(names: Sequence[str], values: Sequence[str]) -> list[common.KeyValue]:
    """Those that say something."""
    return [_attribute(name, value) for name, value in zip(names, values, strict=True) if value]


@functools.lru_cache(CACHED)
def _attribute(name: str, value: str) -> common.KeyValue:
    return common.KeyValue(key=name, value=common.AnyValue(string_value=value))
