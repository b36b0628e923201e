"""Format ``gitlab-status``: how each commit stands, shown where GitLab keeps it.

``POST {url}/projects/{id}/statuses/{sha}``, where the sink's ``url`` is the API's, such as ``https://gitlab.com/api/v4``, and the
id is the project's number or its path. All statuses of a repository have one ``context``: GitLab shows each commit's newest.

=========== =======================================================================================================
running     its experiments are being measured, or what regressed is being measured again
success     everything is unchanged or better; so is what shows only what an older commit's finding has shown
failed      something is confirmed to be slower or wrong, or is broken; or does not build, or cannot be run
canceled    could not be told (``inconclusive``)
=========== =======================================================================================================

https://docs.gitlab.com/api/commits/ lists what it takes. The token is one of a project, a group or a person, of the scope ``api``
and the role Developer. GitLab refuses a status that is so already (400, *Cannot transition status*): that counts as delivered,
though a changed description is not shown then. A commit that it has not got yet answers 404, as does a project that the token
does not open: the commit's status is a dead letter, the project pauses the sink.
"""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from aibenchd.report import base
from aibenchd.report.formats import statuses

STATES = {"pending": "running", "success": "success", "failure": "failed", "error": "failed"}
AS_IT_IS = b"Cannot transition status"
NO_COMMIT = (b"404 Commit Not Found", b"404 References for commit Not Found")


class GitLabStatus(statuses.Statuses):
    """Standings of commits, each a request of its own."""

    longest = 255
    token_header = "PRIVATE-TOKEN"  # noqa: S105  the header's name

    class Settings(statuses.Settings):
        repositories: Annotated[
            dict[str, Annotated[str, pydantic.Field(pattern=r"^([0-9]+|[^/\s]+(/[^/\s]+)+)$")]],
            pydantic.Field(
                min_length=1,
                description="group/project there, or its number, by the name of a repository here; others are not told of",
            ),
        ]
        inconclusive: Annotated[
            Literal["canceled", "failed", "success"],
            pydantic.Field(description="of a commit of which something could not be told"),
        ] = "canceled"

    settings: Settings

    def path(self, repository: str, commit: str) -> str:
        return f"projects/{statuses.quoted(repository)}/statuses/{commit}"

    def authorization(self, token: str) -> str:
        return token

    def state(self, payload: Mapping[str, Any]) -> str:
        return self.settings.inconclusive if payload["state"] == "inconclusive" else STATES[payload["state"]]

    def refusal(self, status: int, reply: bytes) -> base.Answer | None:
        if status == http.HTTPStatus.BAD_REQUEST and AS_IT_IS in reply:
            return base.Answer.DONE
        if status == http.HTTPStatus.NOT_FOUND and any(said in reply for said in NO_COMMIT):
            return base.Answer.REFUSED
        return None
