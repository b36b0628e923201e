"""``make bench-search``: how often bisection names the right commits, and at what price, where it is known.

Culprits are planted in a line of 128 commits, at random places. Blocks are laid over the recorded tapes of
``tests/data/noise`` from a random start, wrapping, in the order of a fair coin. The change between the ends is measured
first, as the daemon would, until :mod:`aibenchd.decide.verdict` says *regressed*; those blocks are given to the search and
are not counted. Blocks are asked for as many at a time as the daemon does. Where commits do not build, they come in runs of 1
to 4, about a seventh of all, and are found out by trying, at the price of a build.

In the rows of drifts there is no culprit: 30 to 60 commits do 0.1 to 0.3 % each, all the same, or each between nothing and twice
as much. Right is that the search ends with *many small ones*, and there is no yardstick.

What the search is told of the noise is what :mod:`aibenchd.decide.prospects` makes of ten earlier experiments without a
change; in rows that say so its scale is wrong by a factor, or nothing is told.

The yardstick is the same bisector that is told the tape's own density of ratios (a kernel estimate) and the sizes that were
planted, over the same noise and the same coins. Right is: each culprit named, alone or with neighbours before it that do not
build, and nothing else. Cost is blocks and builds at their price. ± is the standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aibenchd import model
from aibenchd.decide import prospects, verdict
from aibenchd.plan import bisect, choice, posterior, searching
from tests.bench import bench_decide

Floats = NDArray[np.float64]

COMMITS = 128
MIN_EFFECT = 0.01
BREAKING = 0.06  # the chance that a commit begins a run of commits that do not build
DRIFTING, A_COMMIT = (30, 61), (0.001, 0.003)  # commits that drift, and by how much each
EARLIER = 10  # experiments whose noise is told
HISTORIES = 5  # of each tape


@dataclass(frozen=True)
class Known:
    """A tabulated density as :class:`aibenchd.plan.bisect.Noise`; ``variance`` is the inverse of Fisher's information."""

    density: Callable[[Floats], Floats]
    variance: float

    def log(self, errors: Floats) -> Floats:
        return self.density(errors)


@dataclass(frozen=True)
class Told(bisect.Search):
    """The yardstick: knows the density of the noise, and which sizes were planted."""

    known: Known | None = None
    planted: tuple[float, ...] = ()

    def noise(self, least: float) -> bisect.Noise:
        assert self.known is not None
        return self.known

    def sizes(self, jumps: Floats) -> Floats:
        density, step = np.zeros_like(jumps), abs(jumps[-1] - jumps[-2])
        for effect in set(self.planted):
            density[np.argmin(np.abs(jumps - math.log1p(effect)))] = 1 / step / len(set(self.planted))
        return density


@dataclass(frozen=True)
class Line:
    """A planted line of commits on one tape's noise."""

    logs: Floats  # of the tape's processes
    culprits: dict[int, float]
    broken: frozenset[int]
    start: int
    seed: int
    commits: int = COMMITS
    drifts: bool = False

    @property
    def levels(self) -> Floats:
        jumps = np.zeros(self.commits + 1)
        for place, effect in self.culprits.items():
            jumps[place] = math.log1p(effect)
        return np.cumsum(jumps)

    def blocks(self) -> Iterator[Callable[[int, int], float]]:
        """Each yields the log ratio of any pair of commits in that block."""
        rng, at, levels, size = np.random.default_rng(self.seed), self.start, self.levels, len(self.logs)
        while True:
            noise = (self.logs[(at + 1) % size] - self.logs[at % size]) * rng.choice((-1.0, 1.0))
            at += 2
            yield lambda newer, older, noise=noise: float(levels[newer] - levels[older] + noise)  # type: ignore[misc]


@dataclass(frozen=True)
class Result:
    right: bool
    blocks: int
    builds: int


def drawn(logs: Floats, effects: tuple[float, ...], breaks: bool, rng: np.random.Generator) -> Line:
    places = rng.choice(np.arange(1, COMMITS + 1), len(effects), replace=False)
    broken: set[int] = set()
    for place in np.flatnonzero(rng.random(COMMITS) < (BREAKING if breaks else 0.0)):
        broken |= set(range(int(place), int(place + rng.integers(1, 5))))
    culprits = {int(place): effect for place, effect in zip(places, effects, strict=True)}
    ends = {place for place in broken if not 0 < place < COMMITS}
    return Line(logs, culprits, frozenset(broken - ends), int(rng.integers(len(logs))), int(rng.integers(1 << 30)))


