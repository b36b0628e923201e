"""What people write for the ends of a period: a date, how long ago, a commit."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from aibenchd import errors, quantities
from aibenchd.store import periods

DATE = re.compile(r"\d{4}-\d\d-\d\d([T ].+)?")
COMMIT = re.compile(rf"[0-9a-f]{{{periods.LEAST_PREFIX},64}}")
SHORT = 12  # characters of a commit in a message


def end(connection: sa.Connection, option: str, text: str, now: datetime, repository: str | None) -> periods.End:
    """What an option says. A date, or a time, without a zone is UTC's.

    Raises:
        PeriodError: it is nothing of that, or no commit that the journal knows.
    """
    if re.fullmatch(quantities.DURATION_PATTERN, text):
        return now - timedelta(seconds=_seconds(option, text))
    if DATE.fullmatch(text):
        return _date(option, text)
    if COMMIT.fullmatch(text.lower()):
        return _commit(connection, option, text.lower(), repository)
    raise _unknown(option, text)


def _seconds(option: str, text: str) -> float:
    try:
        return quantities.seconds(text)
    except ValueError as error:
        raise errors.PeriodError(f"{option} {text}: {error}") from None


def _date(option: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise errors.PeriodError(f"{option} {text}: {error}; expected a date such as 2026-03-02, or 2026-03-02T14:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _commit(connection: sa.Connection, option: str, text: str, repository: str | None) -> periods.Commit:
    found = periods.commits(connection, text, repository)
    if not found:
        raise errors.PeriodError(f"{option} {text}: the journal knows no such commit on a line that is watched")
    if len(found) > 1:
        which = ", ".join(f"{one.commit[:SHORT]} of {one.repository}" for one in found)
        raise errors.PeriodError(
            f"{option} {text}: several commits begin so: {which}; write more of it, or name the --repository"
        )
    return found[0]


def _unknown(option: str, text: str) -> errors.PeriodError:
    expected = "a date (2026-03-02), how long ago (7d, 12h), or a commit, four characters of it at least"
    return errors.PeriodError(f"{option} {text!r}: expected {expected}")
