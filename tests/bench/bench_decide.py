"""``make bench-decide``: how often each rule calls a change, and after how many trials, where the truth is known.

Arms are laid over tapes of noise by a schedule, from a random start, wrapping; a change multiplies the treatment's times.
Recorded tapes are those of ``tests/data/noise``, the others are drawn with a fixed seed. Run it as
``python -m tests.bench.bench_decide [--replays 1000]``.

Rules, besides ours: Pinpoint's (the lesser p of Mann-Whitney and Kolmogorov-Smirnov over 10, 20, 40 processes an arm;
different at 0.01, the same above a threshold that falls with the number) and its live form (0.05, and 0.10 at least, up to
160); asv's (10 processes an arm, p < 0.002 and a factor of 1.1); Mann-Whitney over 30 an arm at 0.01; and the limit, a
sequential probability ratio test (Wald 1945) of no change against ``min_effect`` that is told the tape's own density of log
ratios, which no rule can know; past ``min_effect`` it is no limit. They see the medians of processes, except where
they say "of fastest", which is what ours sees. Ours and the limit are given the change as ``min_effect`` where it is below 2 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aibenchd import model
from aibenchd.decide import sequential, summary, verdict
from aibenchd.plan import order

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NOISE = Path(__file__).parents[1] / "data" / "noise"
EFFECTS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.10)
MARGIN = 0.02
BLOCKS = 160  # the most that a rule asks for
LIMIT_BLOCKS = 400  # past which the limit has decided
AT_ONCE = 500  # replays that ours is told of
BATCHES = (10, 10, 20, 40, 80)  # processes an arm, where arms do not alternate


@dataclass(frozen=True)
class Tape:
    """Noise: log times of processes in order; ``slot`` is what the second of a block has on top, wherever it lies."""

    name: str
    median: Floats
    fastest: Floats
    slot: float = 0.0


@dataclass(frozen=True)
class Replays:
    """Log times of both arms by block, shape (replays, blocks); whether the treatment ran first, and the order's kind."""

    control: Floats
    treatment: Floats
    ahead: NDArray[np.bool_]
    kind: str

    def ratios(self, blocks: int) -> Floats:
        return self.treatment[:, :blocks] - self.control[:, :blocks]


@dataclass(frozen=True)
class Called:
    """What a rule made of each replay: whether it called a change, and after how many trials."""

    change: NDArray[np.bool_]
    trials: Floats


Rule = Callable[[Replays, float], Called]


def recorded(path: Path) -> Tape:
    processes = [json.loads(line)["us"] for line in path.read_text().splitlines()]
    fastest = np.log([summary.of_process(values) for values in processes])
    return Tape(path.stem, np.log(np.median(processes, axis=1)), fastest)


def drawn() -> Iterator[Tape]:
    """Noise of known kinds, 300 processes each, about 1.2 % a process where it is not heavy."""
    rng = np.random.default_rng(40)
    size, noise = 300, 0.012
    plain = rng.standard_normal(size) * noise
    walk = np.zeros(size)
    for index in range(1, size):
        walk[index] = 0.95 * walk[index - 1] + rng.standard_normal() * noise
    kinds = {
        "gaussian": plain,
        "student-2": rng.standard_t(2, size) * noise / 2,
        "bursts": plain / 2 + (rng.random(size) < 0.15) * rng.lognormal(-2.5, 1, size),
        "bimodal": plain / 4 + 0.05 * rng.integers(0, 2, size),
        "drift": walk + plain / 2,
        "ramp": plain + np.linspace(0, 0.3, size),
        "step": plain + 0.1 * (np.arange(size) % 100 > 50),
    }
    for name, logs in kinds.items():
        yield Tape(name, logs, logs)
    yield Tape("slow second slot", plain, plain, slot=0.03)


def laid(tape: Tape, logs: Floats, schedule: str, replays: int, blocks: int, seed: int = 0) -> Replays:
    """One replay for each of as many seeds, arms laid over ``logs`` by the daemon's own order, or by an old-fashioned one."""
    starts = np.random.default_rng(seed).integers(0, len(logs), replays)[:, None]
    first, second = np.arange(0, 2 * blocks, 2), np.arange(1, 2 * blocks, 2)
    if schedule == "one after the other":
        first, second = in_batches(blocks)
        ahead = np.zeros((replays, blocks), dtype=bool)
    elif schedule == "ABBA":
        ahead = np.broadcast_to(np.arange(blocks) % 2 == 1, (replays, blocks))
    else:
        ahead = ordered(schedule, replays, blocks)
    early, late = logs[(starts + first) % len(logs)], logs[(starts + second) % len(logs)] + tape.slot
    kind = "pairs" if schedule in ("ABBA", "pairs") else "coin"
    return Replays(np.where(ahead, late, early), np.where(ahead, early, late), ahead, kind)


