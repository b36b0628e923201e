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

from aibenchd import model, quantities


class SinkSettings(pydantic.BaseModel):
    """What every kind of sink has in the YAML file; a kind adds its own keys by deriving from it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: Annotated[
        str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64, description="what status and logs call it")
    ]
    kind: Annotated[str, pydantic.Field(description="how it is reached; decides which other keys there are")]
    records: Annotated[
        Literal["verdicts", "all"],
        pydantic.Field(description="verdicts: each metric of each decided experiment; all: each block's samples too"),
    ] = "all"
    batch_records: Annotated[int, pydantic.Field(ge=1, le=10_000, description="records handed over at once, at most")] = 1_000
    batch_size: Annotated[quantities.Size, pydantic.Field(ge=1, description="their size before compression, at most")] = 4 << 20
    timeout: Annotated[
        quantities.Duration, pydantic.Field(gt=0, description="of one batch, from its first byte to the answer")
    ] = 60.0

    @property
    def wants(self) -> str:
        """Which records are kept for it: of :data:`aibenchd.store.outbox.KINDS`."""
        return self.records

    @property
    def at_once(self) -> int:
        """How many records one batch has at most."""
        return self.batch_records


class FormatSettings(pydantic.BaseModel):
    """What every format of the HTTP sink has in the YAML file; one with keys of its own derives from it.

    A format's name alone, as text, stands for one with no other keys.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[str, pydantic.Field(description="of the request's body; decides which other keys there are")]


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

    async def prepare(self, records: Sequence[model.Record]) -> None:  # noqa: B027  there may be nothing to make ready
        """Make ready what will probably be handed over next, while :meth:`deliver` is at work on the batch before it.

        Not called for every batch, and not all that it is called for is handed over. May raise what it likes: the records
        are handed over as if it had not been called.
        """

    @abc.abstractmethod
    async def deliver(self, records: Sequence[model.Record]) -> Delivery:
        """Hand over a batch, in order. Never raises for what the other side does; may be cancelled at any time.

        A batch that came to no certain end is handed over again, the same records in the same order.

        Raises:
            CredentialError: the secret cannot be read.
        """


class Sink(abc.ABC):
    """A place that records are delivered to. ``__init__`` does no I/O; :meth:`outlet` is entered by one task at a time.

    An outlet is left when a batch could not be delivered, and entered anew for the next try.
    """

    Settings: ClassVar[type[SinkSettings]]

    def __init__(self, settings: SinkSettings, state_directory: Path) -> None:
        self.settings = settings
        self.state_directory = state_directory

    @abc.abstractmethod
    def outlet(self) -> AbstractAsyncContextManager[Outlet]:
        """Open it.

        Raises:
            SinkError: it cannot be opened as it is configured; the message says what to do.
            CredentialError: its secret cannot be read.
        """


class Format(abc.ABC):
    """How a batch of records becomes an HTTP request. Pure, and safe to use from any thread.

    Attributes:
        wants: which records it is made of, of :data:`aibenchd.store.outbox.KINDS`; empty: what the sink's ``records`` says.
        most: records that one request holds at most.
        compressible: whether its receivers understand gzip.
        token_in_body: whether the sink's secret is part of the body; else it is a header, by :meth:`authorization`.
        token_header: the name of that header.
    """

    Settings: ClassVar[type[FormatSettings]] = FormatSettings
    content_type: ClassVar[str] = "application/json"
    wants: ClassVar[str] = ""
    most: ClassVar[int] = 10_000
    compressible: ClassVar[bool] = True
    token_in_body: bool = False
    token_header: ClassVar[str] = "Authorization"  # noqa: S105  the header's name

    def __init__(self, settings: FormatSettings, category: str = "") -> None:
        """``category`` is what follows a ``|`` in the sink's ``url``, empty where nothing does.

        Raises:
            ValueError: it has no use for one, or cannot do without; the message says what to write.
        """
        if category:
            raise ValueError(f"the format {settings.kind} has no categories: leave out what follows | in url")
        self.settings = settings

    @abc.abstractmethod
    def accepts(self, record: model.Record) -> bool:
        """Whether this format has a place for such a record; others are delivered as done."""

    def address(self, url: str, records: Sequence[model.Record]) -> str:  # noqa: ARG002
        """Where the request goes; ``url`` is the sink's."""
        return url

    def authorization(self, token: str) -> str:
        """What the header :attr:`token_header` says to show the sink's secret."""
        return f"Bearer {token}"

    @abc.abstractmethod
    def body(self, records: Sequence[model.Record], token: str) -> bytes:
        """The request's body, not compressed. ``token`` is the sink's secret, empty unless ``token_in_body``.

        Raises:
            BadRecordError: a record cannot be read; alone, it becomes a dead letter.
        """

    def answer(self, records: Sequence[model.Record], reply: bytes) -> Answer:  # noqa: ARG002
        """What the reply to a 2xx says: DONE, AGAIN, or REFUSED where some were; ``reply`` may be anything, cut off too."""
        return Answer.DONE

    def refusal(self, status: int, reply: bytes) -> Answer | None:  # noqa: ARG002
        """What any other status says, where these receivers mean more by it than others; None where they do not."""
        return None
