"""Bodies are read by what GitHub and Forgejo publish of their APIs, as generated into Python from their OpenAPI descriptions."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
import receiver as receivers
import sending

from aibenchd import model
from aibenchd.report import base, records
from aibenchd.report.formats import commitstatus

COMMIT = "3f2a" * 10
REPOSITORIES = {"engine": "lab/engine"}
STATES = ("pending", "success", "failure", "error", "inconclusive")


def record(**fields: Any) -> model.Record:
    standing = {"state": "success", "text": "4 measured, none regressed", "finding": None, "counts": {}, **fields}
    time = datetime(2026, 3, 4, tzinfo=UTC)
    return records.status_record(str(uuid.UUID(int=7)), "engine", COMMIT, 0, standing, time=time)


def opened(**keys: Any) -> commitstatus.CommitStatus:
    chosen = commitstatus.CommitStatus.Settings.model_validate({"kind": "commit-status", "repositories": REPOSITORIES, **keys})
    return commitstatus.CommitStatus(chosen)


def sent(record: model.Record, **keys: Any) -> Any:
    return json.loads(opened(**keys).body([record], ""))


@pytest.mark.parametrize("state", STATES)
def test_github_takes_it(state: str) -> None:
    models = pytest.importorskip("githubkit.versions.latest.models", reason="githubkit is not installed")
    body = sent(record(state=state, finding=7, text="x" * 500), link="https://host/findings/")
    read = models.ReposOwnerRepoStatusesShaPostBody.model_validate(body)
    assert read.model_dump(exclude_unset=True) == body


@pytest.mark.parametrize("state", STATES)
def test_forgejo_takes_it(state: str) -> None:
    options = pytest.importorskip(
        "clientapi_forgejo.models.create_status_option", reason="clientapi-forgejo is not installed"
    ).CreateStatusOption
    body = sent(record(state=state, finding=7), link="https://host/findings/")
    assert options.from_json(json.dumps(body)).to_dict() == body
    assert body["state"] in ("pending", "success", "error", "failure")  # all that its description lists


def test_a_failure_says_what_and_where() -> None:
    body = sent(record(state="failure", text="regressed +5.2%: squeeze on lab", finding=7), link="https://host/findings/")
    assert body == {
        "state": "failure",
        "context": "aibenchd/engine",
        "description": "regressed +5.2%: squeeze on lab",
        "target_url": "https://host/findings/7",
    }


def test_what_could_not_be_told_is_what_the_configuration_calls_it() -> None:
    assert sent(record(state="inconclusive"))["state"] == "error"
    assert sent(record(state="inconclusive"), inconclusive="success")["state"] == "success"


@pytest.mark.parametrize("text", ["x" * 140, "x" * 141, "\u00fc" * 300])
def test_a_description_is_no_longer_than_it_may_be(text: str) -> None:
    shown = sent(record(text=text))["description"]
    assert len(shown) == 140
    assert shown[:139] == text[:139]


def test_without_a_finding_or_a_base_address_there_is_no_link() -> None:
    assert "target_url" not in sent(record(), link="https://host/findings/")
    assert "target_url" not in sent(record(state="failure", finding=7))


def test_only_repositories_that_are_named_are_told_of() -> None:
    assert opened().accepts(record())
    assert not opened(repositories={"other": "lab/other"}).accepts(record())


async def test_each_commit_has_an_address_of_its_own(receiver: receivers.Receiver) -> None:
    keys = {"format": {"kind": "commit-status", "repositories": REPOSITORIES, "context": "speed"}}
    receiver.answer = lambda request: 201
    assert await sending.deliver(receiver.url, [record()], **keys) == base.Delivery(base.Answer.DONE)
    (request,) = receiver.requests
    assert request.target == f"/records/repos/lab/engine/statuses/{COMMIT}"
    assert request.json["context"] == "speed"
    assert "content-encoding" not in request.headers
