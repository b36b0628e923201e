"""Bounded reads of the journal as JSON, newest first.

Every list has a limit and, where it can go on, a cursor: ``next`` of one page is ``cursor`` of the following one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, TypeAlias

import pydantic
import sqlalchemy as sa

from aibenchd import errors

LIMIT = 1_000  # rows of one page
BLOCKS = 1_000  # of one experiment, the newest
STEPS = 10_000  # of SQLite's virtual machine between two looks at the clock

Item: TypeAlias = dict[str, Any]  # a row as JSON


class Page(pydantic.BaseModel):
    """How much of a list, and from where on."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, pydantic.Field(ge=1, le=LIMIT)] = 100
    cursor: Annotated[int | None, pydantic.Field(ge=0, lt=2**63)] = None


@contextlib.contextmanager
def deadline(connection: sa.Connection, seconds: float) -> Iterator[None]:
    """Interrupt what is asked of ``connection`` when it takes longer.

    Raises:
        QueryTooSlowError: it did.
    """
    driver: Any = connection.connection.driver_connection
    end = time.monotonic() + seconds
    driver.set_progress_handler(lambda: time.monotonic() > end, STEPS)
    try:
        yield
    except sa.exc.OperationalError as error:
        if "interrupted" not in str(error.orig):
            raise
        raise errors.QueryTooSlowError(f"this takes the journal longer than {seconds:g} s") from error
    finally:
        driver.set_progress_handler(None, 0)


def page_of(connection: sa.Connection, name: str, select: sa.Select[Any], order: sa.Column[Any], page: Page) -> Item:
    """The rows of ``select`` that a page shows, under ``name``, by falling ``order``; ``next`` is null on the last page."""
    return _cut(name, items_of(connection, _before(select, order, page)), order.name, page)


def items_of(connection: sa.Connection, select: sa.Select[Any]) -> list[Item]:
    """All rows of ``select``, which has a limit of its own where there may be many."""
    return [item_of(row) for row in connection.execute(select).mappings()]


def item_of(row: Mapping[Any, Any]) -> Item:
    """A row as JSON; instants are written as ISO 8601."""
    return {str(name): value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def equal(*wanted: tuple[sa.ColumnElement[Any], object]) -> list[sa.ColumnElement[bool]]:
    """What holds of rows whose columns have these values; nothing is asked of a column whose value is None."""
    return [column == value for column, value in wanted if value is not None]


def _before(select: sa.Select[Any], order: sa.Column[Any], page: Page) -> sa.Select[Any]:
    """The rows of a page, and one more that tells whether it is the last."""
    if page.cursor is not None:
        select = select.where(order < page.cursor)
    return select.order_by(order.desc()).limit(page.limit + 1)


def _cut(name: str, items: list[Item], order: str, page: Page) -> Item:
    shown = items[: page.limit]
    return {name: shown, "next": shown[-1][order] if len(items) > page.limit else None}
