"""What devices turned out to be, and the trials on them that do not count."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from aibenchd import errors, model
from aibenchd.store import schema, store

_fingerprints, _devices = schema.fingerprints, schema.devices

CHANGED = "device changed"  # the cause of an exclusion, beside the outcomes of trials that are tried again


def see(tx: store.Transaction, device: str, facts: Mapping[str, str]) -> int:
    """A device was looked at, and is so; the number of its fingerprint."""
    digest = model.digest_of(facts)
    of_it = sa.and_(_fingerprints.c.device == device, _fingerprints.c.digest == digest)
    number = tx.connection.scalar(sa.select(_fingerprints.c.id).where(of_it))
    if number is None:
        insert = _fingerprints.insert().values(device=device, digest=digest, facts=dict(facts))
        number = tx.connection.execute(insert.returning(_fingerprints.c.id)).scalar_one()
    before = tx.connection.scalar(sa.select(_devices.c.fingerprint).where(_devices.c.name == device))
    seen = {"fingerprint": number, "seen_at": datetime.now(UTC)}
    if before is None:
        tx.connection.execute(_devices.insert().values(name=device, **seen))
    else:
        tx.connection.execute(_devices.update().where(_devices.c.name == device).values(**seen))
    if before != number:
        tx.announce("device.changed", device=device, fingerprint=dict(facts))
    return int(number)


def known(connection: sa.Connection) -> dict[str, dict[str, str]]:
    """The last fingerprint of each device that was ever reached, by its name."""
    query = sa.select(_devices.c.name, _fingerprints.c.facts).join(_fingerprints, _fingerprints.c.id == _devices.c.fingerprint)
    return {row.name: row.facts for row in connection.execute(query)}


def known_in(journal: Path) -> dict[str, dict[str, str]]:
    """As :func:`known`, of a journal that another process may be writing; nothing where there is none. Blocking."""
    try:
        with store.reading(journal) as connection:
            return known(connection)
    except errors.StoreError:  # of an older version, or not to be read by this user
        return {}


def exclude(tx: store.Transaction, experiment: int, block: int, arms: Collection[str], cause: str, reason: str) -> None:
    """Write down trials of a block that is run again."""
    rows = [
        {"experiment": experiment, "block": block, "arm": arm, "cause": cause, "reason": reason, "excluded_at": datetime.now(UTC)}
        for arm in arms
    ]
    if rows:
        tx.connection.execute(schema.exclusions.insert(), rows)
