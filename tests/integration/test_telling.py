"""Who is told what of a commit: the real daemon, real git, and receivers of messages and of commit statuses."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import gitlabd
import lab
import receiver as receivers

UNBUILDABLE = "#!/bin/sh\nexit 1\n"
ALL = ["confirmed", "culprit", "mended"]
PLAIN = {"event": "{event}", "subject": "{subject}", "commit": "{commit}", "culprits": "{culprits}", "mended": "{mended}"}


@contextlib.asynccontextmanager
async def telling(directory: Path) -> AsyncIterator[tuple[lab.Lab, receivers.Receiver, receivers.Receiver]]:
    """A lab whose commits are all compared with the first one, and who is told: a chat, and where the repository is kept."""
    async with receivers.Receiver().listening() as chat, receivers.Receiver().listening() as forge:
        made = lab.make(directory)
        made.commit("first")
        (repository,) = made.configuration["repositories"]
        pinned = {"start_at": made.commits[0], "baseline": {"rule": "pinned", "commit": made.commits[0]}}
        status = {"kind": "commit-status", "repositories": {repository["name"]: "lab/engine"}}
        made.configure(
            verify={"enabled": True},
            repositories=[repository | pinned],
            sinks=[
                {"name": "chat", "kind": "http", "url": chat.url, "format": {"kind": "webhook", "on": ALL, "template": PLAIN}},
                {"name": "forge", "kind": "http", "url": forge.url, "format": status},
            ],
        )
        yield made, chat, forge


def said(receiver: receivers.Receiver) -> list[Any]:
    """Messages in the order in which they were taken, each once."""
    return [*{request.key: request.json for request in receiver.requests}.values()]


def states(forge: receivers.Receiver, commit: str) -> list[str]:
    return [one.json["state"] for one in forge.requests if one.target == f"/records/repos/lab/engine/statuses/{commit}"]


async def delivered(made: lab.Lab) -> None:
    await made.until("SELECT count(*) FROM standings WHERE stale", [(0,)])
    await made.until_delivered()


async def test_a_regression_is_told_once_and_each_commit_has_one_status(tmp_path: Path) -> None:
    async with telling(tmp_path) as (made, chat, forge), made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        slower = made.commit("slower", latency=130)
        await made.until("SELECT count(*) FROM findings WHERE state = 'open' AND search = 'found'")
        as_slow = made.commit("as slow", latency=130)
        await made.until("SELECT count(*) FROM sightings")
        broken = made.commit("does not build", build=UNBUILDABLE)
        await made.until("SELECT count(*) FROM experiments WHERE state = 'skipped'")
        mended = made.commit("mended")
        await made.until("SELECT count(*) FROM findings WHERE mended IS NOT NULL")
        await delivered(made)
        first = made.commits[0]
        assert said(chat) == [
            {"event": "confirmed", "subject": "slower", "commit": slower, "culprits": "", "mended": ""},
            {"event": "mended", "subject": "slower", "commit": slower, "culprits": "", "mended": mended},
        ]
        expected = {first: "success", slower: "failure", as_slow: "success", broken: "error", mended: "success"}
        for commit, state in expected.items():
            assert states(forge, commit) in (["pending", state], [state]), commit  # what is over at once was never seen pending
        (failure,) = [one.json for one in forge.requests if one.json["state"] == "failure"]
        assert failure["context"] == "aibenchd/engine"
        assert failure["description"].startswith("regressed +")


async def test_gitlab_is_told_too_and_a_commit_that_it_lacks_holds_up_no_other(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    unknown = made.commit("first")
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text("glpat-of-the-lab-alone")
    async with gitlabd.GitLab("glpat-of-the-lab-alone", {"lab/engine"}, {unknown}).listening() as server:
        status = {"kind": "gitlab-status", "repositories": {"engine": "lab/engine"}}
        sink = {"name": "gitlab", "kind": "http", "url": f"{server.url}/api/v4", "token_file": "./token", "format": status}
        made.configure(sinks=[sink])
        async with made.daemon():
            await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
            broken = made.commit("does not build", build=UNBUILDABLE)
            place = ("lab/engine", broken, "aibenchd/engine")
            with anyio.fail_after(lab.WAIT):
                while [status["state"] for status in server.statuses.get(place, ())][-1:] != ["failed"]:
                    await anyio.sleep(0.02)
            told = await made.ctl("sinks")
        assert {path.rpartition("/")[2] for path, _, _ in server.requests} == {unknown, broken}
        assert "404 Commit Not Found" in str(told)
        assert "glpat" not in made.log() + str(told)


async def test_a_daemon_that_is_killed_tells_it_once_all_the_same(tmp_path: Path) -> None:
    async with telling(tmp_path) as (made, chat, forge):
        async with made.daemon(AIBENCHD_CRASH_AT="confirm.before-commit") as process:
            await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
            slower = made.commit("slower", latency=130)
            with anyio.fail_after(lab.WAIT):
                assert await process.wait() == -signal.SIGKILL
        assert said(chat) == []
        async with made.daemon(AIBENCHD_CRASH_AT="delivery.after-acknowledge") as process:
            with anyio.fail_after(lab.WAIT):
                assert await process.wait() == -signal.SIGKILL
        async with made.daemon():
            await made.until("SELECT count(*) FROM findings WHERE state = 'open' AND search = 'found'")
            await delivered(made)
        assert [(one["event"], one["commit"]) for one in said(chat)] == [("confirmed", slower)]
        assert states(forge, slower)[-1] == "failure"
