"""Format ``commit-status``: how each commit stands, shown where it is kept: GitHub, Gitea, Forgejo.

``POST {url}/repos/{owner}/{repo}/statuses/{sha}``, where the sink's ``url`` is the API's, such as ``https://api.github.com`` or
``https://host/api/v1``. All statuses of a repository have one ``context``, so that the newest of a commit stands for the others.
GitLab has another form and other rules: :mod:`aibenchd.report.formats.gitlabstatus`.

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

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from aibenchd.report.formats import statuses


class CommitStatus(statuses.Statuses):
    """Standings of commits, each a request of its own."""

    longest = 140  # that GitHub takes

    class Settings(statuses.Settings):
        repositories: Annotated[
            dict[str, Annotated[str, pydantic.Field(pattern=r"^[^/\s]+/[^/\s]+$")]],
            pydantic.Field(
                min_length=1, description="owner/name there, by the name of a repository here; others are not told of"
            ),
        ]
        inconclusive: Annotated[
            Literal["error", "success"], pydantic.Field(description="of a commit of which something could not be told")
        ] = "error"

    settings: Settings

    def path(self, repository: str, commit: str) -> str:
        return f"repos/{statuses.quoted(repository, '/')}/statuses/{commit}"

    def authorization(self, token: str) -> str:
        return f"token {token}"  # the one spelling that all of them document

    def state(self, payload: Mapping[str, Any]) -> str:
        return self.settings.inconclusive if payload["state"] == "inconclusive" else str(payload["state"])
