"""What an experiment's blocks so far amount to: the number of each process, and a decision. Pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from aibenchd import model
from aibenchd.decide import guard, multiplicity, summary, verdict
from aibenchd.store import experiments

BROKEN_AFTER = 3  # blocks in a row in which all arms failed, or the only one
NO_ERROR = 0.0  # of a test of outputs that are laid beside the other arm's alone
LEAST_ACCURACY = 1e-6  # a lower one counts as this, so that it has a reciprocal
# Shares of the rule's alpha where outputs are compared: that they are wrong, or differ, and the time together err at alpha.
OF_TIME, OF_EACH_OUTPUT_TEST = 1 / 2, 1 / 4
ALL_RUN = "all its blocks have run; they were to decide nothing"
BOLDNESS = 0.95  # of bets on which arm fails, as in aibenchd.decide.sequential

Numbers = Mapping[model.ArmName, float | None]


def numbers(block: model.Block, metric: str, rule: model.Summary = summary.DEFAULT) -> dict[model.ArmName, float | None]:
    """The one number of each process that is decided on; None for a trial that failed.

    Larger is worse in all of them: of an accuracy it is the reciprocal of the median. Of a power it is the median, of an error
    the largest; of a time see :func:`aibenchd.decide.summary.of_process`.
    """
    found: dict[model.ArmName, float | None] = {}
    for one in block.trials:
        series = model.decisive(one.series, metric)
        if one.outcome is not model.Outcome.OK:
            found[one.arm] = None
        else:
            found[one.arm] = _number(metric, series.values, rule) if series else NO_ERROR
    return found


def tails(block: model.Block, design: model.Design) -> dict[model.ArmName, float]:
    """The number of each process's slow iterations, by arm; of none where these are not judged beside the rest."""
    if design.arms == 1 or design.benchmark.metric in model.OTHER_MEASURES:
        return {}
    series = {one.arm: model.decisive(one.series) for one in block.trials if one.outcome is model.Outcome.OK}
    found = {arm: summary.of_tail(one.values, design.summary) for arm, one in series.items() if one is not None}
    return {arm: value for arm, value in found.items() if value is not None}


def _number(metric: str, values: Sequence[float], rule: model.Summary) -> float:
    match metric:
        case "accuracy":
            return 1 / max(statistics.median(values), LEAST_ACCURACY)
        case "power":
            return statistics.median(values)
        case "error":
            return max(values)
        case _:
            return summary.of_process(values, rule)


def decision(
    design: model.Design,
    earlier: Sequence[experiments.Journalled],
    latest: experiments.Journalled,
    reasons: Mapping[model.ArmName, str],
    first_look: int = 0,
) -> model.Decision:
    """What is decided once the block ``latest`` is in.

    Outputs come first: where one arm computes something else than it should, its speed does not matter.

    Args:
        reasons: why an arm's trial failed in ``latest``, or what is wrong with its outputs.
        first_look: blocks before which times are not weighed; see :func:`aibenchd.decide.verdict.decide`.
    """
    blocks = [*earlier, latest]
    so_far = _so_far(design, blocks, first_look)
    numbers_changed = _by_outputs(design, blocks, reasons)
    if numbers_changed is not None:
        verdict, reason = numbers_changed
        return dataclasses.replace(so_far, verdict=verdict, reason=reason, in_tail=False)
    if so_far.verdict not in (None, model.Verdict.INCONCLUSIVE):
        if _suspected(design, blocks):
            return dataclasses.replace(so_far, verdict=None)
        return dataclasses.replace(so_far, reason=so_far.reason or _remark(blocks, reasons) or _once_wrong(blocks))
    failing = _failing(design, blocks)
    if failing:
        return dataclasses.replace(so_far, verdict=_failed_as(failing), reason=_said_of(failing, reasons))
    if so_far.verdict is not None and not design.rule.decides:
        return dataclasses.replace(so_far, verdict=model.Verdict.MEASURED, reason=ALL_RUN)
    if so_far.verdict is not None:
        return dataclasses.replace(so_far, reason=so_far.reason or model.SPENT)
    if len(blocks) >= design.rule.max_blocks:
        return dataclasses.replace(so_far, verdict=model.Verdict.INCONCLUSIVE, reason=model.BLOCKS_SPENT)
    return so_far


