"""Format ``commit-status``: how each commit stands, shown where it is kept: GitHub, Gitea, Forgejo.

``POST {url}/repos/{owner}/{repo}/statuses/{sha}``, where the sink's ``url`` is the API's, such as ``https://api.github.com`` or
``https://host/api/v1``. All statuses of a repository have one ``context``, so that the newest of a commit stands for the others.
GitLab has another form and other rules, and is not supported.

=========== =======================================================================================================
pending     its experiments are being measured, or what regressed is being measured again
success     everything is unchanged or better; so is what shows only what an older commit's finding has shown
failure     something is confirmed to be slower or wrong, or is broken
error       something does not build or cannot be run; or could not be told (``inconclusive``)
=========== =======================================================================================================

GitHub: https://docs.github.com/en/rest/commits/statuses; Gitea and Forgejo: /api/swagger of each server. GitHub keeps 1,000
statuses of a commit and context; a commit has a few. One that the server has not got yet answers 422: a dead letter.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic

from aibenchd import model
from aibenchd.report import base
from aibenchd.report.formats import webhook

DESCRIPTION = 140  # characters that GitHub takes


class CommitStatus(base.Format):
    """Standings of commits, each a request of its own."""

    wants = "statuses"
    most = 1
    compressible = False

    class Settings(base.FormatSettings):
        repositories: Annotated[
            dict[str, Annotated[str, pydantic.Field(pattern=r"^[^/\s]+/[^/\s]+$")]],
            pydantic.Field(
                min_length=1, description="owner/name there, by the name of a repository here; others are not told of"
            ),
        ]
        context: Annotated[
            str,
            pydantic.Field(
                min_length=1, max_length=255, description="what tells it from other statuses; {repository} is its name here"
            ),
        ] = "aibenchd/{repository}"
        link: Annotated[
            webhook.Link, pydantic.Field(description="address that a finding's number is put behind; empty: no links")
        ] = ""
        inconclusive: Annotated[
            Literal["error", "success"], pydantic.Field(description="of a commit of which something could not be told")
        ] = "error"

    settings: Settings

    def accepts(self, record: model.Record) -> bool:
        return record.kind == "status" and record.payload["repository"] in self.settings.repositories

    def address(self, url: str, records: Sequence[model.Record]) -> str:
        payload: Mapping[str, Any] = records[0].payload
        where = self.settings.repositories[payload["repository"]]
        return f"{url.rstrip('/')}/repos/{urllib.parse.quote(where)}/statuses/{payload['commit']}"

    def authorization(self, token: str) -> str:
        return f"token {token}"  # the one spelling that all of them document

    def body(self, records: Sequence[model.Record], token: str) -> bytes:  # noqa: ARG002
        payload: Mapping[str, Any] = records[0].payload
        own, text = self.settings, payload["text"]
        status = {
            "state": own.inconclusive if payload["state"] == "inconclusive" else payload["state"],
            "context": own.context.replace("{repository}", payload["repository"]),
            "description": text if len(text) <= DESCRIPTION else f"{text[: DESCRIPTION - 1]}…",
        }
        if own.link and payload["finding"] is not None:
            status["target_url"] = f"{own.link}{payload['finding']}"
        return json.dumps(status).encode()
