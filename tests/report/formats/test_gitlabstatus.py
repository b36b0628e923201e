"""Requests are those that python-gitlab makes of the same status, and a server that keeps GitLab's published rules takes them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio.to_thread
import gitlabd
import pydantic
import pytest
import sending

from aibenchd import model
from aibenchd.report import base, records
from aibenchd.report.formats import gitlabstatus

COMMIT, UNKNOWN = "3f2a" * 10, "0" * 40
REPOSITORIES = {"engine": "lab/nets/engine", "other": "17"}
TOKEN = "glpat-of-the-lab-alone"


@pytest.fixture
async def server() -> AsyncIterator[gitlabd.GitLab]:
    async with gitlabd.GitLab(TOKEN, {"lab/nets/engine", "17"}, {UNKNOWN}).listening() as listening:
        yield listening


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(TOKEN)
    return path


def record(state: str, commit: str = COMMIT, repository: str = "engine", **fields: Any) -> model.Record:
    standing = {"state": state, "text": "4 measured, none regressed", "finding": None, "counts": {}, **fields}
    return records.status_record(str(uuid.UUID(int=7)), repository, commit, 0, standing, time=datetime(2026, 3, 4, tzinfo=UTC))


async def told(server: gitlabd.GitLab, token: Path, one: model.Record, **keys: Any) -> base.Delivery:
    chosen = {"kind": "gitlab-status", "repositories": REPOSITORIES, **keys}
    return await sending.deliver(f"{server.url}/api/v4", [one], format=chosen, token_file=str(token))


DONE = base.Delivery(base.Answer.DONE)


async def test_a_failure_says_what_and_where(server: gitlabd.GitLab, token: Path) -> None:
    failure = record("failure", text="regressed +5.2%: squeeze on lab", finding=7)
    assert await told(server, token, failure, link="https://host/findings/") == DONE
    (request,) = server.requests
    assert request == (
        f"/api/v4/projects/lab%2Fnets%2Fengine/statuses/{COMMIT}",
        TOKEN,
        {
            "state": "failed",
            "context": "aibenchd/engine",
            "description": "regressed +5.2%: squeeze on lab",
            "target_url": "https://host/findings/7",
        },
    )


async def test_the_request_is_as_python_gitlab_makes_it(server: gitlabd.GitLab, token: Path) -> None:
    gitlab = pytest.importorskip("gitlab", reason="python-gitlab is not installed")

    def theirs() -> None:
        with gitlab.Gitlab(server.url, private_token=TOKEN) as client:
            commit = client.projects.get("lab/nets/engine", lazy=True).commits.get(COMMIT, lazy=True)
            commit.statuses.create(
                {"state": "success", "context": "aibenchd/engine", "description": "4 measured, none regressed"}
            )

    await anyio.to_thread.run_sync(theirs)
    assert await told(server, token, record("success")) == DONE
    assert server.requests[0] == server.requests[1]


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("pending", "running"),
        ("success", "success"),
        ("failure", "failed"),
        ("error", "failed"),
        ("inconclusive", "canceled"),
    ],
)
async def test_each_state_is_one_of_gitlabs(server: gitlabd.GitLab, token: Path, state: str, shown: str) -> None:
    assert await told(server, token, record(state, repository="other", text="\u00fc" * 500)) == DONE
    ((place, statuses),) = server.statuses.items()
    assert place == ("17", COMMIT, "aibenchd/other")
    assert [status["state"] for status in statuses] == [shown]


async def test_what_could_not_be_told_is_what_the_configuration_calls_it(server: gitlabd.GitLab, token: Path) -> None:
    assert await told(server, token, record("inconclusive"), inconclusive="success") == DONE
    assert server.requests[0][2]["state"] == "success"


async def test_a_commit_goes_through_its_states_and_what_is_told_twice_is_no_fault(server: gitlabd.GitLab, token: Path) -> None:
    for state in ("pending", "pending", "failure", "pending", "success", "success"):
        assert await told(server, token, record(state)) == DONE
    (statuses,) = server.statuses.values()
    assert [status["state"] for status in statuses] == ["running", "failed", "running", "success", "success"]


async def test_a_commit_that_is_not_there_is_refused_and_a_project_pauses(server: gitlabd.GitLab, token: Path) -> None:
    missing = await told(server, token, record("success", UNKNOWN))
    assert (missing.answer, "404 Commit Not Found" in missing.reason) == (base.Answer.REFUSED, True)
    project = await told(server, token, record("success"), repositories={"engine": "lab/secret"})
    assert (project.answer, "404 Project Not Found" in project.reason) == (base.Answer.PAUSED, True)
    token.write_text("glpat-revoked-since")
    assert (await told(server, token, record("success"))).answer is base.Answer.PAUSED


async def test_only_repositories_that_are_named_are_told_of(server: gitlabd.GitLab, token: Path) -> None:
    assert await told(server, token, record("success", repository="third")) == DONE
    assert server.requests == []


@pytest.mark.parametrize("name", ["engine", "a//b", "/a/b", "a b/c", "https://gitlab.com/a/b", ""])
def test_what_names_no_project_is_refused(name: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        gitlabstatus.GitLabStatus.Settings.model_validate({"kind": "gitlab-status", "repositories": {"engine": name}})
