"""How often bisection names the right commits, and at what price, where it is known: ``python -m tests.bench.bench_bisect``.

Culprits are planted in a line of 128 commits, at random places. Blocks are laid over the recorded tapes of
``tests/data/noise`` from a random start, wrapping, in the order of a fair coin. The change between the ends is measured
first, as the daemon would, until :mod:`aibenchd.decide.verdict` says *regressed*; those blocks are given to the search and
are not counted. Where commits do not build, they come in runs of 1 to 4, about a seventh of all, and are found out by
trying, at the price of a build.

The yardstick is the same bisector that is told the tape's own density of ratios (a kernel estimate) and the sizes that were
planted, over the same noise and the same coins. Right is: each culprit named, alone or with neighbours before it that do not
build, and nothing else. Cost is blocks and builds at their price. ± is the standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aibenchd import model
from aibenchd.decide import verdict
from aibenchd.plan import bisect
from tests.bench import bench_decide

Floats = NDArray[np.float64]

COMMITS = 128
MIN_EFFECT = 0.01
BREAKING = 0.06  # the chance that a commit begins a run of commits that do not build
EFFECTS = (0.01, 0.02, 0.05)


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

    @property
    def levels(self) -> Floats:
        jumps = np.zeros(COMMITS + 1)
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


def verified(line: Line) -> tuple[float, ...] | None:
    """The ratios after which a change between the ends is called *regressed*; None where it is not."""
    rule = model.Rule(min_effect=MIN_EFFECT)
    blocks = line.blocks()
    ratios = np.array([next(blocks)(COMMITS, 0) for _ in range(rule.max_blocks)])
    orders = np.random.default_rng(line.seed).choice(("CT", "TC"), rule.max_blocks)
    decision = verdict.decide(np.exp(ratios), np.ones_like(ratios), rule, orders=list(orders))
    return tuple(ratios[: decision.blocks]) if decision.verdict is model.Verdict.REGRESSED else None


def searched(search: bisect.Search, line: Line, devices: int) -> Result:
    blocks, before = line.blocks(), search.blocks
    for _ in range(before):
        next(blocks)
    while wanted := bisect.next_measurements(search, devices):
        for one in wanted:
            failing = {one.newer, one.older} & line.broken
            if failing:
                search = search.with_unbuildable(*(failing - search.unbuildable))
            elif one.older in (0, search.before(one.newer)):
                search = search.with_evidence(one.newer, one.older, [next(blocks)(one.newer, one.older)])
    return Result(right(bisect.posterior(search), line), search.blocks - before, search.builds)


def right(found: bisect.Posterior, line: Line) -> bool:
    groups = [set(one.commits) for one in found.culprits]
    every = all(any(place in group for group in groups) for place in line.culprits)
    return found.outcome is bisect.Outcome.FOUND and every and all(group & set(line.culprits) for group in groups)


def known(logs: Floats) -> Known:
    density = bench_decide.log_density(np.diff(np.append(logs, logs[0])))
    grid = np.linspace(-0.5, 0.5, 20_001)
    logs_there = density(grid)
    weights = np.exp(logs_there) * (grid[1] - grid[0])
    return Known(density, 1 / float((weights * np.gradient(logs_there, grid) ** 2).sum()))


def run(job: tuple[int, str, tuple[float, ...] | int, bool, float, int, bool]) -> tuple[Result, Result] | None:
    """Ours and the yardstick's, on one line."""
    seed, tape, effects, breaks, price, devices, alone = job
    rng = np.random.default_rng(seed)
    logs = bench_decide.recorded(bench_decide.NOISE / f"{tape}.jsonl").fastest
    while True:
        sizes = tuple(rng.uniform(0.01, 0.05, effects)) if isinstance(effects, int) else effects
        line = drawn(logs, sizes, breaks, rng)
        if (ratios := verified(line)) is not None:
            break
    evidence = (bisect.Evidence(COMMITS, 0, ratios),)
    ours = bisect.Search(COMMITS, evidence, build_price=price, min_effect=MIN_EFFECT, max_blocks=2000, max_builds=COMMITS)
    mine = searched(ours, line, devices)
    if alone:
        return mine, mine
    fields = {field.name: getattr(ours, field.name) for field in dataclasses.fields(ours)}
    return mine, searched(Told(**fields, known=known(logs), planted=sizes), line, devices)


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
    parser.add_argument("--runs", type=int, default=200, help="of each row (%(default)s)")
    parser.add_argument("--price", type=float, default=20.0, help="of a build, in blocks (%(default)s)")
    parser.add_argument("--devices", type=int, default=1, help="blocks run at once (%(default)s)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", action="store_true", help="without the yardstick")
    options = parser.parse_args()
    tapes = sorted(path.stem for path in bench_decide.NOISE.glob("*.jsonl"))
    kinds: list[tuple[str, tuple[float, ...] | int, bool]] = [(f"one of {effect:.0%}", (effect,), False) for effect in EFFECTS]
    kinds += [("one of 1 to 5 %", 1, False), ("the same, some do not build", 1, True)]
    kinds += [("two of 1 to 5 %", 2, False), ("two, some do not build", 2, True), ("three of 1 to 5 %", 3, False)]
    print(f"{COMMITS} commits, a build costs {options.price:g} blocks, {options.runs} runs a row; ours, then the yardstick")
    print(f"{'culprits':28} {'right, %':24} {'blocks':13}  {'builds':11}  {'cost':25} {'ratio':>5}")
    everything: list[tuple[Result, Result]] = []
    with multiprocessing.get_context("forkserver").Pool(options.processes) as pool:
        for number, (name, effects, breaks) in enumerate(kinds):
            jobs = [
                (
                    options.seed + 100_000 * number + one,
                    tapes[one % len(tapes)],
                    effects,
                    breaks,
                    options.price,
                    options.devices,
                    options.alone,
                )
                for one in range(options.runs)
            ]
            results = [result for result in pool.imap_unordered(run, jobs, chunksize=4) if result is not None]
            everything += results
            print(f"{name:28} {row(results, options.price)}", flush=True)
    print(f"{'all':28} {row(everything, options.price)}")


if __name__ == "__main__":
    main()
