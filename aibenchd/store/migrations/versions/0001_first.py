"""The first schema."""

from alembic import op

from aibenchd.store import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    schema.metadata.create_all(op.get_bind())