def body(design: model.Design, blocks: Sequence[experiments.Journalled]) -> model.Decision:
    """What is decided without a guard, of an experiment whose verdict is of its slow iterations alone."""
    return _compared(dataclasses.replace(design, summary=dataclasses.replace(design.summary, guard=False)), blocks, 0)


def estimate(
    design: model.Design,
    earlier: Sequence[experiments.Journalled],
    latest: experiments.Journalled,
    reasons: Mapping[model.ArmName, str],
    first_look: int = 0,
) -> model.Decision:
    """As :func:`decision`, of an experiment that a search gives its blocks and ends: no verdict but that an arm does not work.

    It is *broken* where that is the treatment alone, else *inconclusive*.
    """
    blocks = [*earlier, latest]
    so_far = dataclasses.replace(_so_far(design, blocks, first_look), verdict=None, reason="", in_tail=False)
    failing = _failing(design, blocks)
    if not failing:
        return so_far
    return dataclasses.replace(so_far, verdict=_failed_as(failing), reason=_said_of(failing, reasons))


def profiled(reasons: Mapping[model.ArmName, str]) -> model.Decision:
    """What an experiment ends with whose programs ran under a profiler, after its first block.

    Args:
        reasons: why an arm left no profile.
    """
    said = "; ".join(f"the {arm.value}: {reason}" for arm, reason in reasons.items() if reason)
    return model.Decision(model.Verdict.MEASURED, 0, reason=said)


def evidence(design: model.Design, blocks: Sequence[experiments.Journalled], *, slower: bool) -> float:
    """The logarithm of the e-value of an experiment that ended badly, against nothing having become worse.

    Args:
        slower: whether it is the time that shows it; else, or where its outputs show it too, bets on which arm fails have won
            that much.
    """
    if not slower or _by_outputs(design, blocks, dict.fromkeys(model.ArmName, "")) is not None:
        return math.log(4 / _alpha(design))
    return float(multiplicity.log_e_values(seen(design, blocks), design.rule)[-1])


def seen(design: model.Design, blocks: Sequence[experiments.Journalled]) -> verdict.Experiment:
    """The times of blocks as they are analysed."""
    timed = _timed(blocks)
    return verdict.seen(
        [block.treatment or 0.0 for block in timed],
        [block.control or 0.0 for block in timed],
        [block.order for block in timed],
        design.order,
        [block.number for block in timed],
    )


def lost(
    design: model.Design, blocks: Sequence[experiments.Journalled], losses: Mapping[model.ArmName, int], last: str
) -> model.Decision:
    """What an experiment ends with that loses its device again and again.

    Args:
        losses: how often the device was lost in a row, by the arm whose program ran; not empty.
        last: what was said of the last one.
    """
    arms = " or ".join(f"the {arm.value}'s" for arm in model.ArmName if arm in losses)
    return dataclasses.replace(
        _so_far(design, blocks),
        verdict=_failed_as(set(losses)),
        reason=f"the device was lost {sum(losses.values())} times in a row while {arms} program ran; at last: {last}",
    )


def _by_outputs(
    design: model.Design, blocks: Sequence[experiments.Journalled], reasons: Mapping[model.ArmName, str]
) -> tuple[model.Verdict, str] | None:
    """The verdict that the arms' outputs give, with its reason; None where they give none."""
    if design.arms == 1:
        return None
    treatment, control = _wrong(blocks)
    alpha = _alpha(design) * OF_EACH_OUTPUT_TEST
    if _fails_alone(treatment, control, alpha):
        return model.Verdict.REGRESSED, reasons[model.ArmName.TREATMENT]
    if _fails_alone(control, treatment, alpha):
        return model.Verdict.IMPROVED, f"the control's is no longer so: {reasons[model.ArmName.CONTROL]}"
    if _differ(blocks, alpha):
        return model.Verdict.REGRESSED, reasons[model.ArmName.TREATMENT]
    return None


def _suspected(design: model.Design, blocks: Sequence[experiments.Journalled]) -> bool:
    """Whether outputs told the arms apart in every block so far, in too few of them to be sure: time must not decide first."""
    if design.arms == 1 or len(blocks) >= design.rule.max_blocks or seconds_of(blocks) >= design.rule.max_seconds:
        return False
    treatment, control = _wrong(blocks)
    alpha = _alpha(design) * OF_EACH_OUTPUT_TEST
    early = len(treatment) < _opening(alpha) and ((all(treatment) and not any(control)) or (all(control) and not any(treatment)))
    return early or (len(treatment) < _tosses(alpha) and _always_differ(blocks))


