from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
import receiver as receivers
import sending

from aibenchd import errors, model
from aibenchd.report import base, records
from aibenchd.report.formats import webhook

OPERATOR = {"name": "ID_3_Conv", "status": "changed", "change": 12.5, "share": 0.8, "low": 1.0, "high": 20.0}
STILL = {"name": "ID_4_Relu", "status": "no change shown", "change": 0.1, "share": 0.01, "low": -1.0, "high": 1.0}
CULPRITS = {"culprits": [{"commits": ["c" * 40], "probability": 0.97, "effect": 0.1}]}
Alert = Callable[..., model.Record]


@pytest.fixture
def alert(experiment: records.Experiment) -> Alert:
    def make(**changes: Any) -> model.Record:
        facts = {
            "event": "confirmed",
            "finding": 7,
            "author": "Jane Doe <jane@example.org>",
            "subject": "Fold constants",
            "evidence": 13.8,
            "promise": "at a false discovery rate of 0.05",
            "explained": {"unit": "us", "operators": [OPERATOR, STILL]},
        }
        decided = model.Decision(model.Verdict.REGRESSED, 9, 0.052, 0.048, 0.056)
        told = records.Alert(**{**facts, **changes})  # type: ignore[arg-type]
        return records.alert_record(experiment, told, decided, backend="mkl", time=experiment.treatment.time)

    return make


def opened(**keys: Any) -> webhook.Webhook:
    return webhook.Webhook(webhook.Webhook.Settings.model_validate({"kind": "webhook", **keys}))


def sent(record: model.Record, **keys: Any) -> Any:
    return json.loads(opened(**keys).body([record], "t0ken"))


def test_a_change_of_the_tail_is_told_so(experiment: records.Experiment) -> None:
    decided = model.Decision(model.Verdict.REGRESSED, 20, 0.4, 0.3, 0.5, in_tail=True)
    told = records.Alert("confirmed", 7, "Jane", "Fold constants", None, "", {})
    record = records.alert_record(experiment, told, decided, backend="mkl", time=experiment.treatment.time)
    assert "+40.0% [+30.0%, +50.0%] in the tail" in json.dumps(sent(record))


def test_what_waited_before_there_were_tails_is_sent(alert: Alert) -> None:
    older = {name: value for name, value in alert().payload.items() if name not in ("in_tail", "by", "why")}
    assert "+5.2%" in sent(model.Record("id", "alert", json.dumps(older)))["text"]


def test_the_default_is_a_text_that_says_all_a_person_needs(alert: Alert) -> None:
    """Slack, Mattermost and Teams document one key, ``text``; Slack cuts it at 40,000 characters, Mattermost at 16,383."""
    body = sent(alert(), link="https://bench.example.org/findings/")
    assert body.keys() == {"text"}
    assert body["text"].split("\n") == [
        f"engine: squeeze/1 on lab (mkl) regressed at {'a' * 12}: NET latency +5.2% [+4.8%, +5.6%]",
        "Fold constants (Jane Doe &lt;jane@example.org&gt;)",
        "from ID_3_Conv +12.5 us (80%)",
        "e-value 9.85e+05, at a false discovery rate of 0.05",
        "https://bench.example.org/findings/7",
    ]


def test_the_culprit_and_the_mend_are_messages_of_their_own(alert: Alert) -> None:
    found, gone = alert(event="culprit", culprits=CULPRITS), alert(event="mended", mended="d" * 40)
    assert len({alert().id, found.id, gone.id}) == 3
    assert sent(found)["text"].startswith(
        f"engine: squeeze/1 on lab (mkl): what regressed at {'a' * 12} comes from {'c' * 12} (97%)\n"
    )
    assert sent(gone)["text"].startswith(f"engine: squeeze/1 on lab (mkl) is mended at {'d' * 12}: ")


def test_of_several_commits_none_is_blamed_before_the_search_has_named_it(alert: Alert) -> None:
    """The newest of a push is no more at fault than the others; nor is it once another one has been found."""
    lines = sent(alert(between=8))["text"].split("\n")
    assert lines[1] == f"one of 8 commits after {'b' * 12}; the newest: Fold constants (Jane Doe &lt;jane@example.org&gt;)"
    named = {"c" * 40: {"subject": "Copy twice", "author": "Ann"}, "d" * 40: {"subject": "Do & wait", "author": "Bo"}}
    lines = sent(alert(event="culprit", between=8, culprits=CULPRITS, named=named))["text"].split("\n")
    assert lines[1:3] == [f"{'c' * 12} Copy twice (Ann)", f"{'d' * 12} Do &amp; wait (Bo)"]
    assert sent(alert(between=1))["text"] == sent(alert())["text"]


