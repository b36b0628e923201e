"""What a sink and a format are to the rest of the house.

A kind of sink is one file with one class derived from :class:`Sink`, and one line under ``aibenchd.sinks``;
a payload format of the HTTP sink is one derived from :class:`Format`, under ``aibenchd.formats``.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pydantic

from aibenchd import model


class SinkSettings(pydantic.BaseModel):
    """What every kind of sink has in the YAML file; a kind adds its own keys by deriving from it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    kind: str
    records: Annotated[
        Literal["verdicts", "all"],
        pydantic.Field(description="verdicts: each metric of each decided experiment; all: each block's samples too"),
    ] = "all"


class Answer(enum.Enum):
    """What a sink made of a batch; the outbox acts on it as the design's delivery rules say."""

    DONE = "done"
    AGAIN = "again"  # with backoff, or after ``retry_after``
    PAUSED = "paused"  # credentials or address refused: a person must look; probed meanwhile
    TOO_LARGE = "too large"  # split it
    REFUSED = "refused"  # bisect it; a single record that is refused is dead


@dataclass(frozen=True, slots=True)
class Delivery:
    """The fate of one batch.

    Attributes:
        reason: for a person, such as ``503 Service Unavailable``; no secret in it.
        retry_after: seconds that the sink asked for; None where it did not.
    """

    answer: Answer
    reason: str = ""
    retry_after: float | None = None


class Outlet(abc.ABC):
    """An open sink."""

    @abc.abstractmethod
    async def deliver(self, records: Sequence[model.Record]) -> Delivery:
        """Hand over a batch, in order. Never raises for what the other side does; may be cancelled at any time."""


class Sink(abc.ABC):
    """A place that records are delivered to. ``__init__`` does no I/O; :meth:`outlet` is entered by one task at a time."""

    Settings: ClassVar[type[SinkSettings]]

    def __init__(self, settings: SinkSettings, state_directory: Path) -> None:
        self.settings = settings
        self.state_directory = state_directory

    @abc.abstractmethod
    def outlet(self) -> AbstractAsyncContextManager[Outlet]: ...


class Format(abc.ABC):
    """How a batch of records becomes the body of an HTTP request. Pure."""

    content_type: ClassVar[str]

    @abc.abstractmethod
    def accepts(self, record: model.Record) -> bool:
        """Whether this format has a place for such a record; others are delivered as done."""

    @abc.abstractmethod
    def body(self, records: Sequence[model.Record], token: str) -> bytes:
        """The request's body, not compressed. ``token`` is the sink's secret, for formats that carry it in the body."""

    @abc.abstractmethod
    def acknowledged(self, records: Sequence[model.Record], reply: bytes) -> bool:
        """Whether the reply to a 2xx says that all records were taken."""
