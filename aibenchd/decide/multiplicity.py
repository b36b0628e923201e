"""What raises an alarm, of the many comparisons that there are: benchmarks, devices and metrics, commit after commit.

A verdict is wrong in at most its own error rate, and stays as it is; of a thousand comparisons a few are wrong all the same.
So what regressed is measured again, in blocks and with tosses of its own (*verify*), and only those runs count here: what
was chosen for its first result says nothing of its second, so that the comparisons among which an alarm is chosen are those
that were verified, not all that were made. Those that were verified and did not regress again are among them.

The evidence is an e-value, of which is known that its mean is 1 at most where the treatment is not slower; nothing else needs
to be known, neither how comparisons depend on each other (one commit, one device, one burst) nor when they stopped. It is
:mod:`aibenchd.decide.sequential`'s wealth, whatever the noise is like. The evidence of :mod:`aibenchd.decide.likelihood` has
that mean only on average over its prior, and the credit of :mod:`aibenchd.decide.verdict` multiplies it by up to 2.2: good
for a rate that is measured, but not for e-values. Measured on the four recorded tapes, with a margin of 2 %, mean blocks to
an e-value of 20 at a change of 2, 4 and 10 %: 7 to 11, 5 to 6, and 5; of 200: 12 to 19, 9 to 11, and 8 to 9; verdicts take 10
to 16, 8 to 10, and 7 to 8. The best bet on the coins by the model's density f (2 f(x) / (f(x) + f(-x)); Larsson, Ramdas, Ruf
2025, "The numeraire e-variable and reverse information projection") is no quicker at 2 %, and two blocks slower at 10 %.

There are two ways to choose, and one is configured:

- *a rate of false alarms among alarms*, in each commit: :func:`chosen`;
- *a budget of false pages a month*: :func:`needed`. It holds over all commits together, which the rate does not: a year of
  commits that change nothing raises false alarms in that share of those that have anything verified. e-LOND (Xu, Ramdas 2024,
  "Online multiple testing with e-values") would bound the share over all commits; but a budget is a number, and the mean of
  a number is the sum of its parts' chances, so that no more than Markov's inequality is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aibenchd import model
from aibenchd.decide import sequential, verdict


def log_e_values(seen: verdict.Experiment, rule: model.Rule) -> sequential.Floats:
    """The logarithm of the e-value for a slower treatment, after each number of blocks from 0 on.

    The hypothesis is that log ratios, less some effect of ``rule.known`` or below, are symmetric about 0, as fair tosses make
    them; its e-value has a mean of 1 at most at each stopping time, whatever it is that the time hangs on, if it is other
    blocks that have been seen by then.

    Args:
        seen: the blocks of a *verify* run; more of them than it was decided on do no harm.
        rule: as the experiment's.

    Returns:
        Shape (…, blocks + 1): ``[..., decision.blocks]`` is the value at the verdict.
    """
    seen = seen.less(math.log1p(rule.known))
    slots, scale = sequential.foreseen(seen.units, seen.unit_signs, math.log1p(rule.min_effect) / 2)
    wealth = sequential.evidence(seen.units - seen.unit_signs * slots, scale, 0.0, +1)
    nothing = np.zeros((*wealth.shape[:-1], 1))
    found: sequential.Floats = np.concatenate([nothing, wealth], axis=-1)[..., [0, *seen.complete]]
    return found


def chosen(log_e_values: Sequence[float] | sequential.Floats, rate: float) -> sequential.Bools:
    """Which comparisons of a commit raise an alarm: of those that do, a share of at most ``rate`` is false, in the mean.

    The k largest, where k is the most for which the k-th is ``comparisons / (k * rate)`` at least: e-BH (Wang, Ramdas 2022,
    "False discovery rate control with e-values", J. R. Stat. Soc. B 84, 822-852), which holds however they depend on each
    other. Equal ones are chosen together or not at all. One alone needs ``1 / rate``.

    To be asked once, when all of them have stopped, of each at its stop: of the largest values that they ever had the rate does
    not hold (Tavyrikov, Goeman, de Heide 2025, "Carefree multiple testing with e-processes"). Stops may hang on all blocks
    of all of them, since each toss is independent of all that came before it.

    Args:
        log_e_values: of all comparisons that were verified, shape (comparisons,); 0 where no block could be measured.
        rate: above 0, and at most 1.

    Raises:
        ValueError: another rate, another shape, or a value that is no number.
    """
    values = np.asarray(log_e_values, dtype=float)
    if values.ndim != 1 or np.isnan(values).any():
        raise ValueError("expected one row of numbers, the logarithms of e-values")
    thresholds = certain(max(values.size, 1), rate) - np.log(np.arange(1, values.size + 1))
    enough = thresholds[np.sort(values)[::-1] >= thresholds]
    found: sequential.Bools = values >= enough[-1] if enough.size else np.zeros(values.shape, dtype=bool)
    return found


def certain(comparisons: int, rate: float) -> float:
    """The log e-value from which one of so many comparisons is :func:`chosen` whatever the others say.

    A *verify* run that has regressed had better go on until it has this: a verdict at 1 % stops at an e-value of some 20 to 200.
    Of three among 12 that were 4 % slower, with noise of 1.4 % and heavy tails, 36 % were chosen at their verdicts, and all
    but 0.2 % so, within 20 blocks; 0.9 % of alarms were false, at a rate of 5 %.

    Raises:
        ValueError: no comparison, or a rate that is not above 0 and at most 1.
    """
    if comparisons < 1:
        raise ValueError(f"expected 1 comparison or more, not {comparisons}")
    if not 0 < rate <= 1:
        raise ValueError(f"expected a rate of false alarms above 0 and at most 1, not {rate}")
    return math.log(comparisons) - math.log(rate)


def needed(pages: float, usual: int, number: int) -> float:
    """The log e-value from which a comparison raises a page, such that at most ``pages`` a month are false, in the mean.

    A false one reaches ``1 / a`` with probability ``a`` at most, at whatever block (Ville 1939), so the mean is at most the sum
    of the ``a`` of a month's comparisons (as with Bonferroni: Hochberg, Tamhane 1987, "Multiple comparison procedures", on
    the per-family error rate). How many there will be is not known when the first has to be decided. The budget is spent
    as ``a = pages * usual / ((usual + number - 1) * (usual + number))``, whose sum over all numbers without end is ``pages``;
    the usual number of comparisons spends half of it. So the bound holds whatever ``usual`` is, and a bad guess costs blocks:
    of ten times as many comparisons as usual, the last needs three times as large an e-value as if that had been known.

    Args:
        pages: above 0; how many false ones a month are borne.
        usual: at least 1; such as how many comparisons were verified in the month before. Fixed before the month's first one.
        number: which of the month's comparisons this is, from 1, in the order in which their verify runs *began*: a number
            must not hang on what a run found.

    Raises:
        ValueError: an argument is out of these bounds.
    """
    if not (pages > 0 and usual >= 1 and number >= 1):
        raise ValueError(
            "expected a budget above 0, and a usual number of comparisons and a comparison's number of 1 at least, "
            f"not {pages}, {usual} and {number}"
        )
    return max(0.0, math.log(usual + number - 1) + math.log(usual + number) - math.log(usual) - math.log(pages))
