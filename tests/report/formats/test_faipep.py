from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from aibenchd import model
from aibenchd.report import base
from aibenchd.report.formats import faipep

SETTINGS = base.FormatSettings(kind="faipep")
FAIPEP = faipep.Faipep(SETTINGS, "perf")


def logs(body: bytes) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(json.loads(body)["logs"])
    return found


def test_payload_is_json_in_json_in_json(verdicts: list[model.Record]) -> None:
    body = FAIPEP.body(verdicts, "t0ken")
    assert json.loads(body).keys() == {"access_token", "logs"}
    assert json.loads(body)["access_token"] == "t0ken"
    assert [(log["category"], log["line_escape"]) for log in logs(body)] == [("perf", False)] * 2
    messages = [json.loads(str(log["message"])) for log in logs(body)]
    assert [message["normal"]["type"] for message in messages] == ["NET", "ID_0_Conv"]


def test_message_has_the_fields_of_faipep(verdicts: list[model.Record]) -> None:
    message = faipep.message(verdicts[0].payload)
    assert message.keys() == {"int", "normal", "normvector"}
    assert message["normal"] == {
        "backend": "mkl",
        "commit": "a" * 40,
        "compiler": "cc",
        "control_commit": "b" * 40,
        "framework": "pytorch",
        "group": "vision",
        "identifier": "squeeze/1",
        "info_string": "",
        "metric": "latency",
        "net_name": "squeezenet",
        "platform": "host",
        "platform_hash": "serial-1",
        "run_type": "verify",
        "type": "NET",
        "unit": "us",
        "user": "lab",
        "user_identifier": "ci-7",
    }
    assert message["normvector"] == {"values": [20.0, 21.0], "control_values": [19.0, 18.0]}


def test_integers_are_truncated_and_percentiles_crossed(verdicts: list[model.Record]) -> None:
    integers = faipep.message(verdicts[0].payload)["int"]
    assert integers == {
        "time": int(datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC).timestamp()),
        "commit_time": int(datetime(2026, 3, 3, 5, 6, 7, tzinfo=UTC).timestamp()),
        "control_commit_time": int(datetime(2026, 3, 2, 5, 6, 7, tzinfo=UTC).timestamp()),
        "num_runs": 6,
        "regressed": 1,
        "mean": 20,
        "p10": 10,
        "p50": 20,
        "p90": 30,
        "control_mean": 18,
        "control_p10": 8,
        "control_p50": 18,
        "control_p90": 28,
        "diff_mean": 2,
        "diff_p10": int(10.5 - 28.5),
        "diff_p50": 2,
        "diff_p90": int(30.5 - 8.5),
    }
    assert all(type(value) is int for value in integers.values())


def test_operator_alone_has_no_control(verdicts: list[model.Record]) -> None:
    message = faipep.message(verdicts[1].payload)
    assert message["int"]["regressed"] == 0
    assert not [name for name in message["int"] if name.startswith(("control_p", "control_m", "diff_"))]


def test_only_verdicts_have_a_place(verdicts: list[model.Record]) -> None:
    assert FAIPEP.accepts(verdicts[0])
    assert not FAIPEP.accepts(model.Record("x", "samples", "{}"))


@pytest.mark.parametrize(
    ("reply", "taken"), [(b'{"count": 2}', True), (b'{"count": 1}', False), (b"", False), (b"[]", False), (b'{"count": 2', False)]
)
def test_count_must_be_the_number_of_logs(verdicts: list[model.Record], reply: bytes, taken: bool) -> None:
    assert (FAIPEP.answer(verdicts, reply) is base.Answer.DONE) is taken


def test_category_is_needed() -> None:
    with pytest.raises(ValueError, match=r"<url>\|<category>"):
        faipep.Faipep(SETTINGS)


@pytest.mark.parametrize(
    ("name", "crossed"), [("p99.9", "p0.1"), ("p0", "p100"), ("p50", "p50"), ("mean", "mean"), ("MAD", "MAD")]
)
def test_differences_cross_percentiles(name: str, crossed: str) -> None:
    assert faipep.differences({name: 10.0}, {crossed: 4.0}) == {name: 6.0}
    assert faipep.differences({name: 10.0}, {}) == {}
