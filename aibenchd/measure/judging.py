"""What an experiment's blocks so far amount to: the number of each process, and a decision. Pure."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from aibenchd import model
from aibenchd.decide import summary, verdict
from aibenchd.store import experiments

BROKEN_AFTER = 3  # blocks in a row in which the same arm failed

Numbers = Mapping[model.ArmName, float | None]


def numbers(block: model.Block) -> dict[model.ArmName, float | None]:
    """The one number of each process that is decided on; None for a trial that failed."""
    found: dict[model.ArmName, float | None] = {}
    for one in block.trials:
        series = model.decisive(one.series)
        found[one.arm] = None if series is None else summary.of_process(series.values)
    return found


def decision(
    design: model.Design,
    earlier: Sequence[experiments.Journalled],
    latest: experiments.Journalled,
    reasons: Mapping[model.ArmName, str],
) -> model.Decision:
    """What is decided once the block ``latest`` is in.

    Args:
        reasons: why an arm's trial failed in ``latest``.
    """
    blocks = [*earlier, latest]
    so_far = _measured(design, blocks) if design.arms == 1 else _compared(design, blocks)
    if so_far.verdict is not None:
        return so_far
    failing = _failing(design, blocks)
    if failing:
        reason = "; ".join(f"{arm.value}: {reasons[arm]}" for arm in failing)
        broken = failing == {model.ArmName.TREATMENT}
        return dataclasses.replace(so_far, verdict=model.Verdict.BROKEN if broken else model.Verdict.INCONCLUSIVE, reason=reason)
    if len(blocks) >= design.rule.max_blocks:
        return dataclasses.replace(so_far, verdict=model.Verdict.INCONCLUSIVE, reason="the budget of blocks is spent")
    return so_far


def _measured(design: model.Design, blocks: Sequence[experiments.Journalled]) -> model.Decision:
    done = sum(block.valid for block in blocks)
    return model.Decision(model.Verdict.MEASURED if done >= design.blocks else None, done)


def _compared(design: model.Design, blocks: Sequence[experiments.Journalled]) -> model.Decision:
    pairs = [
        (block.treatment, block.control, block.order, block.number)
        for block in blocks
        if block.valid and block.treatment is not None and block.control is not None
    ]
    return verdict.decide(
        [treatment for treatment, _, _, _ in pairs],
        [control for _, control, _, _ in pairs],
        design.rule,
        orders=[order for _, _, order, _ in pairs],
        numbers=[number for _, _, _, number in pairs],
        kind=design.order,
        seconds=sum(block.seconds for block in blocks),
    )


def _failing(design: model.Design, blocks: Sequence[experiments.Journalled]) -> set[model.ArmName]:
    """The arms that failed in each of the last blocks."""
    recent = list(itertools.islice(reversed(blocks), BROKEN_AFTER))
    if len(recent) < BROKEN_AFTER:
        return set()
    failing = set()
    if all(block.treatment is None for block in recent):
        failing.add(model.ArmName.TREATMENT)
    if design.arms == 2 and all(block.control is None for block in recent):
        failing.add(model.ArmName.CONTROL)
    return failing