def drifting(logs: Floats, even: bool, rng: np.random.Generator) -> Line:
    commits, rate = int(rng.integers(*DRIFTING)), float(rng.uniform(*A_COMMIT))
    rates = rate * (np.ones(commits) if even else rng.uniform(0, 2, commits))
    steps = dict(enumerate(rates.tolist(), start=1))
    return Line(logs, steps, frozenset(), int(rng.integers(len(logs))), int(rng.integers(1 << 30)), commits, drifts=True)


def verified(line: Line) -> tuple[float, ...] | None:
    """The ratios after which a change between the ends is called *regressed*; None where it is not."""
    rule = model.Rule(min_effect=MIN_EFFECT)
    blocks = line.blocks()
    ratios = np.array([next(blocks)(line.commits, 0) for _ in range(rule.max_blocks)])
    orders = np.random.default_rng(line.seed).choice(("CT", "TC"), rule.max_blocks)
    decision = verdict.decide(np.exp(ratios), np.ones_like(ratios), rule, orders=list(orders))
    return tuple(ratios[: decision.blocks]) if decision.verdict is model.Verdict.REGRESSED else None


def searched(search: bisect.Search, line: Line, devices: int) -> Result:
    blocks, before = line.blocks(), search.blocks
    for _ in range(before):
        next(blocks)
    while wanted := choice.next_measurements(search, devices):
        for one in wanted:
            failing = {one.newer, one.older} & line.broken
            if failing:
                search = search.with_unbuildable(*(failing - search.unbuildable))
            elif one.older in (0, search.before(one.newer)):
                search = search.with_evidence(one.newer, one.older, [next(blocks)(one.newer, one.older)])
    return Result(right(posterior.of(search), line), search.blocks - before, search.builds)


def right(found: posterior.Posterior, line: Line) -> bool:
    if line.drifts:
        return found.outcome is posterior.Outcome.MANY_SMALL
    groups = [set(one.commits) for one in found.culprits]
    every = all(any(place in group for group in groups) for place in line.culprits)
    return found.outcome is posterior.Outcome.FOUND and every and all(group & set(line.culprits) for group in groups)


@functools.cache
def recorded(tape: str) -> bench_decide.Tape:
    return bench_decide.recorded(bench_decide.NOISE / f"{tape}.jsonl")


@functools.cache
def known(tape: str) -> Known:
    logs = recorded(tape).fastest
    density = bench_decide.log_density(np.diff(np.append(logs, logs[0])))
    grid = np.linspace(-0.5, 0.5, 20_001)
    logs_there = density(grid)
    weights = np.exp(logs_there) * (grid[1] - grid[0])
    return Known(density, 1 / float((weights * np.gradient(logs_there, grid) ** 2).sum()))


@functools.cache
def earlier(tape: str, seed: int) -> bisect.Earlier:
    """The noise of experiments without a change, each up to its verdict."""
    rule = model.Rule(min_effect=MIN_EFFECT)
    replays = bench_decide.laid(recorded(tape), recorded(tape).fastest, "coin", EARLIER, rule.max_blocks, seed)
    whole = verdict.by_coin(replays.ratios(rule.max_blocks), np.where(replays.ahead, 1.0, -1.0))
    blocks = np.minimum(np.min(verdict.stops(whole, rule), axis=0) + 1, rule.max_blocks)
    pairs = zip(whole.ratios, whole.signs, blocks, strict=True)
    noise = prospects.noise(verdict.by_coin(ratios[:size], orders[:size]) for ratios, orders, size in pairs)
    return bisect.Earlier(math.hypot(noise.scale, noise.slot), noise.degrees, noise.blocks)


@dataclass(frozen=True)
class Kind:
    """Lines of one row.

    Attributes:
        effects: of the culprits; or of how many, drawn from 1 to 5 %.
        breaks: whether some commits do not build.
        told: by how much the scale of the noise is wrong that is told; 0 where none is.
        drift: of equal steps, ``even``, or ``uneven``; empty where there are culprits.
    """

    name: str
    effects: tuple[float, ...] | int
    breaks: bool = False
    told: float = 1.0
    drift: str = ""

    def line(self, logs: Floats, rng: np.random.Generator) -> Line:
        if self.drift:
            return drifting(logs, self.drift == "even", rng)
        sizes = tuple(rng.uniform(0.01, 0.05, self.effects)) if isinstance(self.effects, int) else self.effects
        return drawn(logs, sizes, self.breaks, rng)


