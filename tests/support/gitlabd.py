"""What GitLab's API takes of commit statuses, by its published rules: a real HTTP server that keeps them, and refuses as it does.

https://docs.gitlab.com/api/commits/ and ``lib/api/commit_statuses.rb``: attributes, states, lengths. A status that has not ended
is changed, another is made anew; none becomes what it is, or goes back from running to pending.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

STATES = ("pending", "running", "success", "failed", "canceled", "skipped")
GOING_ON = ("pending", "running")
ATTRIBUTES = {"state", "ref", "name", "context", "target_url", "description", "coverage", "pipeline_id"}
LONGEST = 255  # characters of ref, target_url and description
BEGINS = {"pending": "enqueue", "running": "run"}


@dataclass
class GitLab:
    """Has all commits of its ``projects`` but the ``unknown`` ones.

    ``statuses`` are by project, commit and name, each as it came to stand; ``requests`` all that came, as it came.
    """

    token: str
    projects: set[str]
    unknown: set[str] = field(default_factory=set)
    statuses: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    requests: list[tuple[str, str | None, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[GitLab]:
        app = web.Application()
        app.router.add_post("/api/v4/projects/{id}/statuses/{sha}", self._post)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        sent: dict[str, Any] = await request.json()
        self.requests.append((request.raw_path, request.headers.get("PRIVATE-TOKEN"), sent))
        if request.headers.get("PRIVATE-TOKEN") != self.token:
            return _refused(401, "401 Unauthorized")
        project, sha = request.match_info["id"], request.match_info["sha"]
        if project not in self.projects:
            return _refused(404, "404 Project Not Found")
        if sha in self.unknown:
            return _refused(404, "404 Commit Not Found")
        wrong = [key for key in ("ref", "target_url", "description") if len(sent.get(key, "")) > LONGEST]
        if wrong or sent.get("state") not in STATES or sent.keys() - ATTRIBUTES:
            return _refused(400, f"does not have a valid value: {wrong or sent}")
        return self._told(project, sha, sent)

    def _told(self, project: str, sha: str, sent: dict[str, Any]) -> web.Response:
        every = self.statuses.setdefault((project, sha, sent.get("name", sent.get("context", "default"))), [])
        before = every[-1]["state"] if every else ""
        if before in GOING_ON and (sent["state"] == before or sent["state"] == "pending"):
            event = BEGINS[sent["state"]]
            reason = f'(Reason(s): Status cannot transition via "{event}")'
            return _refused(400, f"Cannot transition status via :{event} from :{before} {reason}")
        every.append(sent)
        return web.json_response({"id": 93, "sha": sha, "status": sent["state"], "name": "default"}, status=201)


def _refused(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)
