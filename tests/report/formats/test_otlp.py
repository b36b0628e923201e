"""Bodies are read with OpenTelemetry's own classes, and by a Prometheus that takes them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import databases
import pytest
import receiver as receivers
import sending

pytest.importorskip("opentelemetry.proto", reason="opentelemetry-proto is not installed (pip install 'aibenchd[otlp]')")

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service

from aibenchd import model
from aibenchd.report import base, records
from aibenchd.report.formats import otlp

OTLP = otlp.Otlp(base.FormatSettings(kind="otlp"))
Changed = Callable[..., model.Record]


def parsed(batch: list[model.Record]) -> service.ExportMetricsServiceRequest:
    return service.ExportMetricsServiceRequest.FromString(OTLP.body(batch, ""))


def metrics(batch: list[model.Record]) -> dict[str, Any]:
    """Those of the only resource, by name."""
    (resource,) = parsed(batch).resource_metrics
    (scope,) = resource.scope_metrics
    assert len({(one.name, one.unit) for one in scope.metrics}) == len(scope.metrics)
    return {one.name: one for one in scope.metrics}


def attributes(pairs: Any) -> dict[str, str]:
    assert len({pair.key for pair in pairs}) == len(pairs)
    return {pair.key: pair.value.string_value for pair in pairs}


def test_a_verdict_is_two_medians_and_an_effect(verdicts: list[model.Record]) -> None:
    found = metrics(verdicts[:1])
    assert found.keys() == {"aibenchd.latency", "aibenchd.effect", "aibenchd.effect.low", "aibenchd.effect.high"}
    assert (found["aibenchd.latency"].unit, found["aibenchd.effect"].unit) == ("us", "1")
    medians = {attributes(one.attributes)["aibenchd.arm"]: one.as_double for one in found["aibenchd.latency"].gauge.data_points}
    assert medians == {arm: verdicts[0].payload["statistics"][arm]["p50"] for arm in ("treatment", "control")}  # type: ignore
    effects = [found[f"aibenchd.effect{end}"].gauge.data_points[0].as_double for end in (".low", "", ".high")]
    assert effects == [0.05, 0.1, 0.15]
    assert {one.time_unix_nano for one in found["aibenchd.effect"].gauge.data_points} == {
        records.nanoseconds(verdicts[0].payload)
    }


def test_attributes_say_what_a_series_is_of_and_exemplars_which_commit(verdicts: list[model.Record]) -> None:
    point = metrics(verdicts[:1])["aibenchd.effect"].gauge.data_points[0]
    assert attributes(point.attributes) == {
        "vcs.repository.name": "engine",
        "aibenchd.benchmark": "squeeze/1",
        "aibenchd.model": "squeezenet",
        "aibenchd.framework": "pytorch",
        "aibenchd.platform": "host",
        "aibenchd.device": "lab",
        "aibenchd.backend": "mkl",
        "aibenchd.type": "NET",
        "aibenchd.run_type": "verify",
        "aibenchd.kind": "verdict",
    }
    (exemplar,) = point.exemplars
    commits = {"vcs.ref.head.revision": "a" * 40, "vcs.ref.base.revision": "b" * 40}
    assert attributes(exemplar.filtered_attributes) == commits
    assert (exemplar.as_double, exemplar.time_unix_nano) == (point.as_double, point.time_unix_nano)


def test_a_resource_is_a_device(verdicts: list[model.Record], changed: Changed) -> None:
    other = changed(device={"name": "phone", "hash": "serial-2", "fingerprint": {}})
    found = [attributes(one.resource.attributes) for one in parsed([*verdicts, other, *verdicts]).resource_metrics]
    assert [one["device.id"] for one in found] == ["serial-1", "serial-2"]
    assert {one["service.name"] for one in found} == {"aibenchd"}


def test_a_block_is_two_medians(samples: list[model.Record]) -> None:
    (metric,) = metrics(samples).values()
    assert [one.as_double for one in metric.gauge.data_points] == [11.0, 12.0]


def test_names_and_units_are_of_the_letters_that_there_are(changed: Changed) -> None:
    found = metrics([changed(metric="peak memory (Größe)", unit="KB"), changed(metric="packets", unit="packets")])
    assert (found["aibenchd.peak_memory__Gr__e_"].unit, found["aibenchd.packets"].unit) == ("kBy", "{packets}")
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]{0,254}", name) for name in found)


def reply(rejected: int, message: str = "") -> bytes:
    partial = service.ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message=message)
    return bytes(service.ExportMetricsServiceResponse(partial_success=partial).SerializeToString())


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"", base.Answer.DONE),
        (b"{}", base.Answer.DONE),
        (b"ok", base.Answer.DONE),
        (reply(0, "a warning"), base.Answer.DONE),
        (reply(1, "too old"), base.Answer.REFUSED),
    ],
)
def test_what_a_success_says(verdicts: list[model.Record], said: bytes, answer: base.Answer) -> None:
    assert OTLP.answer(verdicts, said) is answer


async def test_a_partial_success_tells_why(receiver: receivers.Receiver, verdicts: list[model.Record]) -> None:
    receiver.answer = lambda request: receivers.Reply(200, body=reply(3, "out of order"))
    delivery = await sending.deliver(receiver.url, verdicts, format="otlp")
    assert delivery.answer is base.Answer.REFUSED
    assert "out of order" in delivery.reason
    assert receiver.requests[0].headers["content-type"] == "application/x-protobuf"
    assert service.ExportMetricsServiceRequest.FromString(receiver.requests[0].body) == otlp.request(verdicts)


async def test_prometheus_takes_it(tmp_path: Path, changed: Changed) -> None:
    with databases.prometheus(tmp_path, "--enable-feature=otlp-write-receiver", at_least=(2, 47)) as database:
        record = changed(time=time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()))
        answer = await sending.deliver(f"{database.url}/api/v1/otlp/v1/metrics", [record], format="otlp")
        assert answer == base.Delivery(base.Answer.DONE)
        found = database.get("/api/v1/query", query='{__name__=~"aibenchd_effect.*"}').json()["data"]["result"]
    assert sorted(float(one["value"][1]) for one in found) == [0.05, 0.1, 0.15]
