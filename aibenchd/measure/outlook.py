"""What can be expected of an experiment: what its budget finds, when to look first, and what it takes still. Pure.

From the noise of its cell, which is one benchmark on one device with one repository's programs, and from its own blocks.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np

from aibenchd import model
from aibenchd.decide import choosing, prospects, summary, verdict
from aibenchd.measure import judging
from aibenchd.store import experiments, noises

LARGEST = 1e6  # ratio of the arms, either way, that is reckoned with: garbage for a time may be any number
UNKNOWN = prospects.Noise(math.nan, math.nan, math.nan, math.nan, math.nan, 0, math.nan, clumped=False)


def chosen(history: Sequence[Sequence[noises.Iterations]], now: model.Summary) -> model.Summary:
    """Which number of a process a cell's next experiments are decided on; see :func:`aibenchd.decide.choosing.chosen`.

    Args:
        history: blocks of its experiments, oldest first. Those with other numbers of iterations than the experiment's first one,
            or with times that are none, are left out.
    """
    return choosing.chosen(_iterations(history), now)


def facts(
    newest: Sequence[noises.Blocks], rule: model.Summary, history: Sequence[Sequence[noises.Iterations]] = ()
) -> dict[str, float | int | None]:
    """What is kept of a cell's noise; empty where there are no blocks.

    Args:
        newest: of the experiments of one cell, newest first; asked about is the rule of the newest that was to give a verdict.
        rule: which number of a process is asked about.
        history: as of :func:`chosen`; where some of the newest were decided on another number, theirs is made from these.
    """
    timed = _timed(newest)
    own = _of(timed, rule)
    seen = [judging.seen(one.design, one.blocks) for one in own]
    if len(own) < len(timed):
        seen = [_seen(one, rule) for one in _iterations(history)] or seen
    if not seen:
        return {}
    noise = prospects.noise(seen)
    test = next((one.design.rule for one in timed if one.design.rule.decides), model.Rule())
    return {
        "blocks": noise.blocks,
        "scale": _known(noise.scale),
        "degrees": _known(noise.degrees),
        "slot": _known(noise.slot),
        "slot_low": _known(noise.slot_low),
        "slot_high": _known(noise.slot_high),
        "smallest": _known(prospects.smallest(noise, test)),
        "expected": _known(prospects.blocks(noise, test)),
        "seconds": statistics.median(block.seconds for one in timed for block in one.blocks),
    }


def noise_of(newest: Sequence[noises.Blocks], rule: model.Summary) -> prospects.Noise:
    """The noise of those experiments of one cell that were decided on one number of a process."""
    return prospects.noise([judging.seen(one.design, one.blocks) for one in _of(_timed(newest), rule)])


def first_look(design: model.Design, cell: noises.Known | None) -> int:
    """Blocks after which times are weighed for the first time."""
    return prospects.first_look(_noise(cell), design.rule)


def ahead(
    design: model.Design,
    blocks: Sequence[experiments.Journalled],
    decision: model.Decision,
    cell: noises.Known | None,
    quota: int | None,
) -> model.Outlook:
    """What an experiment takes still.

    Args:
        blocks: at least one.
        quota: blocks that a search has given it.
    """
    if decision.verdict is not None:
        return model.Outlook()
    seconds = judging.seconds_of(blocks) / len(blocks)
    valid, spent = sum(block.valid for block in blocks), len(blocks)
    if quota is not None:
        return model.Outlook(quota - spent, math.ceil((quota - spent) * seconds))  # nothing, until it is given more
    if design.arms == 1:
        return _of_blocks(design.blocks - valid, seconds)
    if not design.rule.decides:
        return _of_blocks(design.rule.max_blocks - spent, seconds)
    if design.benchmark.metric == "error":
        return _of_blocks(judging.agreeing_blocks(design) - valid, seconds)
    return _of_test(design, blocks, decision, cell, seconds)


def _of_test(
    design: model.Design,
    blocks: Sequence[experiments.Journalled],
    decision: model.Decision,
    cell: noises.Known | None,
    seconds: float,
) -> model.Outlook:
    """That of one whose end hangs on what its blocks say."""
    noise = prospects.under_way(_noise(cell), judging.seen(design, blocks))
    rule = dataclasses.replace(design.rule, max_blocks=_budget(design.rule, len(blocks), seconds))
    left_over = (1 + decision.estimate) / (1 + rule.known) - 1  # what is known is not asked about
    effect = 0.0 if math.isnan(left_over) else min(max(left_over, 1 / LARGEST - 1), LARGEST - 1)
    left = prospects.left(noise, rule, len(blocks), effect)
    if math.isnan(left):
        return model.Outlook()
    reached = prospects.in_reach(noise, rule, len(blocks), effect)
    return dataclasses.replace(_of_blocks(math.ceil(left), seconds), out_of_reach=not reached)


def _budget(rule: model.Rule, done: int, seconds: float) -> int:
    """Blocks that the budget allows, in time too, where one takes so many seconds; one more than were run at the least."""
    in_time = rule.max_seconds / seconds if seconds > 0 else math.inf
    return max(int(min(rule.max_blocks, math.ceil(in_time) if math.isfinite(in_time) else rule.max_blocks)), done + 1)


def _of_blocks(left: int, seconds: float) -> model.Outlook:
    left = max(left, 1)
    return model.Outlook(left, math.ceil(left * seconds))


def _timed(newest: Sequence[noises.Blocks]) -> list[noises.Blocks]:
    return [one for one in newest if one.design.benchmark.metric != "error" and one.blocks]


def _of(timed: Sequence[noises.Blocks], rule: model.Summary) -> list[noises.Blocks]:
    return [one for one in timed if one.design.summary.same_number(rule)]


def _seen(timed: choosing.Timed, rule: model.Summary) -> verdict.Experiment:
    """Blocks as they are analysed, by another number than they were."""
    treatment, control = (np.log(summary.of_each(arm, rule)) for arm in (timed.treatment, timed.control))
    return verdict.by_coin(treatment - control, np.where(np.array(timed.orders) == "TC", 1.0, -1.0))


def _iterations(history: Sequence[Sequence[noises.Iterations]]) -> list[choosing.Timed]:
    return [_stacked(alike) for blocks in history if (alike := _alike(blocks))]


def _alike(blocks: Sequence[noises.Iterations]) -> list[noises.Iterations]:
    """Those whose processes have as many iterations as the first one's, and times that are some."""
    wanted = len(blocks[0].treatment) if blocks else 0
    same = [one for one in blocks if len(one.treatment) == len(one.control) == wanted]
    return [one for one in same if wanted and all(0 < time < math.inf for arm in (one.treatment, one.control) for time in arm)]


def _stacked(blocks: Sequence[noises.Iterations]) -> choosing.Timed:
    treatment, control = (
        np.array(arm, dtype=float) for arm in zip(*((one.treatment, one.control) for one in blocks), strict=True)
    )
    return choosing.Timed([one.order for one in blocks], treatment, control)


def _noise(cell: noises.Known | None) -> prospects.Noise:
    """A cell's noise as it is kept, as a value again."""
    if cell is None or cell.scale is None or cell.degrees is None:
        return UNKNOWN
    slot, low, high = (math.nan if one is None else one for one in (cell.slot, cell.slot_low, cell.slot_high))
    return prospects.Noise(cell.scale, cell.degrees, slot, low, high, cell.blocks, lag=math.nan, clumped=False)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
