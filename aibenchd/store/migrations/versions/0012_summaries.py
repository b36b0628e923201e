"""Summaries of processes: the statements in the file of the same name."""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql").read_text()
    for statement in script.split("\n\n")[1:]:  # the first part is its heading
        op.get_bind().exec_driver_sql(statement)
