"""Sink ``http``: batches of records as POST requests.

What the answers mean. Only 400, 413 and 422 speak of the records; any other 4xx is about the address, the
credentials or the way we ask, so the records are kept until a person has looked.

======================================= ================================================================================
2xx, and the format finds it complete   delivered
2xx otherwise, 408, 409, 425, 429, 5xx, again, after ``Retry-After`` where it is given
no answer, half an answer
413                                     the batch is split
400, 422, and 2xx that says that some   the batch is bisected; a record that is refused alone is a dead letter
records were refused
other 4xx, 3xx, a certificate that      paused; a redirect is never followed: it would take the records, and the secret
does not verify                         that goes with them, where nobody has said that they go
======================================= ================================================================================

A format may know better what its receivers mean by a status (:meth:`aibenchd.report.base.Format.refusal`).

Each request carries ``Idempotency-Key``, derived from the ids of its records: a batch that is sent again has the same.
"""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import hashlib
import http
import re
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import anyio.to_thread
import pydantic
import pydantic_core

from aibenchd import credentials, errors, kinds, model, plugins, redaction
from aibenchd.report import base

if TYPE_CHECKING:
    import httpx

REPLY_BOUND = 64 << 10  # bytes of a reply that are read
EXCERPT = 200  # characters of a reply that are shown
IN_THREAD = 64 << 10  # bytes: a larger body is composed and compressed off the event loop
GZIP_LEVEL = 1  # the records are text that repeats itself: more effort saves little
CONNECT_SECONDS = 10.0
SECRET_TARGET = 20  # characters: a shorter path is no secret, and may be a word of many logs
OURS = (
    *("authorization", "private-token"),
    *("content-encoding", "content-length", "content-type", "host", "idempotency-key", "transfer-encoding"),
)

IN_THE_CLEAR = "the secret would travel in the clear; use https, or a receiver on this host"

_AGAIN = {408, 409, 425, 429}  # 409: a request with the same key is under way
_REFUSED = {400, 422}
_UNKNOWN_TO_THEM = {401, 403}


def _spelled_out(value: Any) -> Any:
    """A format's name alone is one without keys of its own."""
    if not isinstance(value, str):
        return value
    own = {"kind": value}
    try:
        kinds.check("formats", value)
        fields = kinds.of_kind(base.FormatSettings, "formats", own).model_fields
    except errors.UnknownKindError as error:
        raise ValueError(str(error)) from error
    lacking = [f"{name}: …" for name, field in fields.items() if field.is_required() and name not in own]
    if lacking:
        raise ValueError(f"the format {value} is not told by its name alone: write {{kind: {value}, {', '.join(lacking)}}}")
    return own


AnyFormat = Annotated[
    pydantic.SerializeAsAny[base.FormatSettings],
    kinds.validator(base.FormatSettings, "formats"),
    pydantic.BeforeValidator(_spelled_out),
]


class Http(base.Sink):
    """Posts records to a URL."""

    class Settings(base.SinkSettings):
        """Its keys; ``url`` is read from ``url_file`` where that is named; it has to be one of the two."""

        model_config = pydantic.ConfigDict(json_schema_extra={"anyOf": [{"required": ["url"]}, {"required": ["url_file"]}]})

        url_file: Annotated[
            credentials.File | None, pydantic.Field(description="holds the url in its place, where that is a secret by itself")
        ] = None
        url: Annotated[
            str,
            pydantic.Field(validate_default=True, description="http or https; FAI-PEP's <url>|<category> for the format faipep"),
        ] = ""
        format: Annotated[
            AnyFormat, pydantic.Field(description="of the requests: a name, or a mapping whose kind decides which keys there are")
        ] = base.FormatSettings(kind="native")
        token_file: Annotated[
            credentials.File | None, pydantic.Field(description="bearer token; a name without a slash is a systemd credential")
        ] = None
        ca_file: Annotated[Path | None, pydantic.Field(description="certificates to trust in place of the system's, PEM")] = None
        headers: Annotated[dict[str, str], pydantic.Field(default_factory=dict, description="sent with each request; no secrets")]
        compress: Annotated[
            bool, pydantic.Field(description="gzip, which the receiver must understand; webhooks and commit statuses never are")
        ] = True
        proxy: Annotated[str, pydantic.Field(description="URL of an HTTP proxy; empty: none, whatever the environment says")] = ""

        @property
        def wants(self) -> str:
            return _format_class(self.format).wants or self.records

        @property
        def at_once(self) -> int:
            return min(self.batch_records, _format_class(self.format).most)

        def open_format(self) -> base.Format:
            """Raises ValueError where the category does not suit it."""
            return _format_class(self.format)(self.format, self.url.partition("|")[2])

        @pydantic.field_validator("url")
        @classmethod
        def _is_given(cls, value: str, info: pydantic.ValidationInfo) -> str:
            if not value and not info.data.get("url_file"):
                raise pydantic_core.PydanticKnownError("missing")
            return value

        @pydantic.field_validator("url", "proxy")
        @classmethod
        def _is_address(cls, value: str) -> str:
            if value:
                _check_address(value.partition("|")[0])
                if redaction.text(value) != value:
                    raise ValueError("it holds a secret, which belongs in token_file, or all of it in url_file")
            return value

        @pydantic.field_validator("headers")
        @classmethod
        def _are_free(cls, value: dict[str, str]) -> dict[str, str]:
            for name, content in value.items():
                _check_header(name, content)
            return value

        @pydantic.model_validator(mode="after")
        def _fits(self) -> Self:
            if self.url and self.url_file:
                raise ValueError("expected either url or, where it is a secret by itself, url_file")
            own = self.open_format()
            if own.wants and "records" in self.model_fields_set:
                raise ValueError(f"records: the format {self.format.kind} is of {own.wants} alone; leave this key out")
            if self.token_file and self.url and not _keeps_secrets(self.url):
                raise ValueError(f"token_file: {IN_THE_CLEAR}")
            return self

    settings: Settings

    @contextlib.asynccontextmanager
    async def outlet(self) -> AsyncIterator[base.Outlet]:
        import httpx  # here, for it takes longer to import than the daemon has to be ready

        settings = self.settings
        client = httpx.AsyncClient(
            verify=await anyio.to_thread.run_sync(_trust, settings.ca_file),
            proxy=settings.proxy or None,
            trust_env=False,
            timeout=httpx.Timeout(settings.timeout, connect=min(CONNECT_SECONDS, settings.timeout)),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            headers={"Accept-Encoding": "identity", "User-Agent": "aibenchd", **settings.headers},
            follow_redirects=False,
        )
        async with client:
            opened = _Outlet(settings, client)
            await opened.look()
            yield opened


