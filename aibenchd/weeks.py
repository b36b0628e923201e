"""Weeks, as baselines count them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta


def start(moment: datetime) -> datetime:
    """Monday 00:00 UTC of the week that ``moment``, an aware time, is in."""
    day = moment.astimezone(UTC).date()
    return datetime.combine(day - timedelta(days=day.weekday()), time(), UTC)
