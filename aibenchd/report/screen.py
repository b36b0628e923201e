"""Sinks ``screen`` and ``simple-screen``: verdicts as lines on standard output, for a person who looks on.

``screen`` prints a line per decided experiment and the other metrics below it; ``simple-screen`` one line per metric:
``<identifier> <type> <metric>: <median> <unit>``. Samples of blocks are not shown.
"""

from __future__ import annotations

import abc
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

import anyio
import anyio.to_thread

from aibenchd import model
from aibenchd.report import base

Payload = Mapping[str, Any]
STEPS = {model.RunType.BENCHMARK: "", model.RunType.VERIFY: ", measured again", model.RunType.REGRESS: ", for a search"}


class _Lines(base.Sink):
    Settings: ClassVar[type[base.SinkSettings]] = base.SinkSettings

    @abc.abstractmethod
    def line(self, payload: Payload) -> str:
        """A verdict as one line."""

    @contextlib.asynccontextmanager
    async def outlet(self) -> AsyncIterator[base.Outlet]:
        yield _Outlet(self)


class Screen(_Lines):
    """What was decided, about what, and how sure it is."""

    def line(self, payload: Payload) -> str:
        return _decided(payload) if payload["verdict"] else _other(payload)


class SimpleScreen(_Lines):
    """The numbers alone."""

    def line(self, payload: Payload) -> str:
        return f"{payload['benchmark']} {payload['key']}: {_median(payload, 'treatment')}"


class _Outlet(base.Outlet):
    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        self._limiter = anyio.CapacityLimiter(1)  # a terminal that hangs holds one thread, however often it is tried again

    async def deliver(self, records: Sequence[model.Record]) -> base.Delivery:
        lines = [_printable(self._lines.line(record.payload)) for record in records if record.kind == "verdict"]
        if not lines:
            return base.Delivery(base.Answer.DONE)
        try:
            await anyio.to_thread.run_sync(_show, "".join(lines), abandon_on_cancel=True, limiter=self._limiter)
        except (OSError, ValueError) as error:  # ValueError: standard output is closed
            return base.Delivery(base.Answer.PAUSED, f"standard output: {error}")
        return base.Delivery(base.Answer.DONE)


def _decided(payload: Payload) -> str:
    sides = f"{payload['repository']} {payload['commit'][:12]}"
    if payload["control_commit"]:
        sides += f" against {payload['control_commit'][:12]}"
    backend = payload["backend"]["ran"] or payload["backend"]["asked"]
    where = payload["device"]["name"] + (f" ({backend})" if backend else "")
    text = (
        f"{payload['verdict'].upper():<12} {payload['benchmark']} on {where}{_step(payload)}: {payload['key']} {_effect(payload)}"
    )
    text += f", {payload['blocks']} block{'s' if payload['blocks'] != 1 else ''}, {sides}"
    return f"{text}: {payload['reason']}" if payload["reason"] else text


def _step(payload: Payload) -> str:
    """What it was measured for, where it is not the first that is known of a commit."""
    if payload["regressed_types"]:
        return ", confirmed ('aibenchctl findings')"
    return STEPS.get(payload["run_type"], f", {payload['run_type']}")


def _effect(payload: Payload) -> str:
    if payload["estimate"] is None:
        return _median(payload, "treatment")
    text = f"{payload['estimate']:+.2%}"
    if payload["low"] is None or payload["high"] is None:
        return text
    return f"{text} [{payload['low']:+.2%}, {payload['high']:+.2%}]"


def _other(payload: Payload) -> str:
    text = f"{'':<12} {payload['key']}: {_median(payload, 'treatment')}"
    return f"{text} (control {_median(payload, 'control')})" if payload["statistics"]["control"] else text


def _median(payload: Payload, arm: str) -> str:
    median = payload["statistics"][arm].get("p50")
    return payload["info_string"] or "no samples" if median is None else f"{median:g} {payload['unit']}".strip()


def _printable(line: str) -> str:
    """One line, without what could steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in line) + "\n"


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
