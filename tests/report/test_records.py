from __future__ import annotations

import dataclasses
import json
import math
import uuid
from datetime import UTC, datetime

import hypothesis
import hypothesis.strategies as st
import pytest

from aibenchd import model
from aibenchd.report import records

NOW = datetime(2026, 3, 4, 5, 6, 7, 8900, tzinfo=UTC)


def trial(arm: model.ArmName, *series: model.Series) -> model.Trial:
    return model.Trial(arm, model.Outcome.OK, NOW, 1.0, series, backend="mkl")


def block(values: tuple[float, ...] = (1.0, 2.0)) -> model.Block:
    series = model.Series("NET", "latency", "us", values)
    return model.Block(3, (trial(model.ArmName.CONTROL, series), trial(model.ArmName.TREATMENT, series)))


def test_verdict_names_both_sides_and_where_it_ran(verdicts: list[model.Record]) -> None:
    payload = verdicts[0].payload
    assert (payload["commit"], payload["control_commit"]) == ("a" * 40, "b" * 40)
    assert payload["commit_time"] == "2026-03-03T05:06:07.000Z"
    assert payload["device"] == {"name": "lab", "hash": "serial-1", "fingerprint": {"cpu": "two cores"}}
    assert payload["backend"] == {"asked": "mkl", "ran": "mkl"}
    assert (payload["model"], payload["group"], payload["benchmark"]) == ("squeezenet", "vision", "squeeze/1")
    assert payload["run_type"] == "verify"


def test_verdict_is_said_of_the_metric_that_is_decided_on_alone(verdicts: list[model.Record]) -> None:
    network, operator = (record.payload for record in verdicts)
    assert (network["verdict"], network["estimate"], network["low"], network["high"]) == ("regressed", 0.1, 0.05, 0.15)
    assert (operator["key"], operator["verdict"], operator["estimate"]) == ("ID_0_Conv latency", None, None)
    assert network["blocks"] == operator["blocks"] == 2


@pytest.mark.parametrize(
    ("summary", "in_tail", "said"),
    [(model.Summary(), False, False), (model.Summary(), True, True), (model.Summary(skip=3).tail, False, True)],
)
def test_a_verdict_says_which_part_of_the_iterations_it_is_of(
    experiment: records.Experiment, summary: model.Summary, in_tail: bool, said: bool
) -> None:
    own = dataclasses.replace(experiment, design=dataclasses.replace(experiment.design, summary=summary))
    decision = model.Decision(model.Verdict.REGRESSED, 20, 0.4, 0.3, 0.5, in_tail=in_tail)
    (record,) = records.verdict_records(own, decision, {}, backend="", time=NOW)
    assert record.payload["in_tail"] is said
    assert record.payload["summary"] == {"name": summary.name, **dataclasses.asdict(summary)}


def test_statistics_are_of_all_samples_and_values_of_each_trial(verdicts: list[model.Record]) -> None:
    payload = verdicts[0].payload
    assert payload["num_runs"] == 6
    assert payload["statistics"]["treatment"] == {"mean": 20.5, "p10": 10.5, "p90": 30.5, "p50": 20.5}
    assert payload["statistics"]["diff"]["mean"] == 20.5 - 18.5
    assert payload["values"] == {"treatment": [20.0, 21.0], "control": [19.0, 18.0]}


def test_series_of_one_arm_alone_has_no_difference(verdicts: list[model.Record]) -> None:
    payload = verdicts[1].payload
    assert payload["statistics"]["control"] == payload["statistics"]["diff"] == {}
    assert payload["values"] == {"treatment": [4.0, 5.0], "control": []}


def test_experiment_without_samples_still_yields_its_verdict(experiment: records.Experiment) -> None:
    decision = model.Decision(model.Verdict.BROKEN, 0, reason="exit code 1")
    (record,) = records.verdict_records(experiment, decision, {}, backend="", time=NOW)
    payload = record.payload
    assert (payload["verdict"], payload["reason"], payload["key"], payload["type"]) == (
        "broken",
        "exit code 1",
        "NET latency",
        "NET",
    )
    assert payload["estimate"] is None


def test_verdict_on_a_metric_without_samples_is_in_a_record_of_its_own(experiment: records.Experiment) -> None:
    series = {model.ArmName.TREATMENT: [model.Series("PROCESS", "wall_time", "s", (1.0,))]}
    made = records.verdict_records(experiment, model.Decision(model.Verdict.REGRESSED, 9), series, backend="", time=NOW)
    assert {record.payload["key"]: record.payload["verdict"] for record in made} == {
        "PROCESS wall_time": None,
        "NET latency": "regressed",
    }


