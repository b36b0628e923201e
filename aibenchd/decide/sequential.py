"""Evidence that may be looked at after every block: a test by betting, valid whatever the noise is like.

Within a block, a fair coin says which arm runs first. So, if the arms do not differ, the log ratio ``x`` of a block is
as likely to have come out as ``-x``, whatever came before: drift, bursts, a slower second slot and heavy tails change
its size, never its sign. Against "``x - theta`` is symmetric about 0" one bets on its sign, and multiplies what one has by::

    1 + BOLDNESS * tanh(bet * (x - theta) / scale)

whose mean is 1 under the hypothesis, given all that came before, for any ``bet`` and ``scale`` that were fixed before the
block. The product is an e-process: the chance that it *ever* reaches ``1 / a`` is at most ``a`` (Ville 1939; Ramdas,
Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid inference", 2023). With ``BOLDNESS`` 1 the
factor is the likelihood ratio of a logistic location family, and 2 at most: 8 blocks are the least for an error of 1 %
on either side together. A little less costs next to nothing and lets no single block end the game.

``scale`` is the noise of the blocks before, about their own median, so that it does not depend on ``theta``. Before the
bet, ``x`` is cleared of what the first slot has been seen to add: its sign is known, and an amount that was fixed before
the block leaves the rest symmetric, as the coin is tossed all the same. This needs the orders to be true. What the best
bet is depends on the effect in units of the noise, which nobody knows: the evidence is the mean over :data:`BETS`, which
is an e-process again. It falls as ``theta`` rises, so a confidence bound is one root.

Measured, mean trials to a verdict of four recorded tapes (see :mod:`aibenchd.decide.verdict`) where nothing changed, and
at 2 %: these bets 25.4 and 30.8; 1 and 2 alone 25.2 and 30.1; 1, 2, 4 25.8 and 30.4; 0.5, 1, 2 25.1 and 30.6; 2 and 4
alone 28.1 and 31.9. So they hardly matter, and the widest mixture is taken, for noise unlike these tapes'. To clear ``x``
of the slots costs these tapes less than one trial, and where the second slot is 2 % slower, with noise of 1.4 % a block,
takes the same figures from 50 to 34 and from 55 to 37. One who is told the density of a tape's ratios, and bets on the
sign of a block given its size, needs 27 at 2 %, before overshoot: less takes more than the sign of each block.

Arrays hold blocks on their last axis; axes before it are independent repetitions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BETS = np.array([0.5, 1.0, 2.0, 4.0])  # in units of the noise: effects from half of it to four times it
BOLDNESS = 0.95
LEAST_BLOCKS = 3  # from which the slot's effect and the noise are estimated
SHRINKAGE = 2  # blocks of either order that say as much as the guess of no slot effect, where it is no larger than the noise
GAUSSIAN = 1.4826  # standard deviation of a normal law by its median absolute deviation
LARGE = 1e300  # stands where there is no value
FLOOR = 0.01  # of the guess: the least noise that is believed in
ROUNDS, PARTS = 12, 8  # of the search for a bound, each of which leaves one part in eight


def foreseen(ratios: Floats, signs: Floats, guess: float) -> tuple[Floats, Floats]:
    """The slot's effect and the noise that are expected of each block, from those before it; both shaped as ``ratios``.

    Args:
        ratios: log ratios, shape (…, blocks).
        signs: +1 where the treatment ran first, -1 where it ran second, 0 where the unit has both; shape as ``ratios``.
        guess: of the noise, for the first blocks; a standard deviation.
    """
    earlier = before(ratios.shape[-1])
    halves = half_differences(ratios, signs)
    noise = np.maximum(_spreads(ratios[..., None, :] - signs[..., None, :] * halves[..., None], earlier), FLOOR * guess)
    doubt = (noise / np.maximum(np.abs(halves), noise)) ** 2
    rarer = np.minimum(*(_seen_before(signs * side > 0) for side in (+1, -1)))
    slots = halves * rarer / (rarer + SHRINKAGE * np.where(rarer > 1, doubt, 1.0))
    slots[..., :LEAST_BLOCKS] = 0.0
    scales = _spreads(ratios[..., None, :] - signs[..., None, :] * slots[..., None], earlier)
    scales[..., :LEAST_BLOCKS] = guess
    return slots, np.maximum(scales, FLOOR * guess)


def before(blocks: int) -> Bools:
    """Whether a block (column) ran before another (row); shape (blocks, blocks)."""
    found: Bools = np.tri(blocks, k=-1, dtype=bool)
    return found


def half_differences(ratios: Floats, signs: Floats) -> Floats:
    """Half of how much larger ratios are where the treatment ran first, by medians of the blocks before each.

    0 while one order has no block; shaped as ``ratios``.

    Args:
        ratios, signs: as of :func:`foreseen`.
    """
    earlier, values = before(ratios.shape[-1]), ratios[..., None, :]
    ahead, behind = ((signs * side > 0)[..., None, :] & earlier for side in (+1, -1))
    both = ahead.any(axis=-1) & behind.any(axis=-1)
    found: Floats = np.where(both, medians_of(values, ahead) - medians_of(values, behind), 0.0) / 2
    return found


def medians_of(values: Floats, chosen: Bools) -> Floats:
    """Of those chosen, on the last axis of both, broadcast, which the answer has no more; some large number where there are none.

    To sort all rows at once, with what is not chosen at the end, takes a tenth of the time of a median for each.
    """
    ordered = np.sort(np.where(chosen, values, LARGE), axis=-1)
    count = np.broadcast_to(chosen.sum(axis=-1, keepdims=True), (*ordered.shape[:-1], 1))
    low, high = (np.take_along_axis(ordered, np.maximum(place, 0), axis=-1)[..., 0] for place in ((count - 1) // 2, count // 2))
    found: Floats = (low + high) / 2
    return found


def _seen_before(chosen: Bools) -> Ints:
    """How many are chosen before each, on the last axis."""
    found: Ints = np.cumsum(chosen, axis=-1) - chosen
    return found


def _spreads(values: Floats, chosen: Bools) -> Floats:
    """Standard deviation of a normal law with the median absolute deviation of those chosen, on the last axis."""
    return GAUSSIAN * medians_of(np.abs(values - medians_of(values, chosen)[..., None]), chosen)


def evidence(ratios: Floats, scale: Floats, theta: float | Floats, side: int) -> Floats:
    """Log e-process after each block against "symmetric about ``theta``", in favour of above (+1) or below it (-1).

    Shape as ``ratios``. ``theta`` is a number, or has one value per repetition, shape (…, 1); one repetition may be asked
    about many.
    """
    stakes = side * BETS[:, None] * ((ratios - theta) / scale)[..., None, :]
    gains = np.cumsum(np.log1p(BOLDNESS * np.tanh(stakes)), axis=-1)
    most = gains.max(axis=-2, keepdims=True)
    total: Floats = most[..., 0, :] + np.log(np.exp(gains - most).mean(axis=-2))
    return total


def bound(ratios: Floats, scale: Floats, threshold: float, side: int) -> float:
    """The confidence bound of one repetition: all beyond it has been rejected, at some block or other.

    Args:
        threshold: of the log e-process.
        side: -1 the lower bound, +1 the upper one.

    NaN where nothing has been rejected yet.
    """
    reach = float(np.ptp(ratios) + scale.max() * 10 + 1e-9) if ratios.size else 0.0
    far = float(ratios.min() - reach if side < 0 else ratios.max() + reach) if ratios.size else 0.0
    near = float(ratios.max() if side < 0 else ratios.min()) if ratios.size else 0.0
    if not ratios.size or not _rejected(ratios, scale, np.array([far]), threshold, side)[0]:
        return float("nan")
    for _ in range(ROUNDS):
        thetas = np.linspace(far, near, PARTS + 1)
        beyond = min(max(int(_rejected(ratios, scale, thetas, threshold, side).sum()), 1), PARTS)
        far, near = float(thetas[beyond - 1]), float(thetas[beyond])
    return far


def _rejected(ratios: Floats, scale: Floats, thetas: Floats, threshold: float, side: int) -> Bools:
    found: Bools = evidence(ratios, scale, thetas[:, None], -side).max(axis=-1) >= threshold
    return found