def _wrong(blocks: Sequence[experiments.Journalled]) -> tuple[list[bool], list[bool]]:
    """Of each block in which both arms had outputs, whether the treatment's were wrong; and the control's."""
    valid = [block.agreements for block in blocks if block.valid]
    treatment, control = ([one.get(arm) is model.Agreement.WRONG for one in valid] for arm in model.ArmName)
    return treatment, control


def _differ(blocks: Sequence[experiments.Journalled], alpha: float) -> bool:
    """Whether the arms' outputs differ in every block, and those of neither arm from block to block.

    If the arms were the same, then which of a block's two outputs is the treatment's would be a fair toss. That n tosses
    sort 2 n outputs into two sorts by their arms has probability 2 / 2^n at most.
    """
    return _always_differ(blocks) and sum(block.valid for block in blocks) >= _tosses(alpha)


def _always_differ(blocks: Sequence[experiments.Journalled]) -> bool:
    return all(block.agreements.get(model.ArmName.TREATMENT) is model.Agreement.DIFFERS for block in blocks if block.valid)


def _tosses(alpha: float) -> int:
    return math.ceil(math.log2(2 / alpha))


def _remark(blocks: Sequence[experiments.Journalled], reasons: Mapping[model.ArmName, str]) -> str:
    """What is wrong with the last outputs though the verdict is of something else: of one arm alone, or of both."""
    agreements = blocks[-1].agreements
    wrong = [arm for arm, agreement in agreements.items() if agreement is not model.Agreement.RIGHT]
    said = next((reasons[arm] for arm in model.ArmName if arm in wrong), "")
    if agreements.get(model.ArmName.TREATMENT) is model.Agreement.DIFFERS and not _always_differ(blocks):
        return f"the program's outputs differ from block to block; in the last: {said}"
    return said


def _once_wrong(blocks: Sequence[experiments.Journalled]) -> str:
    """That the treatment's outputs were wrong, though not the last."""
    treatment, _ = _wrong(blocks)
    return f"wrong output in {sum(treatment)} of {len(treatment)} blocks; their trials say what" if any(treatment) else ""


def _so_far(design: model.Design, blocks: Sequence[experiments.Journalled], first_look: int = 0) -> model.Decision:
    return _measured(design, blocks) if design.arms == 1 else _compared(design, blocks, first_look)


def _measured(design: model.Design, blocks: Sequence[experiments.Journalled]) -> model.Decision:
    done = sum(block.valid for block in blocks)
    return model.Decision(model.Verdict.MEASURED if done >= design.blocks else None, done)


def _compared(design: model.Design, blocks: Sequence[experiments.Journalled], first_look: int) -> model.Decision:
    if design.benchmark.metric == "error":
        return _agreeing(design, blocks)
    timed = _timed(blocks)
    rule = dataclasses.replace(design.rule, alpha=design.rule.alpha * (OF_TIME if _compares_outputs(design) else 1))
    found = verdict.decide(
        [block.treatment or 0.0 for block in timed],
        [block.control or 0.0 for block in timed],
        guard.body(rule) if _is_guarded(design) else rule,
        orders=[block.order for block in timed],
        numbers=[block.number for block in timed],
        kind=design.order,
        seconds=seconds_of(blocks),
        first_look=first_look,
    )
    if design.summary.of_tail and found.verdict is not None:
        return dataclasses.replace(found, reason=found.reason or f"in the tail: {guard.WHERE}", in_tail=True)
    tailed = [(block.treatment_tail, block.control_tail) for block in timed]
    return _beside_tails(design, blocks, timed, rule, found) if _is_guarded(design) and all(map(all, tailed)) else found


def _beside_tails(
    design: model.Design,
    blocks: Sequence[experiments.Journalled],
    timed: Sequence[experiments.Journalled],
    rule: model.Rule,
    found: model.Decision,
) -> model.Decision:
    """What becomes of a decision once the slow iterations have been looked at too, of which each of ``timed`` has a number."""
    return guard.decide(
        found,
        ([block.treatment_tail or 0.0 for block in timed], [block.control_tail or 0.0 for block in timed]),
        rule,
        orders=[block.order for block in timed],
        numbers=[block.number for block in timed],
        kind=design.order,
        spent=len(blocks) >= rule.max_blocks or seconds_of(blocks) >= rule.max_seconds,
    )