@dataclass(frozen=True, slots=True)
class _Request:
    """Records, those of them that the format has a place for, and the body that these make with this token."""

    records: Sequence[model.Record]
    taken: Sequence[model.Record]
    token: str
    body: bytes


class _Outlet(base.Outlet):
    def __init__(self, settings: Http.Settings, client: httpx.AsyncClient) -> None:
        self._settings, self._client = settings, client
        self._format = settings.open_format()
        self._compressed = settings.compress and self._format.compressible
        self._ready: _Request | None = None

    async def look(self) -> None:
        """Try its secrets: a wrong name must not wait for the first regression to be found.

        Raises:
            CredentialError: one cannot be read.
        """
        await self._token()
        await self._url()

    async def prepare(self, records: Sequence[model.Record]) -> None:
        self._ready = await self._composed(records, await self._token())

    async def deliver(self, records: Sequence[model.Record]) -> base.Delivery:
        import httpx

        ready, self._ready = self._ready, None  # before the first await, for then the one after it may be made ready
        token = await self._token()
        if ready is None or ready.records != records or ready.token != token:
            try:
                ready = await self._composed(records, token)
            except errors.BadRecordError as error:
                return base.Delivery(base.Answer.REFUSED, str(error))  # as a receiver that finds one bad: it is bisected
        if not ready.taken:
            return base.Delivery(base.Answer.DONE)
        address = self._format.address(await self._url(), ready.taken)
        headers = self._headers(records, token)
        try:
            async with self._client.stream("POST", address, content=ready.body, headers=headers) as response:
                reply = await _beginning(response)
        except httpx.HTTPError as error:
            return _unanswered(error)
        return self._judged(ready.taken, response, reply)

    async def _token(self) -> str:
        """Read for each batch: a token that was renewed is used at once."""
        if self._settings.token_file is None:
            return ""
        token = await anyio.to_thread.run_sync(credentials.read, self._settings.token_file)
        if not token.isascii():
            raise errors.CredentialError(f"{self._settings.token_file}: a token is of ASCII letters, digits and signs")
        return token

    async def _url(self) -> str:
        source = self._settings.url_file
        if source is None:
            return self._settings.url.partition("|")[0]
        url = await anyio.to_thread.run_sync(credentials.read, source)
        try:
            _check_address(url)
        except ValueError as error:
            raise errors.CredentialError(f"{source}: {error}") from error
        if not _keeps_secrets(url):
            raise errors.CredentialError(f"{source}: {IN_THE_CLEAR}")
        target = url.partition("//")[2].partition("/")[2]
        if len(target) >= SECRET_TARGET:
            redaction.register(target)  # what is secret of it, wherever it is told without the host
        return url

    def _headers(self, records: Sequence[model.Record], token: str) -> dict[str, str]:
        headers = {"Content-Type": self._format.content_type, "Idempotency-Key": idempotency_key(records)}
        if self._compressed:
            headers["Content-Encoding"] = "gzip"
        if token and not self._format.token_in_body:
            headers[self._format.token_header] = self._format.authorization(token)
        return headers

    async def _composed(self, records: Sequence[model.Record], token: str) -> _Request:
        taken = [record for record in records if self._format.accepts(record)]
        if not taken:
            return _Request(records, taken, token, b"")

        def compose() -> bytes:
            body = self._format.body(taken, token if self._format.token_in_body else "")
            return compressed(body) if self._compressed else body

        small = sum(len(record.text) for record in taken) < IN_THREAD
        return _Request(records, taken, token, compose() if small else await anyio.to_thread.run_sync(compose))

    def _judged(self, records: Sequence[model.Record], response: httpx.Response, reply: bytes) -> base.Delivery:
        status = response.status_code
        told = 200 <= status < 300
        said = self._format.answer(records, reply) if told else self._format.refusal(status, reply)
        if said is base.Answer.DONE:
            return base.Delivery(base.Answer.DONE)
        reason, retry_after = _reason(response, reply), _retry_after(response.headers.get("Retry-After", ""))
        if status in _AGAIN or status >= 500 or said is base.Answer.AGAIN:
            return base.Delivery(base.Answer.AGAIN, reason, retry_after)
        if status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return base.Delivery(base.Answer.TOO_LARGE, reason)
        if status in _REFUSED or said is base.Answer.REFUSED:
            return base.Delivery(base.Answer.REFUSED, reason)
        if retry_after is None:
            reason = f"{reason}; {self._advice(status)}, then 'aibenchctl reload'"
        return base.Delivery(base.Answer.PAUSED, reason, retry_after)  # GitHub's 403 to who asks too often says for how long

    def _advice(self, status: int) -> str:
        """What a person can do about an answer that will be the same again."""
        own = self._settings
        if status in _UNKNOWN_TO_THEM and own.token_file is not None:
            return f"renew the token in {own.token_file}"
        if own.url_file is not None:
            return f"mend the address in {own.url_file}"
        return "give it a token_file with a token that may write there" if status in _UNKNOWN_TO_THEM else "mend its url"


