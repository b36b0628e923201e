"""The notice board: what each unit (a repository, a device, a sink, …) is doing now, since when and why.

It lives in memory; the journal holds what must outlive the process. The status socket shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from aibenchd import events

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Notice:
    """One unit's state.

    Attributes:
        unit: ``kind/name``, such as ``device/lab-host``.
        state: one word or two of the unit's own, such as ``ready``, ``unreachable``.
        reason: why, and what to do; empty where the state says all.
        fault: whether a person should look.
        since: when the unit came into this state; aware, UTC.
    """

    unit: str
    state: str
    reason: str
    fault: bool
    since: datetime


class Board:
    """Notices by unit. A unit that says the same state again keeps its ``since``."""

    def __init__(self, told: events.Events) -> None:
        self._told = told
        self._notices: dict[str, Notice] = {}

    def put(self, unit: str, state: str, reason: str = "", *, fault: bool = False) -> None:
        """State what a unit is doing; a change is logged and told as ``board.changed``."""
        before = self._notices.get(unit)
        same = before is not None and (before.state, before.fault) == (state, fault)
        since = before.since if before is not None and before.state == state else datetime.now(UTC)
        self._notices[unit] = Notice(unit, state, reason, fault, since)
        if not same:
            (log.warning if fault else log.info)("state", unit=unit, state=state, reason=reason)
            self._told.publish(events.Event("board.changed", {"unit": unit, "state": state, "reason": reason, "fault": fault}))

    def take_down(self, unit: str) -> None:
        """Forget a unit that is no more."""
        self._notices.pop(unit, None)

    def notices(self, kind: str = "") -> list[Notice]:
        """All notices, or those of units whose name begins with ``kind/``; sorted by unit."""
        prefix = f"{kind}/" if kind else ""
        return [self._notices[unit] for unit in sorted(self._notices) if unit.startswith(prefix)]