def test_a_message_has_the_same_id_whenever_it_is_made(alert: Alert) -> None:
    assert alert().id == alert(author="somebody else").id
    assert alert().id != alert(finding=8).id


def test_only_what_is_asked_for_is_sent(alert: Alert, verdicts: list[model.Record]) -> None:
    events = [alert(event=event) for event in ("confirmed", "culprit", "mended")]
    assert [opened().accepts(one) for one in events] == [True, False, False]
    assert [opened(on=["culprit", "mended"]).accepts(one) for one in events] == [False, True, True]
    assert not opened().accepts(verdicts[0])


def test_every_placeholder_stands_for_something(alert: Alert) -> None:
    names = (*webhook.OF_RECORD, *webhook.COMPOSED)
    told = alert(culprits=CULPRITS, mended="e" * 40, by="eve", why="worth it")
    body = sent(told, template={name: f"{{{name}}}" for name in names}, link="https://x/")
    assert {name for name, value in body.items() if value in ("", None)} == {"reason"}
    assert (body["finding"], body["estimate"], body["token"]) == (7, 0.052, "t0ken")
    assert body["author"] == "Jane Doe &lt;jane@example.org&gt;"


def test_what_is_accepted_says_by_whom_and_why(alert: Alert) -> None:
    text = sent(alert(event="accepted", by="eve", why="worth it"), on=["accepted"])["text"]
    assert "is accepted as the new baseline by eve because: worth it" in text.splitlines()[0]


def test_placeholders_are_filled_in_wherever_texts_are_and_nowhere_else(alert: Alert) -> None:
    template = {"a": [{"b": "{{{subject}}} of {finding}: {reason}"}, 3, None, True], "{subject}": "x"}
    assert sent(alert(), template=template) == {"a": [{"b": "{Fold constants} of 7: "}, 3, None, True], "{subject}": "x"}


def test_what_a_commit_says_is_not_read_as_a_template(alert: Alert) -> None:
    assert sent(alert(subject="{token} {nonsense} {"))["text"].count("t0ken") == 0
    assert sent(alert(subject="{token} {"), template={"a": "x {subject}"}) == {"a": "x {token} {"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<!channel> & more", "&lt;!channel&gt; &amp; more"),
        ("@all @here, jane@all.org", "@\u200ball @\u200bhere, jane@\u200ball.org"),
    ],
)
def test_what_a_commit_says_calls_nobody(alert: Alert, said: str, shown: str) -> None:
    assert sent(alert(subject=said), template={"a": "{subject}"}) == {"a": shown}
    assert sent(alert(subject=said), template={"a": "{subject}"}, markup=False) == {"a": said}


def test_what_has_no_numbers_says_its_reason(alert: Alert, experiment: records.Experiment) -> None:
    told = records.Alert("confirmed", 7, "me", "s", None, "p", {"operators": []})
    broken = model.Decision(model.Verdict.BROKEN, 2, reason="no such operator")
    record = records.alert_record(experiment, told, broken, backend="", time=experiment.treatment.time)
    assert sent(record)["text"].split("\n") == [
        f"engine: squeeze/1 on lab (mkl) broken at {'a' * 12}: NET latency no such operator",
        "s (me)",
    ]


def test_a_key_that_belongs_into_the_body_is_in_no_header(alert: Alert) -> None:
    assert opened(template={"routing_key": "{token}"}).token_in_body
    assert not opened().token_in_body


@pytest.mark.parametrize("link", ["host/findings", "ftp://host", "https://host/a b", "https://"])
def test_a_link_is_an_address(link: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="put behind"):
        opened(link=link)


async def test_an_address_that_is_a_secret_stays_one(receiver: receivers.Receiver, alert: Alert, tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text(receiver.url + "/T0123/hook-of-the-lab\n")
    path.chmod(0o600)
    receiver.answer = lambda request: receivers.Reply(404, body=f"no hook {request.target}".encode())
    delivery = await sending.deliver("", [alert()], url_file=str(path), format="webhook")
    assert receiver.requests[0].target == "/records/T0123/hook-of-the-lab"
    assert "content-encoding" not in receiver.requests[0].headers
    said = f"404 So: no hook /[redacted]; mend the address in {path}, then 'aibenchctl reload'"
    assert delivery == base.Delivery(base.Answer.PAUSED, said)


@pytest.mark.parametrize(
    ("text", "message"),
    [("host/hook", "https://host/path"), ("http://example.org/hook", "in the clear"), ("https://host/a b", "spaces")],
)
async def test_an_address_in_a_file_is_looked_at_too(alert: Alert, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "url"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(errors.CredentialError, match=message):
        await sending.deliver("", [alert()], url_file=str(path), format="webhook")
