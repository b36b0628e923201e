"""What would help where an experiment could not be told: of what the journal holds, in one line for whoever reads of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from aibenchd import model, quantities
from aibenchd.store import noises, schema

AT_ONCE = timedelta(seconds=0.5)  # between what is written of both arms of one block that does not count
AS_GOOD = 1.05  # times the smallest effect that matters: what the budget finds is as good as that
SPENT = ("", model.SPENT, model.BLOCKS_SPENT, model.TAIL_UNSURE, model.ONE_ORDER)  # reasons that more blocks would end
LOST = 120  # characters of why a block does not count

_e, _b, _x = schema.experiments.c, schema.blocks.c, schema.exclusions.c


def would_help(connection: sa.Connection, experiment: int) -> str:
    """What would have one told that ended inconclusive; empty of all others, and where nothing is left to tell."""
    row = connection.execute(
        sa.select(_e.verdict, _e.reason, _e.blocks, _e.device, _e.design["rule"].label("rule")).where(_e.id == experiment)
    ).one_or_none()
    if row is None or row.verdict != model.Verdict.INCONCLUSIVE or row.reason == model.NO_MORE:
        return ""
    uncounted = _uncounted(connection, experiment)
    quiet = _quieter(connection, experiment)
    if row.reason in SPENT:
        told = [_found(noises.finds(connection, experiment), row), *uncounted, f"{_more(row)}, or {quiet}, and ask again"]
    elif row.reason == model.TORN:
        told = [*uncounted, f"more blocks alone would not tell it: {quiet}, and ask again"]
    else:
        told = [*uncounted, "more blocks would not tell it: mend that first, and ask again"]
    return "; ".join(told)


def _found(finds: noises.Finds | None, row: Any) -> str:
    """What the budget finds there, beside what was asked of it."""
    asked = model.Rule(**row.rule).min_effect
    if finds is None or finds.scale is None:
        return f"how small a change is found here is not known yet ('aibenchctl calibrate {row.device}' measures it)"
    if finds.smallest is None:
        return f"a block varies by {finds.scale:.2%} here, in which the budget finds no change"
    if finds.smallest <= asked * AS_GOOD:
        return f"the budget usually finds the {asked:.1%} here that were asked for, so that to ask again may do"
    return f"the budget finds changes of {finds.smallest:.1%} or more here, and {asked:.1%} was asked for"


def _more(row: Any) -> str:
    """Which part of the budget was spent, by its key."""
    rule = model.Rule(**row.rule)
    if row.blocks >= rule.max_blocks:
        return f"raise max_blocks ({rule.max_blocks}) or min_effect"
    return f"raise max_time ({quantities.duration_text(rule.max_seconds)}) or min_effect"


def _quieter(connection: sa.Connection, experiment: int) -> str:
    """That the device may be quieter; by what, where its last block noted what makes figures vary."""
    facts = schema.fingerprints.c
    last = sa.select(facts.facts).join(schema.blocks, _b.fingerprint == facts.id).where(_b.experiment == experiment)
    noted: Mapping[str, str] = connection.scalar(last.order_by(_b.number.desc()).limit(1)) or {}
    if "hazards" in noted:
        return f"have the device quieter ({noted['hazards']}: 'aibenchctl devices' says what mends it)"
    return "have the device quieter"


def _uncounted(connection: sa.Connection, experiment: int) -> list[str]:
    """How many of its blocks do not count, and why; nothing where all do."""
    rows = connection.execute(sa.select(schema.exclusions).where(_x.experiment == experiment).order_by(_x.id)).all()
    causes, reasons = _by_cause(rows), {row.cause: row.reason for row in rows}
    failed = sa.select(sa.func.count()).where(_b.experiment == experiment, ~_b.valid)
    said = [f"{count} {cause}: {_short(reasons[cause])}" for cause, count in causes.items()]
    if in_vain := connection.scalar(failed):
        said.append(f"{in_vain} with a program that failed")
    total = causes.total() + (in_vain or 0)
    return [f"{total} block{'s do' if total > 1 else ' does'} not count ({', '.join(said)})"] if total else []


def _by_cause(rows: Iterable[sa.Row[Any]]) -> Counter[str]:
    """Blocks that were run again; of each the trials of one arm, or of both, were written down, one after the other."""
    counts: Counter[str] = Counter()
    before: sa.Row[Any] | None = None
    for row in rows:
        if before is None or before.block != row.block or row.excluded_at - before.excluded_at > AT_ONCE:
            counts[row.cause] += 1
        before = row
    return counts


def _short(text: str) -> str:
    return text if len(text) <= LOST else f"{text[:LOST].rstrip()}…"
