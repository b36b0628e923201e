"""``aibenchd discover``: what could be a device of this lab, as entries of its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import anyio

from aibenchd import errors, plugins
from aibenchd.devices import base

DEADLINE = 120.0  # seconds, of one kind


async def discover() -> list[str]:
    """Rows of YAML, to be pasted into a configuration: the section ``devices``; a kind that cannot tell is a comment."""
    rows = [row for kind in plugins.names("devices") for row in await _of_kind(kind)]
    found = any(not row.startswith("#") for row in rows)
    return ["devices:" if found else "devices: []  # none was found", *(f"  {row}" for row in rows)]


async def _of_kind(kind: str) -> list[str]:
    try:
        device: type[base.Device] = plugins.load("devices", kind)
        with anyio.fail_after(DEADLINE):
            return [row for found in await device.discover() for row in _rows(found)]
    except errors.AibenchdError as error:
        return [f"# {' '.join(str(error).split())}"]
    except TimeoutError:
        return [f"# {kind}: no answer within {DEADLINE:.0f} s"]


def _rows(found: base.Found) -> Iterator[str]:
    yield f"# {' '.join(found.about.split())}"
    yield f"- {{{', '.join(_items(found.entry))}}}"


def _items(entry: Mapping[str, Any]) -> Iterator[str]:
    """Texts are quoted as JSON does, which is YAML too: a serial may be all digits."""
    for name, value in entry.items():
        yield f"{name}: {json.dumps(value)}"