def test_samples_are_those_of_the_block_as_they_were_taken(experiment: records.Experiment) -> None:
    (record,) = records.samples_records(experiment, block((3.0, 1.0, 2.0)), time=NOW)
    assert record.kind == "samples"
    assert record.payload["block"] == 3
    assert record.payload["values"] == {"treatment": [3.0, 1.0, 2.0], "control": [3.0, 1.0, 2.0]}
    assert record.payload["verdict"] is None


def test_one_arm_has_no_control(experiment: records.Experiment) -> None:
    alone = dataclasses.replace(experiment, control=None)
    decision = model.Decision(model.Verdict.MEASURED, 1)
    series = {model.ArmName.TREATMENT: [model.Series("NET", "latency", "us", (1.0,))]}
    (record,) = records.verdict_records(alone, decision, series, backend="", time=NOW)
    assert record.payload["control_commit"] is record.payload["control_commit_time"] is None
    assert record.payload["verdict"] == "measured"


def test_ids_are_the_same_whenever_a_record_is_made_again(experiment: records.Experiment, verdicts: list[model.Record]) -> None:
    again = records.verdict_records(
        experiment, model.Decision(model.Verdict.INCONCLUSIVE, 9), {}, backend="", time=NOW.replace(year=2030)
    )
    assert again[0].id == verdicts[0].id == verdicts[0].payload["id"]


@pytest.mark.parametrize("change", [{"id": 13}, {"installation": str(uuid.UUID(int=8))}])
def test_ids_differ_between_experiments_and_installations(experiment: records.Experiment, change: dict[str, object]) -> None:
    other = dataclasses.replace(experiment, **change)  # type: ignore[arg-type]
    ids = {record.id for one in (experiment, other) for record in records.samples_records(one, block(), time=NOW)}
    assert len(ids) == 2


def test_ids_differ_between_blocks_kinds_and_metrics(experiment: records.Experiment, verdicts: list[model.Record]) -> None:
    blocks = [dataclasses.replace(block(), number=number) for number in range(3)]
    made = verdicts + [record for one in blocks for record in records.samples_records(experiment, one, time=NOW)]
    assert len({record.id for record in made}) == len(made) == 5


@hypothesis.given(st.lists(st.floats(), max_size=5), st.text())
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=50)
def test_whatever_a_program_prints_is_valid_json(experiment: records.Experiment, values: list[float], text: str) -> None:
    series = model.Series("NET", text, "", tuple(values), text=text + "\ud800")
    one = model.Block(0, (trial(model.ArmName.TREATMENT, series),))
    (record,) = records.samples_records(experiment, one, time=NOW)
    record.text.encode()
    read = json.loads(record.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [value is None for value in read["values"]["treatment"]] == [not math.isfinite(value) for value in values]
    assert read["num_runs"] == sum(map(math.isfinite, values))


def test_only_what_is_confirmed_says_what_regressed(experiment: records.Experiment) -> None:
    """What was measured in the search for its commits is of the same run type, and may not have changed at all."""
    searched = dataclasses.replace(experiment, run_type=model.RunType.REGRESS)
    decision = model.Decision(model.Verdict.MEASURED, 1)
    of_search = records.verdict_records(searched, decision, {}, backend="", time=NOW)
    first = model.Decision(model.Verdict.REGRESSED, 3, 0.2, 0.1, 0.3)
    confirmed = records.confirmed_record(experiment, decision, first, {}, backend="", time=NOW)
    samples = records.samples_records(searched, block(), time=NOW)
    assert [one.payload["regressed_types"] for one in (*of_search, *samples, confirmed)] == [[], [], ["NET latency"]]
    assert confirmed.payload["run_type"] == "regress"
    assert confirmed.payload["first_seen"] == {"estimate": 0.2, "low": 0.1, "high": 0.3}
    assert of_search[0].payload["first_seen"] is None


def test_what_was_built_with_another_layout_says_which(experiment: records.Experiment) -> None:
    relaid = dataclasses.replace(experiment, design=dataclasses.replace(experiment.design, layout=77))
    decision = model.Decision(model.Verdict.UNCHANGED, 1)
    for one, layout in ((experiment, None), (relaid, 77)):
        (record,) = records.verdict_records(one, decision, {}, backend="", time=NOW)
        assert record.payload["layout"] == layout


def test_what_no_float_holds_and_what_is_no_json_is_in_no_record(experiment: records.Experiment) -> None:
    far = [trial(arm, model.Series("NET", "x", "", (value,))) for arm, value in zip(model.ArmName, (1e308, -1e308), strict=True)]
    odd = dataclasses.replace(experiment, meta={"flags": [math.nan, {"level": -math.inf}], "jobs": 4})
    (record,) = records.samples_records(odd, model.Block(0, tuple(far)), time=NOW)
    read = json.loads(record.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "p50" not in read["statistics"]["diff"]
    assert read["statistics"]["treatment"]["p50"] == 1e308
    assert read["meta"] == {"flags": [None, {"level": None}], "jobs": 4}
