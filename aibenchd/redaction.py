"""Keeps secrets out of logs and of what status shows: those that are registered, and what looks like one.

Put :func:`processor` last before the renderer, where exceptions are text already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

MASK = "[redacted]"
SECRETS_BOUND = 1_000  # registered secrets; tokens that are renewed push out the oldest
SHORTEST = 6  # characters; masking a shorter one would tear holes into ordinary words, and so give it away

_secrets: dict[str, None] = {}

_NAME = r"(?:(?:access|refresh|auth|private)[_-]?)?token|api[_-]?key|(?:client[_-]?)?secret|password|passwd"
_SECRET_KEY = re.compile(rf"(?:.*[_-])?(?:{_NAME}|authorization|cookie)", re.IGNORECASE)
_PATTERNS = (
    (re.compile(r"(?<=://)[^/\s@'\"<>]+(?=@)"), MASK),  # user:password@ of a URL
    (
        re.compile(r"([?&](?:[\w-]+-)?sig(?:nature)?=)(?!\[)[^&\s\"'<>]+", re.IGNORECASE),
        rf"\1{MASK}",
    ),  # of an address that is signed
    (re.compile(r"\b(Bearer\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\b(Authorization\W+Basic\s+)[A-Za-z0-9+/=]+", re.IGNORECASE), rf"\1{MASK}"),
    # token=…, "access_token": "…", also where the JSON is itself quoted
    (re.compile(rf"(?<![A-Za-z])({_NAME})(\\*[\"']?\s*[=:]\s*\\*[\"']?)(?!\[)[^\s\\\"'&,;}}]+", re.IGNORECASE), rf"\1\2{MASK}"),
)


def register(secret: str) -> None:
    """From now on, mask ``secret`` wherever it appears."""
    if len(secret) >= SHORTEST:
        _secrets.pop(secret, None)
        _secrets[secret] = None
        while len(_secrets) > SECRETS_BOUND:
            del _secrets[next(iter(_secrets))]


def text(value: str) -> str:
    """``value`` with every secret masked."""
    for secret in tuple(_secrets):
        value = value.replace(secret, MASK)
    for pattern, replacement in _PATTERNS:
        value = pattern.sub(replacement, value)
    return value


def processor(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For structlog: masks secrets in all values of an event, at any depth."""
    for key, value in event.items():
        event[key] = _redacted(key, value)
    return event


def _redacted(key: object, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(key, str) and _SECRET_KEY.fullmatch(key):
        return MASK
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {name: _redacted(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(key, item) for item in value]
    return text(str(value) if isinstance(value, BaseException) else repr(value))