def in_batches(blocks: int) -> tuple[Ints, Ints]:
    """Places of the control's and of the treatment's processes where one arm is run after the other, in growing batches."""
    starts = np.repeat(np.cumsum((0, *BATCHES[:-1])), BATCHES)[:blocks]
    sizes = np.repeat(BATCHES, BATCHES)[:blocks]
    control = starts + np.arange(blocks)
    return control, control + sizes


@functools.cache
def ordered(kind: str, replays: int, blocks: int) -> NDArray[np.bool_]:
    """Whether the treatment runs first."""
    first = model.ArmName.TREATMENT
    return np.array([[order.arms(kind, seed, block)[0] is first for block in range(blocks)] for seed in range(replays)])


def ours(replays: Replays, effect: float, most: int = model.Rule().max_blocks) -> Called:
    rule = model.Rule(min_effect=min(MARGIN, effect or MARGIN), max_blocks=most)
    parts = [_stops(replays, rule, slice(start, start + AT_ONCE)) for start in range(0, len(replays.control), AT_ONCE)]
    slower, faster, unchanged = (np.concatenate(found) for found in zip(*parts, strict=True))
    change = np.minimum(slower, faster)
    return Called(change < unchanged, 2.0 * np.minimum(np.minimum(change, unchanged) + 1, most))


def _stops(replays: Replays, rule: model.Rule, rows: slice) -> tuple[Ints, ...]:
    ratios = replays.ratios(rule.max_blocks)[rows]
    signs = np.where(replays.ahead[rows, : rule.max_blocks], 1.0, -1.0)
    if replays.kind == "pairs":
        return verdict.stops(verdict.in_pairs(ratios, signs, range(rule.max_blocks)), rule)
    return verdict.stops(verdict.by_coin(ratios, signs), rule)


def mann_whitney(one: Floats, two: Floats) -> Floats:
    """Two-sided p, normal approximation with continuity correction; times without ties. Shapes (replays, n)."""
    size = one.shape[1]
    ranks = np.concatenate([one, two], axis=1).argsort(axis=1).argsort(axis=1) + 1
    distance = np.abs(ranks[:, :size].sum(axis=1) - size * (2 * size + 1) / 2) - 0.5
    z = np.maximum(distance, 0) / math.sqrt(size * size * (2 * size + 1) / 12)
    return np.array([math.erfc(value / math.sqrt(2)) for value in z])


def kolmogorov_smirnov(one: Floats, two: Floats) -> Floats:
    """Two-sided p by the asymptotic law, with Stephens's correction for small samples. Shapes (replays, n)."""
    size = one.shape[1]
    places = np.concatenate([one, two], axis=1).argsort(axis=1)
    distance = np.abs(np.cumsum(np.where(places < size, 1, -1), axis=1)).max(axis=1) / size
    root = math.sqrt(size / 2)
    scaled = (root + 0.12 + 0.11 / root) * distance
    terms = [2 * (-1) ** (term - 1) * np.exp(-2 * term**2 * scaled**2) for term in range(1, 101)]
    p: Floats = np.clip(np.sum(terms, axis=0), 0, 1)
    return p


def doubling(thresholds: dict[int, tuple[float, float]]) -> Rule:
    """Pinpoint's manner: by processes an arm, p at which they differ, and p above which they are the same."""

    def rule(replays: Replays, _: float) -> Called:
        change = np.zeros(len(replays.control), dtype=bool)
        going, trials = ~change, np.zeros(len(change))
        for attempts, (different, same) in thresholds.items():
            control, treatment = replays.control[:, :attempts], replays.treatment[:, :attempts]
            p = np.minimum(mann_whitney(control, treatment), kolmogorov_smirnov(control, treatment))
            trials[going] = 2 * attempts
            change |= going & (p <= different)
            going &= (p > different) & (p <= same)
        return Called(change, trials)

    return rule


def fixed(attempts: int, p: float, factor: float = 1.0) -> Rule:
    """Mann-Whitney over a fixed number of processes an arm, where the means are apart by a factor too."""

    def rule(replays: Replays, _: float) -> Called:
        control, treatment = replays.control[:, :attempts], replays.treatment[:, :attempts]
        apart = np.abs(treatment.mean(axis=1) - control.mean(axis=1)) >= math.log(factor)
        return Called(apart & (mann_whitney(control, treatment) < p), np.full(len(control), 2.0 * attempts))

    return rule


def told(logs: Floats) -> Rule:
    """The limit for a tape: alpha 1 %, beta 5 %, by the tape's own density of the log ratios of neighbours."""
    density = log_density(np.diff(np.append(logs, logs[0])))
    certain, enough = math.log(0.95 / 0.005), math.log(0.05 / 0.995)

    def rule(replays: Replays, effect: float) -> Called:
        theta = math.log1p(min(MARGIN, effect or MARGIN))
        ratios = replays.ratios(LIMIT_BLOCKS)
        still = density(ratios)
        slower, faster = (np.cumsum(density(ratios - shift) - still, axis=1) for shift in (theta, -theta))
        change = verdict.first((slower >= certain) | (faster >= certain))
        same = verdict.first((slower <= enough) & (faster <= enough))
        return Called(change < same, 2.0 * np.minimum(np.minimum(change, same) + 1, ratios.shape[1]))

    return rule


