"""How noisy a benchmark is on a device, what running second adds, and the smallest change that the budget finds there. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aibenchd import model
from aibenchd.decide import findable
from aibenchd.measure import judging
from aibenchd.store import noises


def facts(newest: Sequence[noises.Blocks]) -> dict[str, float | int | None]:
    """What is kept of the noise; empty where there are no blocks.

    Args:
        newest: of the experiments of one cell, newest first; asked about is the rule of the newest that was to give a verdict.
    """
    seen = [judging.seen(one.design, one.blocks) for one in newest if one.design.benchmark.metric != "error" and one.blocks]
    if not seen:
        return {}
    noise = findable.noise(seen)
    rule = next((one.design.rule for one in newest if one.design.rule.decides), model.Rule())
    return {
        "blocks": noise.blocks,
        "scale": _known(noise.scale),
        "slot": _known(noise.slot),
        "slot_low": _known(noise.slot_low),
        "slot_high": _known(noise.slot_high),
        "smallest": _known(findable.smallest(noise, rule)),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
