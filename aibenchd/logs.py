"""Logs: one JSON object a line for the journal, readable lines on a terminal; secrets taken out of both."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog

from aibenchd import redaction


def configure(stream: TextIO | None = None, *, level: str = "info") -> None:
    """Set up structlog for the process; ``level`` is ``debug``, ``info``, ``warning`` or ``error``."""
    stream = sys.stderr if stream is None else stream
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            redaction.processor,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _renderer(stream),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    logging.getLogger().addHandler(_OF_LIBRARIES)


class _Forwarding(logging.Handler):
    """Has what libraries log rendered as our own, without secrets: a log of JSON lines has no others between them."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        say = log.error if record.levelno >= logging.ERROR else log.warning
        say(record.getMessage(), logger=record.name, exc_info=record.exc_info)


_OF_LIBRARIES = _Forwarding(logging.WARNING)


def _renderer(stream: TextIO) -> structlog.typing.Processor:
    if stream.isatty():
        return structlog.dev.ConsoleRenderer()
    return structlog.processors.JSONRenderer(_json)


def _json(event: Mapping[str, Any], **how: Any) -> str:
    """JSON that any reader takes: it has no NaN and no infinity, and null stands for them."""
    finite = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in event.items()}
    return json.dumps(finite, sort_keys=True, **how)
