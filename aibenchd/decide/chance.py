"""How likely coins alone are to make blocks look as they do: an exact randomisation test of a fixed number of blocks.

Where nothing changed, which of a block's two processes was the treatment is a fair toss, whatever the noise is like; so a
sum of scores of the blocks is as likely with any of their signs turned round (Fisher 1935, "The design of experiments",
§21). The score of a block is the hyperbolic tangent of its ratio in units of the noise: none counts for much more than
the others. Scores are rounded to whole numbers, so that all 2^n sums are counted by n steps on a row of cells; the sum
that was seen is rounded alike, which keeps the test exact.

Arrays hold blocks on their last axis; axes before it are independent repetitions.
"""

from __future__ import annotations

import math

import numpy as np

from aibenchd.decide.sequential import Floats

GRAIN = 8  # the largest score


def of_coins(units: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """After each block, the chance of a sum of scores at least as large, and at most as large; shaped as ``units``.

    Args:
        units, scale: log ratios cleared of their slots, and their noise; see :func:`aibenchd.decide.sequential.foreseen`.
    """
    scores = np.rint(GRAIN * np.tanh(units / scale)).astype(np.int64)
    blocks = units.shape[-1]
    rows = scores.reshape(math.prod(units.shape[:-1]), blocks)
    centre = GRAIN * (blocks + 1)  # with a margin that no sum reaches on either side, into which the last toss looks
    chances = np.zeros((len(rows), 2 * centre + 1))
    chances[:, centre] = 1.0
    sums = np.cumsum(rows, axis=1) + centre
    largest, least = np.ones(rows.shape), np.ones(rows.shape)
    for block in range(blocks):
        reach = np.arange(centre - GRAIN * (block + 1), centre + GRAIN * (block + 1) + 1)
        inside = chances[:, reach] = _tossed(chances, reach, np.abs(rows[:, block, None]))
        largest[:, block] = (inside * (reach >= sums[:, block, None])).sum(axis=1)
        least[:, block] = (inside * (reach <= sums[:, block, None])).sum(axis=1)
    return largest.reshape(units.shape), least.reshape(units.shape)


def _tossed(
    chances: Floats, cells: np.ndarray[tuple[int], np.dtype[np.int64]], score: np.ndarray[tuple[int, int], np.dtype[np.int64]]
) -> Floats:
    """The chances of ``cells`` once a score has been added or taken away by a fair toss."""
    each = np.arange(len(chances))[:, None]
    found: Floats = (chances[each, cells - score] + chances[each, cells + score]) / 2
    return found
