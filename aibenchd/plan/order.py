"""What is drawn for blocks, and who runs when: the order of arms, padding, an experiment's wave and its turn in a round. Pure.

Experiments of one wave run in rounds, each once a round, by lot: so whatever a device goes through meets all of them. Waves run
one after another, soonest done first, which brings the mean verdict soonest (Smith 1956, "Various optimizers for single-stage
production"); and they are wide, a factor of :data:`WIDTH`, for what is left is only estimated, and rounds are worth more than a
finer order. What its budget will hardly decide runs after all others of its priority, of older pairs too, as a device has
time for it, in rounds of its own. It is not ended early: a verdict that comes against the odds is one.

Draws are SHA-256 of the seed and of what is drawn, so that they can be made again, in any order, by any version of Python,
from the journal alone.
"""

from __future__ import annotations

import hashlib
import math

from aibenchd import model

PAGE = 4096  # bytes, after which a stack that is moved meets the same sets of a first cache, and the same aliases, again
FIRST, WIDTH = 60.0, 4.0  # seconds that the first wave holds, and how many times more each further one does
_BITS = 53  # a float holds that many exactly

Arms = tuple[model.ArmName, model.ArmName]
_CONTROL_FIRST: Arms = (model.ArmName.CONTROL, model.ArmName.TREATMENT)
_TREATMENT_FIRST: Arms = (model.ArmName.TREATMENT, model.ArmName.CONTROL)


def arms(kind: str, seed: int, block: int) -> Arms:
    """Both arms in the order in which they run in one block.

    Args:
        kind: ``coin``, a fair coin for each block; or ``pairs``, a fair coin for blocks 2k, and the opposite order for
            blocks 2k + 1, so that either arm is first equally often and a linear drift cancels within a pair.
        seed: of the experiment (:attr:`aibenchd.model.Design.seed`).
        block: its number, from 0; a block that is run again keeps its number, and with it its order.

    Raises:
        ValueError: another kind.
    """
    if kind == "coin":
        return _tossed(seed, block)
    if kind == "pairs":
        return _tossed(seed, block // 2)[:: -1 if block % 2 else 1]  # type: ignore[return-value]
    raise ValueError(f"expected an order of 'coin' or 'pairs', not {kind!r}")


def turn(seed: int, number: int) -> float:
    """An experiment's place in round ``number``, uniform in [0, 1): a round runs its experiments by rising turn."""
    return _draw("turn", seed, number) / (1 << _BITS)


def padding(seed: int, block: int) -> int:
    """How many bytes the environment of both arms is longer by in one block, uniform in [0, 4096).

    What lies above a stack says where it begins, and how fast a program is may depend on that (Mytkowicz et al., "Producing
    wrong data without doing anything obviously wrong!", ASPLOS 2009).
    """
    return _draw("padding", seed, block) % PAGE


def wave(seconds: float | None) -> int:
    """The wave of an experiment that is expected to take so long still: 0 for a minute, 1 for four, 2 for sixteen, and so on.

    One of which that is not known is in the first: its first block tells.
    """
    return 0 if seconds is None else max(0, math.ceil(math.log(max(seconds, FIRST) / FIRST, WIDTH)))


class Turns:
    """Whose turn it is on a device where what people submitted waits, and what is measured with no one asking, or what else
    people asked for, waits too: each has the device for half of the time. So nobody waits for long who submits something, and
    no number of submissions keeps commits from being measured. Where only one of both waits, it runs, and that is not counted.
    """

    def __init__(self) -> None:
        self._ahead = 0.0  # seconds that submissions have had more than the others, since both wait
        self._contested = False

    def of_submissions(self, submission: bool, other: bool) -> bool:
        """Whether a submission is next, by whether one waits, and whether anything else does."""
        self._contested = submission and other
        if not self._contested:
            self._ahead = 0.0
        return submission and self._ahead <= 0

    def took(self, seconds: float, submitted: bool) -> None:
        """A submission, or something else, has had the device for so long."""
        if self._contested:
            self._ahead += seconds if submitted else -seconds


def _tossed(seed: int, unit: int) -> Arms:
    return _TREATMENT_FIRST if _draw("order", seed, unit) & 1 else _CONTROL_FIRST


def _draw(what: str, seed: int, number: int) -> int:
    """A uniform integer of 53 bits."""
    digest = hashlib.sha256(f"{what} {seed} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _BITS)