def compressed(body: bytes) -> bytes:
    """The same bytes each time."""
    return gzip.compress(body, GZIP_LEVEL, mtime=0)


def idempotency_key(records: Sequence[model.Record]) -> str:
    """The name of a batch: the same for the same records in the same order, in any process at any time."""
    return hashlib.sha256("\n".join(record.id for record in records).encode()).hexdigest()[:32]


async def _beginning(response: httpx.Response) -> bytes:
    reply = b""
    async for chunk in response.aiter_raw():
        reply += chunk
        if len(reply) > REPLY_BOUND:
            break  # the connection is closed with the rest unread
    return reply[:REPLY_BOUND]


def _unanswered(error: httpx.HTTPError) -> base.Delivery:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return base.Delivery(
                base.Answer.PAUSED, f"its certificate does not verify: {cause.verify_message}; name the right ca_file"
            )
        cause = cause.__cause__ or cause.__context__
    return base.Delivery(base.Answer.AGAIN, redaction.text(f"no answer: {error or type(error).__name__}"))


def _reason(response: httpx.Response, reply: bytes) -> str:
    """The status, where a redirect points, and how the reply begins, in one line."""
    text = f"{response.status_code} {response.reason_phrase}"
    if response.is_redirect:
        text += f", to {response.headers.get('Location', 'nowhere')}, which is the address to name"
    said = " ".join(reply[: 4 * EXCERPT].decode(errors="replace").split())
    said = "".join(character for character in said if character.isprintable())
    return redaction.text(f"{text}: {said}" if said else text)[:EXCERPT]


def _retry_after(header: str) -> float | None:
    """Seconds, from a number of them or an HTTP date (RFC 9110, 10.2.3); None where it is neither."""
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        date = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise errors.SinkError(f"ca_file {ca_file}: expected certificates in PEM: {error}") from error


def _format_class(chosen: base.FormatSettings) -> type[base.Format]:
    loaded: type[base.Format] = plugins.load("formats", chosen.kind)
    return loaded


def _check_address(value: str) -> None:
    parts = urllib.parse.urlsplit(value)  # raises ValueError too
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an address such as https://host/path")
    if parts.username is not None:
        raise ValueError("it holds a secret, which belongs in token_file")
    if parts.port == 0 or parts.fragment or not (value.isascii() and value.isprintable()) or " " in value:
        raise ValueError("expected an address such as https://host:8080/path, without a fragment or spaces")


def _check_header(name: str, content: str) -> None:
    if name.lower() in OURS:
        raise ValueError(f"{name}: set by aibenchd itself; a token belongs in token_file")
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not (content.isascii() and content.isprintable()):
        raise ValueError(f"{name}: expected a header's name and printable ASCII text")
    if redaction.text(f"{name}: {content}") != f"{name}: {content}":
        raise ValueError(f"{name}: it holds a secret, which belongs in token_file")


def _keeps_secrets(address: str) -> bool:
    parts = urllib.parse.urlsplit(address)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")
