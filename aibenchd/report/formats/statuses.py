"""What formats have in common that tell how each commit stands to where it is kept."""

from __future__ import annotations

import abc
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pydantic

from aibenchd import model
from aibenchd.report import base
from aibenchd.report.formats import webhook


class Settings(base.FormatSettings):
    """Each of these formats says how it names a repository, and has keys of its own."""

    repositories: dict[str, str]
    context: Annotated[
        str,
        pydantic.Field(
            min_length=1, max_length=255, description="what tells it from other statuses; {repository} is its name here"
        ),
    ] = "aibenchd/{repository}"
    link: Annotated[
        webhook.Link,
        pydantic.Field(max_length=240, description="address that a finding's number is put behind; empty: no links"),
    ] = ""


class Statuses(base.Format):
    """Standings of commits, each a request of its own.

    Attributes:
        longest: characters of a description that are taken.
    """

    wants = "statuses"
    most = 1
    compressible = False
    longest: ClassVar[int]

    settings: Settings

    def accepts(self, record: model.Record) -> bool:
        return record.kind == "status" and record.payload["repository"] in self.settings.repositories

    def address(self, url: str, records: Sequence[model.Record]) -> str:
        payload: Mapping[str, Any] = records[0].payload
        return f"{url.rstrip('/')}/{self.path(self.settings.repositories[payload['repository']], payload['commit'])}"

    def body(self, records: Sequence[model.Record], token: str) -> bytes:  # noqa: ARG002
        payload: Mapping[str, Any] = records[0].payload
        own, text = self.settings, payload["text"]
        status = {
            "state": self.state(payload),
            "context": own.context.replace("{repository}", payload["repository"]),
            "description": text if len(text) <= self.longest else f"{text[: self.longest - 1]}…",
        }
        if own.link and payload["finding"] is not None:
            status["target_url"] = f"{own.link}{payload['finding']}"
        return json.dumps(status).encode()

    @abc.abstractmethod
    def path(self, repository: str, commit: str) -> str:
        """Where a commit's statuses are, below the sink's ``url``; ``repository`` is its name there."""

    @abc.abstractmethod
    def state(self, payload: Mapping[str, Any]) -> str:
        """How it stands, in the receiver's words."""


def quoted(name: str, separators: str = "") -> str:
    """A name as a part of a path; ``separators`` in it are those of the path."""
    return urllib.parse.quote(name, safe=separators)
