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

``scale`` is the noise of the blocks before, about their own median, so that it does not depend on ``theta``. What the best
bet is depends on the effect in units of the noise, which nobody knows: the evidence is the mean over :data:`BETS`, which
is an e-process again. It falls as ``theta`` rises, so a confidence bound is one root.

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
LEAST_BLOCKS = 3  # from which noise is estimated
GAUSSIAN = 1.4826  # standard deviation of a normal law by its median absolute deviation
FLOOR = 0.01  # of the guess: the least noise that is believed in
BISECTIONS = 50


def scales(ratios: Floats, guess: float) -> Floats:
    """The noise that is expected of each block, from those before it.

    Args:
        ratios: log ratios, shape (…, blocks).
        guess: for the first blocks; a standard deviation.
    """
    found = np.full(ratios.shape, guess)
    for block in range(LEAST_BLOCKS, ratios.shape[-1]):
        before = ratios[..., :block]
        centre = np.median(before, axis=-1, keepdims=True)
        found[..., block] = GAUSSIAN * np.median(np.abs(before - centre), axis=-1)
    believed: Floats = np.maximum(found, FLOOR * guess)
    return believed


def evidence(ratios: Floats, scale: Floats, theta: float | Floats, side: int) -> Floats:
    """Log e-process after each block against "symmetric about ``theta``", in favour of above (+1) or below it (-1).

    Shape as ``ratios``. ``theta`` is a number, or has one value per repetition, shape (…, 1).
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
    if not ratios.size or not _rejected(ratios, scale, far, threshold, side):
        return float("nan")
    for _ in range(BISECTIONS):
        middle = (far + near) / 2
        if _rejected(ratios, scale, middle, threshold, side):
            far = middle
        else:
            near = middle
    return far


def _rejected(ratios: Floats, scale: Floats, theta: float, threshold: float, side: int) -> bool:
    return bool((evidence(ratios, scale, theta, -side) >= threshold).any())
