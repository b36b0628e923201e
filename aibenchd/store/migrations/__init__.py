"""Migrations of the journal's schema, oldest first, run by alembic when an older file is opened."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import alembic.command
import alembic.config
import sqlalchemy as sa

HERE = Path(__file__).parent


def upgrade(path: Path, version: str = "head") -> None:
    """Bring the file at ``path`` to ``version``, all of it or nothing."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        configuration = alembic.config.Config()
        configuration.set_main_option("script_location", str(HERE).replace("%", "%%"))
        configuration.attributes["connection"] = connection
        alembic.command.upgrade(configuration, version)


def keep_copy(path: Path) -> None:
    """Leave a copy of what the file was beside it."""
    copy = path.with_name(f"{path.name}.before-upgrade")
    copy.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as live, contextlib.closing(sqlite3.connect(copy)) as target:
        live.backup(target)
