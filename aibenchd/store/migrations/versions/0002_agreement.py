"""Trials say whether their outputs were right."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.get_bind().exec_driver_sql("ALTER TABLE trials ADD COLUMN agreement TEXT NOT NULL DEFAULT ''")