def log_density(differences: Floats) -> Callable[[Floats], Floats]:
    """A kernel estimate of their symmetric density (Silverman's bandwidth on the distinct values), tabulated."""
    both = np.concatenate([differences, -differences])
    spread = min(float(both.std()), float(np.median(np.abs(both))) * sequential.GAUSSIAN)
    width = 0.9 * spread * len(differences) ** -0.2
    grid = np.linspace(-1.5, 1.5, 30_001)
    found = np.zeros_like(grid)
    for value in both:
        found += np.exp(-0.5 * ((grid - value) / width) ** 2)
    table = np.log(found / (found.sum() * (grid[1] - grid[0])) + 1e-6)
    return lambda at: np.interp(at, grid, table)


PINPOINT = doubling({10: (0.01, 0.5708), 20: (0.01, 0.0811), 40: (0.01, 0.01)})
LIVE = doubling({10: (0.05, 0.5708), 20: (0.05, 0.1), 40: (0.05, 0.1), 80: (0.05, 0.1), 160: (0.05, 0.05)})
SCHEDULES = ("one after the other", "ABBA", "pairs", "coin")
RULES: dict[str, tuple[str, Rule | None]] = {  # which number of a process it sees; None: the limit, made for the tape
    "ours": ("fastest", ours),
    "Pinpoint": ("median", PINPOINT),
    "Pinpoint of fastest": ("fastest", PINPOINT),
    "Pinpoint, live form": ("median", LIVE),
    "asv": ("median", fixed(10, 0.002, 1.1)),
    "Mann-Whitney, 30": ("median", fixed(30, 0.01)),
    "limit": ("median", None),
    "limit of fastest": ("fastest", None),
}


def called(tape: Tape, schedule: str, name: str, effect: float, replays: int) -> Called:
    sees, rule = RULES[name]
    logs: Floats = getattr(tape, sees)
    blocks = BLOCKS if rule else LIMIT_BLOCKS
    laying = laid(tape, logs, schedule, replays, blocks)
    changed = dataclasses.replace(laying, treatment=laying.treatment + math.log1p(effect))
    return (rule or told(logs))(changed, effect)


def row(tapes: list[Tape], schedule: str, name: str, replays: int) -> Iterator[str]:
    """One cell per effect: changes called, in percent, and trials; with what they vary by from tape to tape."""
    for effect in EFFECTS:
        results = [called(tape, schedule, name, effect, replays) for tape in tapes]
        rates = [100 * float(result.change.mean()) for result in results]
        trials = [float(result.trials.mean()) for result in results]
        yield f"{clustered(rates, 1)} {clustered(trials, 0)}"


def clustered(figures: list[float], digits: int) -> str:
    """Their mean, and its standard error where they are independent draws of one population, which tapes are."""
    error = f"±{np.std(figures, ddof=1) / math.sqrt(len(figures)):.{digits}f}" if len(figures) > 1 else ""
    return f"{np.mean(figures):5.{digits}f}{error:<5}"


def show(title: str, tapes: list[Tape], pairs: list[tuple[str, str]], replays: int) -> None:
    print(f"\n{title}: changes called in % and trials used, where the treatment is slower by")
    print(f"{'schedule':20} {'rule':20} " + "".join(f"{effect:<22.1%}" for effect in EFFECTS))
    for schedule, name in pairs:
        print(f"{schedule:20} {name:20} " + "".join(f"{cell:22}" for cell in row(tapes, schedule, name, replays)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="compare rules on noise where the truth is known")
    parser.add_argument("--replays", type=int, default=4000, help="of each figure (%(default)s)")
    replays = parser.parse_args().replays
    tapes = [recorded(path) for path in sorted(NOISE.glob("*.jsonl"))]
    error = 100 * math.sqrt(0.01 * 0.99 / replays)
    print(f"{replays} replays of each tape: a rate of 1 % is known to ±{error:.2f} points. ± is from tape to tape.")
    fair = [("coin", name) for name in RULES]
    fixed_orders = [(schedule, name) for schedule in SCHEDULES[:-1] for name in RULES if not name.startswith("limit")]
    show("recorded tapes", tapes, fair + fixed_orders, replays)
    for tape in tapes:
        show(tape.name, [tape], fair, replays)
    for tape in drawn():
        show(tape.name, [tape], [("coin", "ours"), ("pairs", "ours"), ("coin", "Pinpoint"), ("ABBA", "Pinpoint")], replays)


if __name__ == "__main__":
    main()
