"""How the status socket answers: JSON, errors too, and within a deadline."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeAlias, TypeVar

import anyio
import anyio.to_thread
import pydantic
import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from aibenchd import errors, faults, quantities

log = structlog.get_logger()

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Model = TypeVar("Model", bound=pydantic.BaseModel)

BODY_LIMIT = 64 << 10  # bytes
CLIENT_GONE = 499  # as proxies call it; HTTP has no word for it


class Refusal(Exception):  # noqa: N818  it is an answer
    """What was asked is not done. ``hint`` says what to do; ``retry_after`` in how many seconds it may be, if waiting helps."""

    def __init__(self, status: int, error: str, hint: str = "", retry_after: int | None = None, **more: Any) -> None:
        self.status, self.retry_after = status, retry_after
        self.body = {"error": error, "hint": hint, **more}
        super().__init__(error)


def dumps(value: Mapping[str, Any]) -> bytes:
    """A JSON object, one line; a number that JSON has no word for is null, and what is no character of a file's name a ``?``."""
    members = (f"{_encoded(key)}: {_listed(item) if isinstance(item, list) else _encoded(item)}" for key, item in value.items())
    return ("{" + ", ".join(members) + "}\n").encode(errors="replace")


def _listed(items: list[Any]) -> str:
    """One by one: the encoder lets no other thread run until it is through, and a list may have 10,000."""
    return "[" + ", ".join(map(_encoded, items)) + "]"


def _encoded(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, ensure_ascii=False)


def json_response(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """``body`` is JSON already, as :func:`dumps` makes it."""
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def parsed(shape: type[Model], values: Mapping[str, Any]) -> Model:
    """What a client sent, checked.

    Raises:
        Refusal: 400, naming each key that is wrong and what was expected.
    """
    try:
        return shape.model_validate(values)
    except pydantic.ValidationError as error:
        found = error.errors()
        unknown = any(fault["type"] == "extra_forbidden" for fault in found)
        hint = f"the keys are {', '.join(shape.model_fields) or 'none'}" if unknown else ""
        raise Refusal(400, "; ".join(map(_fault, found)), hint) from error


async def body(request: web.Request, shape: type[Model], limit: int = BODY_LIMIT) -> Model:
    """A request's JSON object, checked; an empty body is an empty object.

    Args:
        limit: bytes that it may have.

    Raises:
        Refusal: 400, it is not one, or not of this shape; 413, it is too large.
    """
    text = await _text(request, limit)
    if len(text) <= BODY_LIMIT:
        return _read(text, shape)
    return await anyio.to_thread.run_sync(_read, text, shape)


async def _text(request: web.Request, limit: int) -> bytes:
    text = bytearray()
    async for piece in request.content.iter_any():
        text += piece
        if len(text) > limit:
            raise Refusal(413, f"the body has more than {quantities.size_text(limit)}", "send less at once")
    return bytes(text)


def _read(text: bytes, shape: type[Model]) -> Model:
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is no JSON: {error}", "send a JSON object") from error
    if not isinstance(value, dict):
        raise Refusal(400, "the body is no JSON object", 'send one, such as {"file": "/var/backups/aibenchd.db"}')
    return parsed(shape, value)


def known(kind: str, name: str, names: Collection[str]) -> str:
    """``name``, which must be one of ``names``.

    Raises:
        Refusal: 404, it is not; the nearest is named, or all are.
    """
    if name not in names:
        raise Refusal(404, f"there is no {kind} {faults.quoted(name)}", faults.suggestion(name, names))
    return name


def explained(told: Callable[[web.Request, Refusal], web.StreamResponse]) -> Middleware:
    """Turn whatever goes wrong into an answer that says what and what to do, as ``told`` puts it."""

    @web.middleware
    async def explaining(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPRedirection:
            raise
        except ConnectionError:
            return web.Response(status=CLIENT_GONE)  # clients come and go: nothing is amiss, and nobody reads this
        except anyio.get_cancelled_exc_class():
            raise
        except Exception as error:  # noqa: BLE001  what is not ours is logged
            return told(request, _refusal(request, error))

    return explaining


def as_json(_request: web.Request, refusal: Refusal) -> web.Response:
    """A refusal as a program reads it."""
    headers = None if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    return json_response(dumps(refusal.body), refusal.status, headers)


def _refusal(request: web.Request, error: Exception) -> Refusal:
    match error:
        case Refusal():
            return error
        case errors.QueryTooSlowError():
            return Refusal(503, str(error), "ask for less: a smaller limit, or more filters")
        case errors.AibenchdError():
            return Refusal(409, str(error))
        case TimeoutError():
            return Refusal(503, "no answer in time", "try again; 'aibenchctl status' shows what is wrong")
        case web.HTTPException():
            return Refusal(error.status, error.reason, _HINTS.get(error.status, ""))
    log.exception("cannot be answered", method=request.method, path=request.path)
    return Refusal(500, "aibenchd is at fault", "look at its log: journalctl -u aibenchd")


def timely(handler: Handler, seconds: float) -> Handler:
    """A handler that answers within a deadline."""

    async def bounded(request: web.Request) -> web.StreamResponse:
        with anyio.fail_after(seconds):
            return await handler(request)

    return bounded


_HINTS = {413: f"a body may have {BODY_LIMIT} bytes"}


def _fault(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{key}: there is no such key"
    if fault["type"] == "missing":
        return f"{faults.quoted(key)} is required"
    return f"{key}: {faults.message(fault, fault['input'])}"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
