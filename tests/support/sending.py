"""A batch delivered by a sink of kind http."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aibenchd import model
from aibenchd.report import base, http

AWKWARD = 'a, b=c "d" e\\ \\n=\u00fc\U0001f600'  # signs that a syntax may have a use for


def sink(url: str, **keys: Any) -> http.Http:
    settings = http.Http.Settings.model_validate({"name": "sink", "kind": "http", "url": url, "timeout": "20s", **keys})
    return http.Http(settings, Path("/"))


async def deliver(url: str, records: Sequence[model.Record], **keys: Any) -> base.Delivery:
    async with sink(url, **keys).outlet() as outlet:
        return await outlet.deliver(records)
