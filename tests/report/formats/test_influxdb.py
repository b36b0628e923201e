"""What is written is asked back of the databases themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import databases
import pytest
import sending

from aibenchd import model
from aibenchd.report import base, records
from aibenchd.report.formats import influxdb

V1 = {"kind": "influxdb-v1", "database": "bench"}
Changed = Callable[..., model.Record]


@pytest.fixture(scope="module")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[databases.Database]:
    with databases.influxdb(tmp_path_factory.mktemp("influx")) as database:
        yield database


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[databases.Database]:
    with databases.victoria_metrics(tmp_path_factory.mktemp("victoria")) as database:
        yield database


@pytest.fixture
def login(tmp_path: Path) -> Path:
    path = tmp_path / "login"
    path.write_text(f"{databases.USER}:{databases.PASSWORD}\n")
    path.chmod(0o600)
    return path


def stored(influx: databases.Database, **tags: str) -> list[dict[str, Any]]:
    """The points with such tags, each as one mapping of tags and fields."""
    where = " AND ".join(f"\"{name}\" = '{value}'" for name, value in tags.items())
    found = influx.selected("bench", f"SELECT * FROM aibenchd WHERE {where} GROUP BY *")
    return [dict(zip(one["columns"], row, strict=True)) | one["tags"] for one in found for row in one["values"]]


async def test_a_verdict_is_what_influxdb_gives_back(
    influx: databases.Database, verdicts: list[model.Record], login: Path
) -> None:
    assert await sending.deliver(influx.url, verdicts, format=V1, token_file=str(login)) == base.Delivery(base.Answer.DONE)
    (point,) = stored(influx, kind="verdict", type="NET")
    payload: Any = verdicts[0].payload
    for name in ("repository", "benchmark", "model", "framework", "platform", "type", "metric", "unit", "run_type"):
        assert point[name] == payload[name], name
    for name in ("commit", "control_commit", "verdict", "estimate", "low", "high", "experiment", "blocks", "num_runs", "alpha"):
        assert point[name] == payload[name], name
    assert (point["device"], point["backend"]) == ("lab", "mkl")
    for side in ("treatment", "control", "diff"):
        assert {name: point[f"{side}_{name}"] for name in payload["statistics"][side]} == payload["statistics"][side]
    assert point["time"] == records.nanoseconds(payload)
    assert datetime.fromtimestamp(point["time"] // 10**9, UTC) == datetime.fromisoformat(payload["time"])


async def test_what_has_signs_of_the_syntax_in_it_comes_back_as_it_was(
    influx: databases.Database, changed: Changed, login: Path
) -> None:
    record = changed(type=sending.AWKWARD, run_type="awkward", info_string=sending.AWKWARD, unit="", benchmark="=,= ")
    assert await sending.deliver(influx.url, [record], format=V1, token_file=str(login)) == base.Delivery(base.Answer.DONE)
    (point,) = stored(influx, run_type="awkward")
    assert point["info_string"] == sending.AWKWARD
    assert point["type"] == sending.AWKWARD.replace("\\", "/")
    assert point["benchmark"] == "=,= "
    assert not point.get("unit")


@pytest.mark.parametrize("bad", ["line\nbreak", "trailing\\", "\0", "tab\there", "\u2028"])
async def test_what_the_syntax_cannot_say_takes_no_other_point_along(
    influx: databases.Database, changed: Changed, login: Path, bad: str
) -> None:
    run_type = f"bad{ord(bad[-1])}"
    batch = [changed(type=bad, run_type=run_type, info_string=bad), changed(run_type=run_type)]
    assert await sending.deliver(influx.url, batch, format=V1, token_file=str(login)) == base.Delivery(base.Answer.DONE)
    points = stored(influx, run_type=run_type)
    assert len(points) == 2
    assert {point["type"] for point in points} == {"NET", influxdb._tag(bad).replace("\\", "")}


async def test_experiments_that_end_in_one_moment_are_two_points(
    influx: databases.Database, changed: Changed, login: Path
) -> None:
    batch = [changed(experiment=number, run_type="moment") for number in (1, 2)]
    await sending.deliver(influx.url, batch, format=V1, token_file=str(login))
    await sending.deliver(influx.url, batch, format=V1, token_file=str(login))
    assert [point["experiment"] for point in stored(influx, run_type="moment")] == [1, 2]


@pytest.mark.parametrize("precision", ["ns", "us", "ms", "s"])
async def test_times_are_of_the_precision_that_is_said(
    influx: databases.Database, changed: Changed, login: Path, precision: str
) -> None:
    record = changed(run_type=f"precision-{precision}", time="2026-03-04T05:06:07.891Z")
    await sending.deliver(influx.url, [record], format={**V1, "precision": precision}, token_file=str(login))
    (point,) = stored(influx, run_type=f"precision-{precision}")
    whole = records.nanoseconds(record.payload)
    assert point["time"] == whole - whole % influxdb.PER_UNIT[precision]


async def test_a_block_says_which_one_it_is(influx: databases.Database, samples: list[model.Record], login: Path) -> None:
    await sending.deliver(influx.url, samples, format=V1, token_file=str(login))
    (point,) = stored(influx, kind="samples")
    assert (point["block"], point["treatment_p50"], point["control_p50"]) == (3, 11.0, 12.0)


async def test_a_batch_that_is_taken_in_part_is_refused(influx: databases.Database, changed: Changed, login: Path) -> None:
    """A field is of another type than in what is there: InfluxDB keeps the other points, answers 400 and says what was wrong."""
    good, bad = changed(run_type="part"), changed(run_type="part", experiment=1, statistics=only("treatment", p7=1.0))
    there = f'typed treatment_p7="text" {records.nanoseconds(good.payload)}'
    influx.post("/write", there, db="bench").raise_for_status()
    own = {**V1, "measurement": "typed"}
    answer = await sending.deliver(influx.url, [bad, good], format=own, token_file=str(login))
    assert answer.answer is base.Answer.REFUSED
    assert "field type conflict" in answer.reason
    assert (await sending.deliver(influx.url, [good], format=own, token_file=str(login))).answer is base.Answer.DONE
    (kept,) = influx.selected("bench", "SELECT experiment FROM typed WHERE run_type = 'part'")
    assert [row[1] for row in kept["values"]] == [good.payload["experiment"]]


def only(side: str, **statistics: float) -> dict[str, Any]:
    """Statistics of one side."""
    return {"treatment": {}, "control": {}, "diff": {}, side: statistics}


@pytest.mark.parametrize(
    ("keys", "reason"),
    [({"database": "absent"}, "404 Not Found"), ({}, "401 Unauthorized")],
    ids=["no such database", "no login"],
)
async def test_what_is_set_up_wrong_pauses(
    influx: databases.Database,
    verdicts: list[model.Record],
    login: Path,
    keys: dict[str, str],
    reason: str,
) -> None:
    secret = {"token_file": str(login)} if keys else {}
    answer = await sending.deliver(influx.url, verdicts, format={**V1, **keys}, **secret)
    assert answer.answer is base.Answer.PAUSED
    assert answer.reason.startswith(reason)


@pytest.mark.parametrize(
    "own", [{"kind": "influxdb-v1", "database": "x"}, {"kind": "influxdb-v2", "org": "o", "bucket": "x"}], ids=["v1", "v2"]
)
async def test_victoria_metrics_takes_both(victoria: databases.Database, changed: Changed, own: dict[str, str]) -> None:
    record = changed(run_type=own["kind"], type="x y,z=1")
    assert await sending.deliver(victoria.url, [record], format=own) == base.Delivery(base.Answer.DONE)
    victoria.get("/internal/force_flush")
    found = victoria.get("/api/v1/export", **{"match[]": f'aibenchd_estimate{{run_type="{own["kind"]}"}}'}).json()
    assert found["values"] == [0.1]
    assert found["timestamps"] == [records.nanoseconds(record.payload) // 10**6]
    assert found["metric"]["type"] == "x y,z=1"


def test_the_second_version_shows_its_token_in_its_own_way() -> None:
    made = influxdb.InfluxDb2(influxdb.InfluxDb2.Settings(kind="influxdb-v2", bucket="a b"))
    assert made.address("http://host:8086/", ()) == "http://host:8086/api/v2/write?bucket=a+b&precision=ns"
    assert made.authorization("t0ken") == "Token t0ken"


def test_the_first_version_names_its_policy() -> None:
    own = influxdb.InfluxDb1.Settings(kind="influxdb-v1", database="b", retention_policy="year", precision="us")
    assert influxdb.InfluxDb1(own).address("http://host", ()) == "http://host/write?db=b&rp=year&precision=u"


def test_a_line_has_no_empty_tag_and_no_field_without_a_number(changed: Changed) -> None:
    record = changed(statistics=only("diff"), estimate=None, low=None, high=None, control_commit=None, verdict=None, group="")
    line = influxdb.line(record, "m", 1)
    assert not re.search(r"=[, ]", line)
    assert "estimate" not in line
    assert "control" not in line