KINDS = (
    Kind("one of 1%", (0.01,)),
    Kind("one of 2%", (0.02,)),
    Kind("one of 5%", (0.05,)),
    Kind("one of 1 to 5%", 1),
    Kind("one, some do not build", 1, breaks=True),
    Kind("two of 1 to 5%", 2),
    Kind("two, some do not build", 2, breaks=True),
    Kind("three of 1 to 5%", 3),
    Kind("three, some do not build", 3, breaks=True),
    Kind("two, noise told twice as large", 2, told=2.0),
    Kind("two, noise told half as large", 2, told=0.5),
    Kind("two, noise not told", 2, told=0.0),
    Kind("many of 0.1 to 0.3%", (), drift="even"),
    Kind("many of 0 to 0.6%", (), drift="uneven"),
)


@dataclass(frozen=True)
class Job:
    kind: Kind
    tape: str
    seed: int
    price: float
    devices: int
    alone: bool


def run(job: Job) -> tuple[Result, Result]:
    """Ours and the yardstick's, on one line."""
    rng, kind, logs = np.random.default_rng(job.seed), job.kind, recorded(job.tape).fastest
    while True:
        line = kind.line(logs, rng)
        if (ratios := verified(line)) is not None:
            break
    evidence = (bisect.Evidence(line.commits, 0, ratios),)
    noise = earlier(job.tape, job.seed % HISTORIES)
    told = dataclasses.replace(noise, scale=kind.told * noise.scale) if kind.told else None
    ours = bisect.Search(
        line.commits, evidence, told, build_price=job.price, min_effect=MIN_EFFECT, max_blocks=2000, max_builds=COMMITS
    )
    mine = searched(ours, line, job.devices)
    if job.alone or kind.drift:
        return mine, mine
    fields = {field.name: getattr(ours, field.name) for field in dataclasses.fields(ours)}
    return mine, searched(Told(**fields, known=known(job.tape), planted=tuple(line.culprits.values())), line, job.devices)


def row(results: list[tuple[Result, Result]], price: float) -> str:
    size = len(results)
    rates, costs = (
        np.array([[one.right for one in pair] for pair in results]),
        np.array([[one.blocks + price * one.builds for one in pair] for pair in results]),
    )
    blocks, builds = (
        np.mean([[getattr(one, name) for one in pair] for pair in results], axis=0) for name in ("blocks", "builds")
    )
    mean = costs.mean(axis=0)
    ratio = mean[0] / mean[1]
    error = float(np.std(costs[:, 0] - ratio * costs[:, 1], ddof=1) / mean[1] / math.sqrt(size))
    share = rates.mean(axis=0)
    wrong = np.sqrt(np.maximum(share * (1 - share), 1 / size) / size)
    spread = costs.std(axis=0, ddof=1) / math.sqrt(size)
    return (
        f"{100 * share[0]:5.1f} ±{100 * wrong[0]:.1f}  {100 * share[1]:5.1f} ±{100 * wrong[1]:.1f}  "
        f"{blocks[0]:6.1f} {blocks[1]:6.1f}  {builds[0]:5.1f} {builds[1]:5.1f}  "
        f"{mean[0]:6.0f} ±{spread[0]:<4.0f} {mean[1]:6.0f} ±{spread[1]:<4.0f} {ratio:5.2f} ±{error:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="bisect planted changes on recorded noise")
    parser.add_argument("--runs", type=int, default=40, help="of each row (%(default)s)")
    parser.add_argument("--price", type=float, default=20.0, help="of a build, in blocks (%(default)s)")
    parser.add_argument("--devices", type=int, default=searching.BATCH, help="blocks asked for at once (%(default)s)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="*", type=int, help="their numbers, from 0 (all)")
    parser.add_argument("--alone", action="store_true", help="without the yardstick")
    given = parser.parse_args()
    tapes = sorted(path.stem for path in bench_decide.NOISE.glob("*.jsonl"))
    print(f"{COMMITS} commits, a build costs {given.price:g} blocks, {given.runs} runs a row; ours, then the yardstick")
    print(f"{'culprits':31} {'right, %':24} {'blocks':13}  {'builds':11}  {'cost':25} {'ratio':>5}")
    as_said: list[tuple[Result, Result]] = []
    with multiprocessing.get_context("forkserver").Pool(given.processes) as pool:
        for number in given.rows or range(len(KINDS)):
            kind = KINDS[number]
            jobs = [
                Job(kind, tapes[one % len(tapes)], given.seed + 100_000 * number + one, given.price, given.devices, given.alone)
                for one in range(given.runs)
            ]
            results = list(pool.imap_unordered(run, jobs, chunksize=4))
            as_said += results if kind.told == 1 and not kind.drift else []
            print(f"{kind.name:31} {row(results, given.price)}", flush=True)
    if as_said:
        print(f"{'all whose noise is told as it is':31} {row(as_said, given.price)}")


if __name__ == "__main__":
    main()