def _is_guarded(design: model.Design) -> bool:
    """Whether a part of alpha is for the slow iterations; that there are enough of them is seen once they have run."""
    return design.summary.guarded and design.benchmark.metric not in model.OTHER_MEASURES


def _timed(blocks: Sequence[experiments.Journalled]) -> list[experiments.Journalled]:
    """The blocks that times are compared in."""
    return [block for block in blocks if block.valid and block.treatment is not None and block.control is not None]


def _compares_outputs(design: model.Design) -> bool:
    files = design.benchmark.test.get("output_files")
    every = files.values() if isinstance(files, Mapping) else ()
    return any(isinstance(file, Mapping) and bool(file.get("golden") or file.get("tolerance")) for file in every)


def _agreeing(design: model.Design, blocks: Sequence[experiments.Journalled]) -> model.Decision:
    """Of a test of outputs alone: unchanged once a change would have shown."""
    done = sum(block.valid for block in blocks)
    if done >= agreeing_blocks(design):
        return model.Decision(model.Verdict.UNCHANGED, done)
    return model.Decision(model.Verdict.INCONCLUSIVE if seconds_of(blocks) >= design.rule.max_seconds else None, done)


def agreeing_blocks(design: model.Design) -> int:
    """Valid blocks after which a test of outputs alone would have shown a change."""
    alpha = _alpha(design) * OF_EACH_OUTPUT_TEST
    return max(_opening(alpha), _tosses(alpha))


def seconds_of(blocks: Sequence[experiments.Journalled]) -> float:
    """That they took, of the device's time."""
    return sum(block.seconds for block in blocks)


def _opening(alpha: float) -> int:
    """Blocks from the start in which one arm fails alone, that are too many for chance."""
    return math.ceil(math.log(4 / alpha, 4))


def _failing(design: model.Design, blocks: Sequence[experiments.Journalled]) -> set[model.ArmName]:
    """The arms that fail again and again; empty where that cannot be told yet."""
    treatment = [block.treatment is None for block in blocks]
    if design.arms == 1:
        return {model.ArmName.TREATMENT} if _in_a_row(treatment) else set()
    control = [block.control is None for block in blocks]
    if _in_a_row([one and other for one, other in zip(treatment, control, strict=True)]):
        return set(model.ArmName)
    # Which arm is the treatment was not asked by what fails by chance: the rule is the same for both.
    alpha = _alpha(design)
    if _fails_alone(treatment, control, alpha):
        return {model.ArmName.TREATMENT}
    return {model.ArmName.CONTROL} if _fails_alone(control, treatment, alpha) else set()


def _alpha(design: model.Design) -> float:
    """Of what is no matter of time: as small as an e-value wants it, where one has to be had."""
    return min(design.rule.alpha, 4 / design.rule.e_value) if design.rule.e_value else design.rule.alpha


def _failed_as(failing: set[model.ArmName]) -> model.Verdict:
    """The verdict where these arms fail again and again."""
    return model.Verdict.BROKEN if failing == {model.ArmName.TREATMENT} else model.Verdict.INCONCLUSIVE


def _said_of(failing: set[model.ArmName], reasons: Mapping[model.ArmName, str]) -> str:
    return "; ".join(f"{arm.value}: {reasons[arm]}" for arm in model.ArmName if arm in failing)


def _in_a_row(failed: Sequence[bool]) -> bool:
    return len(failed) >= BROKEN_AFTER and all(failed[-BROKEN_AFTER:])


def _fails_alone(arm: Sequence[bool], other: Sequence[bool], alpha: float) -> bool:
    """Whether one arm fails and the other does not, beyond what two programs that fail equally often would show.

    Either of two tests, at ``alpha`` / 4 each (two arms, two tests). At the opening: the arm failed in each of the first n
    blocks and the other in none, which has probability (p (1 - p))^n <= 4^-n at any rate p of failures. Later: of blocks
    in which one arm failed alone each is a fair toss, and bets on the arm have won 4 / ``alpha`` (Ville 1939).
    """
    opening = _opening(alpha)
    if len(arm) >= opening and all(arm[:opening]) and not any(other[:opening]):
        return True
    won, most = 1.0, 1.0
    for one, two in zip(arm, other, strict=True):
        if one != two:
            won *= 1 + BOLDNESS if one else 1 - BOLDNESS
            most = max(most, won)
    return most >= 4 / alpha
