"""``make bench-decide``: what the guard of the tail costs, and what it finds, on the recorded tapes of ``tests/data/noise``.

Arms are laid over each tape by the daemon's own coins, from a random start, wrapping; a change is made in the treatment's
iterations. In percent: how often anything was called a change, how often it was one in the tail; and mean trials to a verdict.
Errors are of the mean over the tapes, from tape to tape. Run it as ``python -m tests.bench.bench_tail [--replays 2000]``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aibenchd import model
from aibenchd.decide import guard, sequential, summary, verdict
from aibenchd.plan import order

Floats = NDArray[np.float64]
Change = Callable[[Floats, np.random.Generator], Floats]  # of iterations, on the last axis

NOISE = Path(__file__).parents[1] / "data" / "noise"
BLOCKS = model.Rule().max_blocks
AT_ONCE = 250  # replays
CHANGES: dict[str, Change] = {
    "nothing": lambda times, _: times,
    "all 1 % slower": lambda times, _: times * 1.01,
    "all 2 % slower": lambda times, _: times * 1.02,
    "all 5 % slower": lambda times, _: times * 1.05,
    "all 5 % faster": lambda times, _: times * 0.95,
    "a tenth twice as slow": lambda times, rng: times * np.where(rng.random(times.shape) < 1 / 10, 2.0, 1.0),
    "a tenth 1.5 times": lambda times, rng: times * np.where(rng.random(times.shape) < 1 / 10, 1.5, 1.0),
    "a twentieth 3 times": lambda times, rng: times * np.where(rng.random(times.shape) < 1 / 20, 3.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class Replays:
    """Iterations of both arms, shape (replays, blocks, iterations), and the signs of the orders, shape (replays, blocks)."""

    treatment: Floats
    control: Floats
    signs: Floats

    def by(self, rule: model.Summary) -> verdict.Experiment:
        ratios = np.log(summary.of_each(self.treatment, rule)) - np.log(summary.of_each(self.control, rule))
        return verdict.by_coin(ratios, self.signs)


@dataclass(frozen=True, eq=False)
class Called:
    """Of each replay, whether it was called a change, and one in the tail, and after how many trials."""

    change: sequential.Bools
    in_tail: sequential.Bools
    trials: Floats


def recorded(path: Path) -> Floats:
    """A tape's iterations, shape (processes, iterations)."""
    return np.array([json.loads(line)["us"] for line in path.read_text().splitlines()], dtype=float)


def laid(tape: Floats, change: Change, replays: int, seed: int = 0) -> Iterator[Replays]:
    """Replays, some at a time."""
    rng, first = np.random.default_rng(seed), model.ArmName.TREATMENT
    for start in range(0, replays, AT_ONCE):
        seeds = range(start, min(start + AT_ONCE, replays))
        ahead = np.array([[order.arms("coin", one, block)[0] is first for block in range(BLOCKS)] for one in seeds])
        begin = rng.integers(0, len(tape), len(seeds))[:, None] + np.arange(0, 2 * BLOCKS, 2)
        treatment, control = (tape[(begin + second) % len(tape)] for second in (~ahead, ahead))
        yield Replays(change(treatment, rng), control, np.where(ahead, 1.0, -1.0))


def unguarded(replays: Replays, rule: model.Rule) -> Called:
    """As it is without the guard."""
    slower, faster, unchanged = verdict.stops(replays.by(summary.DEFAULT), rule)
    changed = np.minimum(slower, faster)
    trials = 2.0 * np.minimum(np.minimum(changed, unchanged) + 1, BLOCKS)
    return Called(changed < unchanged, np.zeros(len(slower), dtype=bool), trials)


def guarded(replays: Replays, rule: model.Rule) -> Called:
    """As :func:`aibenchd.decide.guard.decide` has it, of many experiments."""
    slower, faster, unchanged = verdict.stops(replays.by(summary.DEFAULT), guard.body(rule))
    stop = np.minimum(np.minimum(slower, np.minimum(faster, unchanged)), BLOCKS - 1)
    regressed = slower < np.minimum(faster, unchanged)
    watched = guard.watch(replays.by(summary.DEFAULT.tail), rule)
    settled = (watched.slower | ~watched.suspected) & (np.arange(BLOCKS) >= stop[:, None])
    end = np.where(regressed, stop, np.minimum(verdict.first(settled), BLOCKS - 1))
    in_tail = ~regressed & watched.slower[np.arange(len(end)), end]
    return Called(regressed | (faster < unchanged) | in_tail, in_tail, 2.0 * (end + 1))


def called(tape: Floats, change: Change, judge: Callable[[Replays, model.Rule], Called], replays: int) -> Called:
    """Of many replays of one tape."""
    parts = [judge(some, model.Rule()) for some in laid(tape, change, replays)]
    return Called(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("change", "in_tail", "trials")))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replays", type=int, default=800, help="of each tape (%(default)s)")
    replays = parser.parse_args().replays
    tapes = {path.stem: recorded(path) for path in sorted(NOISE.glob("*.jsonl"))}
    print(
        f"{replays} replays of each of {len(tapes)} tapes: a rate of 1 % of one is known to ±{10 / math.sqrt(replays):.2f} points"
    )
    for name, change in CHANGES.items():
        print(f"\n{name}\n{'tape':<12} {'changed, %':>22} {'of it in the tail, %':>22} {'trials before':>15} {'with guard':>12}")
        rows = []
        for stem, tape in tapes.items():
            before, now = (called(tape, change, judge, replays) for judge in (unguarded, guarded))
            rows.append(
                (100 * before.change.mean(), 100 * now.change.mean(), 100 * now.in_tail.mean(), *map(_mean, (before, now)))
            )
            print(_row(stem, rows[-1]))
        means, errors = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) / math.sqrt(len(rows))
        print(_row("mean", means), "\n" + _row("±", errors))


def _mean(one: Called) -> float:
    return float(one.trials.mean())


def _row(name: str, row: tuple[float, ...] | Floats) -> str:
    before, now, tail, trials, with_guard = row
    return f"{name:<12} {before:>10.2f} -> {now:<9.2f} {tail:>21.2f} {trials:>15.2f} {with_guard:>12.2f}"


if __name__ == "__main__":
    main()
