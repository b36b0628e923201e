"""``make bench-decide``: how often each rule calls a change, and after how many trials, where the truth is known.

Arms are laid over tapes of noise by a schedule, from a random start, wrapping; a change multiplies the treatment's times.
Recorded tapes are those of ``tests/data/noise``, the others are drawn with a fixed seed, :data:`DRAWS` of each kind. Replays of
one tape share its processes, so that they are no independent draws of its kind of noise: errors are from tape to tape, and of
a single tape there is none. Run it as ``python -m tests.bench.bench_decide [--replays 1000]``.

Rules, besides ours: Pinpoint's (the lesser p of Mann-Whitney and Kolmogorov-Smirnov over 10, 20, 40 processes an arm;
different at 0.01, the same above a threshold that falls with the number) and its live form (0.05, and 0.10 at least, up to
160); asv's (10 processes an arm, p < 0.002 and a factor of 1.1); Mann-Whitney over 30 an arm at 0.01; FAI-PEP's; and the
limit, a sequential probability ratio test (Wald 1945) of no change against ``min_effect`` that is told the tape's own density of
log ratios, which no rule can know; past ``min_effect`` it is no limit. They see the medians of processes, except where
they say "of fastest", which is what ours sees. Ours and the limit are given the change as ``min_effect`` where it is below 2 %.
Ours with 20 blocks has Pinpoint's second look as its budget: what is not decided then is no change. It is not shown one arm
after the other: of one order alone it makes no verdict.

FAI-PEP looks over the last 12 commits, each measured by one process when it came, so one after the other, and for slower ones
alone. Its manual says no more; its detector takes a commit for regressed where its median and that of the next one are above
the 90th percentile of the 90th percentiles of the ten before by a tenth of their range, and again when all 12 have been
measured anew. Here the ten are the control's, the two the treatment's; trials are those of the window. Each commit's
own control, which it subtracts where that did not change within the window, is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator
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
AT_ONCE = 250  # replays that ours is told of
LOOKS = (10, 20, 40)  # blocks after which those that are decided are put aside: a verdict is final, so that nothing changes
BATCHES = (10, 10, 20, 40, 80)  # processes an arm, where arms do not alternate
OLDER, NEWEST = 10, 2  # commits of FAI-PEP's window
DRAWS = 8  # tapes of each kind of noise
WITHIN = 0.02  # from the median of a process to its 90th percentile, as on the recorded tapes


@dataclass(frozen=True, eq=False)
class Tape:
    """Noise: logs of a number of each process, in order; ``slot`` is what the second of a block has on top, wherever it lies."""

    name: str
    median: Floats
    fastest: Floats
    upper: Floats  # 90th percentile
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
    median, upper = np.log(np.quantile(processes, (0.5, 0.9), axis=1))
    return Tape(path.stem, median, fastest, upper)


def drawn(seed: int) -> Iterator[Tape]:
    """One tape of each known kind of noise, 300 processes long, about 1.2 % a process where it is not heavy."""
    rng = np.random.default_rng([40, seed])
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
        yield Tape(name, logs, logs, logs + WITHIN)
    yield Tape("slow second slot", plain, plain, plain + WITHIN, slot=0.03)


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
    slot = tape.slot if schedule != "one after the other" else 0.0  # there are no blocks
    early, late = logs[(starts + first) % len(logs)], logs[(starts + second) % len(logs)] + slot
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


def ours(most: int = model.Rule().max_blocks) -> Rule:
    """Ours, within a budget of blocks."""

    def rule(replays: Replays, effect: float) -> Called:
        settings = model.Rule(min_effect=min(MARGIN, effect or MARGIN), max_blocks=most)
        found = np.full((3, len(replays.control)), verdict.NEVER)
        for blocks in (*(look for look in LOOKS if look < most), most):
            going = np.flatnonzero(found.min(axis=0) == verdict.NEVER)
            for start in range(0, len(going), AT_ONCE):
                rows = going[start : start + AT_ONCE]
                found[:, rows] = _stops(replays, settings, rows, blocks)
        slower, faster, unchanged = found
        change = np.minimum(slower, faster)
        return Called(change < unchanged, 2.0 * np.minimum(np.minimum(change, unchanged) + 1, most))

    return rule


def _stops(replays: Replays, rule: model.Rule, rows: Ints, blocks: int) -> tuple[Ints, ...]:
    ratios = replays.ratios(blocks)[rows]
    signs = np.where(replays.ahead[rows, :blocks], 1.0, -1.0)
    if replays.kind == "pairs":
        return verdict.stops(verdict.in_pairs(ratios, signs, range(blocks)), rule)
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


def faipep(replays: Replays, _: float) -> Called:
    """FAI-PEP's, of 90th percentiles of the control's processes and medians of the treatment's."""
    suspected = _above(replays, 0)
    return Called(suspected & _above(replays, OLDER), (OLDER + NEWEST) * np.where(suspected, 2.0, 1.0))


