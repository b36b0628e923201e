"""Experiments like others: measured again, between other commits, or of the same commit twice."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from aibenchd import model
from aibenchd.store import builds, noises, schema, store

_e, _p = schema.experiments, schema.pairs


def seed_of(pair: int, cell: tuple[str, str, str]) -> int:
    """The seed of an experiment of ``pair`` in a cell (benchmark's digest, device, backend)."""
    # Not random: a pair that is planned again after a crash is the same pair. 48 bits, so that any reader of JSON holds it.
    return int.from_bytes(hashlib.sha256(f"{pair} {cell}".encode()).digest()[:6])


def layout_seed(treatment: str, control: str) -> int:
    """The seed of the memory layout that both commits are built with: 31 bits, and neither 0 nor 1.

    The same for both, so that their layouts differ by no more than the commits do; of their own, so that no one layout
    judges all commits. No linker takes it for something else: of lld's, 0 stands for any and -1 for the reverse order.
    """
    drawn = int.from_bytes(hashlib.sha256(f"layout {treatment} {control}".encode()).digest()[:8])
    return drawn % ((1 << 31) - 2) + 2


def new_pair(
    transaction: store.Transaction,
    repository: str,
    treatment: str,
    control: str | None,
    run_type: model.RunType,
    *,
    request: int | None = None,
    priority: int = 0,
) -> int:
    """A pair of commits whose experiments are run in rounds."""
    pair: int = transaction.connection.execute(
        _p.insert()
        .values(
            repository=repository,
            treatment=treatment,
            control=control,
            run_type=run_type,
            priority=priority,
            request=request,
            created_at=datetime.now(UTC),
        )
        .returning(_p.c.id)
    ).scalar_one()
    transaction.announce("pair.planned", id=pair, repository=repository, treatment=treatment)
    return pair


def experiment(
    transaction: store.Transaction,
    like: sa.Row[Any],
    pair: int,
    arms: Sequence[int | None],
    rank: int,
    *,
    rule: Mapping[str, float] | None = None,
    finding: int | None = None,
    quota: int | None = None,
    profiled: bool = False,
    layout: int = 0,
) -> int:
    """An experiment like another one; its number.

    Args:
        arms: builds of the treatment and the control.
        rank: its priority.
        rule: what differs of its rule.
        finding: that it serves; ``quota``: blocks that it has until it is given more.
        profiled: whether its trials run under a profiler.
        layout: of :attr:`aibenchd.model.Design.layout`.
    """
    transaction.announce("follow.planned", pair=pair)  # for the planner to open it once its builds are there
    design = {
        **like.design,
        "rule": {**like.design["rule"], "e_value": 0.0, "known": 0.0, **(rule or {})},
        "summary": dataclasses.asdict(_summary(like, finding)),
        "profiled": profiled,
        "seed": seed_of(pair, (like.benchmark, like.device, like.backend)),
        "layout": layout,
    }
    number: int = transaction.connection.execute(
        _e.insert()
        .values(
            pair=pair,
            benchmark=like.benchmark,
            identifier=like.identifier,
            model=like.model,
            device=like.device,
            backend=like.backend,
            treatment_build=arms[0],
            control_build=arms[1],
            design=design,
            state="waiting",
            priority=rank,
            finding=finding,
            quota=quota,
            **noises.expected(transaction.connection, pair, (like.benchmark, like.device, like.backend), design, quota),
            created_at=datetime.now(UTC),
        )
        .returning(_e.c.id)
    ).scalar_one()
    return number


def _summary(like: sa.Row[Any], finding: int | None) -> model.Summary:
    """That of an experiment; of what serves a finding, of the part of the iterations that it is of, and of no other."""
    own = model.Summary(**like.design.get("summary", {}))
    if finding is None:
        return own
    return own.tail if like.in_tail else dataclasses.replace(own, guard=False)


def build(transaction: store.Transaction, like: int, rank: int, *, commit: str = "", copy: int = 0) -> int:
    """A build like another one: of another commit where one is named, or another copy."""
    entry = builds.by_id(transaction.connection, like)
    assert entry is not None  # noqa: S101  a foreign key
    key = builds.Key(entry.repository, commit or entry.commit, entry.framework, entry.platform, copy)
    return builds.want(transaction, key, rank)
