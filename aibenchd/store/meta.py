"""What the journal as a whole is."""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from aibenchd.store import schema, store


def installation(tx: store.Transaction) -> str:
    """The UUID that tells this journal from every other; made at the first call, the same ever after."""
    known = tx.connection.scalar(sa.select(schema.meta.c.value).where(schema.meta.c.key == "installation"))
    if known is not None:
        return str(known)
    made = str(uuid.uuid4())
    tx.connection.execute(schema.meta.insert().values(key="installation", value=made))
    return made