def _above(replays: Replays, start: int) -> NDArray[np.bool_]:
    """Whether both of the newest are above what the older ones allow, of the commits measured from ``start`` on."""
    older = np.sort(np.exp(replays.control[:, start : start + OLDER]), axis=1)
    allowed = older[:, OLDER * 9 // 10] + (older[:, -1] - older[:, 0]) / 10
    found: NDArray[np.bool_] = (np.exp(replays.treatment[:, start : start + NEWEST]) > allowed[:, None]).all(axis=1)
    return found


@functools.cache
def _density(tape: Tape, sees: str) -> Callable[[Floats], Floats]:
    logs: Floats = getattr(tape, sees)
    return log_density(np.diff(np.append(logs, logs[0])) + tape.slot)


def told(tape: Tape, sees: str) -> Rule:
    """The limit for a tape: alpha 1 %, beta 5 %, by the tape's own density of the log ratios of neighbours."""
    density = _density(tape, sees)
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
# Which number of a process each rule sees, of the control and of the treatment; None: the limit, made for the tape.
RULES: dict[str, tuple[tuple[str, str], Rule | None]] = {
    "ours": (("fastest", "fastest"), ours()),
    "ours, 20 blocks": (("fastest", "fastest"), ours(20)),
    "Pinpoint": (("median", "median"), PINPOINT),
    "Pinpoint of fastest": (("fastest", "fastest"), PINPOINT),
    "Pinpoint, live form": (("median", "median"), LIVE),
    "asv": (("median", "median"), fixed(10, 0.002, 1.1)),
    "Mann-Whitney, 30": (("median", "median"), fixed(30, 0.01)),
    "FAI-PEP": (("upper", "median"), faipep),
    "limit": (("median", "median"), None),
    "limit of fastest": (("fastest", "fastest"), None),
}
OTHERS = ("Pinpoint", "Pinpoint of fastest", "Pinpoint, live form", "asv", "Mann-Whitney, 30")
FAIR = tuple(("coin", name) for name in RULES if name != "FAI-PEP")
FIXED = (
    *(("one after the other", name) for name in ("FAI-PEP", *OTHERS)),
    *((schedule, name) for schedule in ("ABBA", "pairs") for name in ("ours", *OTHERS)),
)
DRAWN = (
    *(("coin", name) for name in ("ours", "ours, 20 blocks", "Pinpoint", "limit")),
    *(("ABBA", name) for name in ("ours", "Pinpoint")),
    *(("one after the other", name) for name in ("FAI-PEP", "Pinpoint", "Mann-Whitney, 30")),
)


@functools.cache
def called(tape: Tape, schedule: str, name: str, effect: float, replays: int) -> Called:
    (older, newer), rule = RULES[name]
    blocks = BLOCKS if rule else LIMIT_BLOCKS
    control, treatment = (laid(tape, getattr(tape, sees), schedule, replays, blocks) for sees in (older, newer))
    changed = dataclasses.replace(control, treatment=treatment.treatment + math.log1p(effect))
    return (rule or told(tape, newer))(changed, effect)


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


def show(title: str, tapes: list[Tape], pairs: Iterable[tuple[str, str]], replays: int) -> None:
    print(f"\n{title}: changes called in % and trials used, where the treatment is slower by")
    print(f"{'schedule':20} {'rule':20} " + "".join(f"{effect:<22.1%}" for effect in EFFECTS))
    for schedule, name in pairs:
        print(f"{schedule:20} {name:20} " + "".join(f"{cell:22}" for cell in row(tapes, schedule, name, replays)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="compare rules on noise where the truth is known")
    parser.add_argument("--replays", type=int, default=800, help="of each figure of a tape, or of a kind of noise (%(default)s)")
    replays = parser.parse_args().replays
    tapes = [recorded(path) for path in sorted(NOISE.glob("*.jsonl"))]
    error = 100 * math.sqrt(0.01 * 0.99 / replays)
    print(f"{replays} replays of each tape or kind: a rate of 1 % of it is known to ±{error:.2f} points. ± is from tape to tape.")
    show("recorded tapes", tapes, FAIR + FIXED, replays)
    for tape in tapes:
        show(tape.name, [tape], FAIR, replays)
    for kind in zip(*(drawn(seed) for seed in range(DRAWS)), strict=True):
        show(f"{kind[0].name}, {DRAWS} tapes", list(kind), DRAWN, replays // DRAWS)


if __name__ == "__main__":
    main()
