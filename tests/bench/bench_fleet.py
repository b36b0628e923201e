"""``make bench-search``: how soon several devices at once find the commits at fault, and at what price.

As in :mod:`tests.bench.bench_bisect`, on 128 commits; each device has a recorded tape of its own, and sizes of its own from 1 to
5 %. In a round each device whose search has not ended runs as many blocks as the daemon gives at once, all at the same time. A
build is counted once, whichever device asked for it.

Right is a device whose culprits are named, and nothing else: a share of all devices. Time is that of the rounds until the last
device's search has ended, and until the first one's has, in blocks. Wall adds the builds, one after another, at their price.
± is the standard error, over searches.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aibenchd.plan import bisect, fleet, searching
from tests.bench import bench_bisect, bench_decide


@dataclass(frozen=True)
class Kind:
    """Searches of one row: so many ``devices``; ``culprits`` that all show, and ``own`` ones, of as many devices as there are."""

    name: str
    devices: int
    culprits: int
    own: int = 0


KINDS = (
    Kind("one", 1, 1),
    Kind("one", 2, 1),
    Kind("one", 4, 1),
    Kind("two", 1, 2),
    Kind("two", 2, 2),
    Kind("two", 4, 2),
    Kind("another one each", 2, 0, own=2),
    Kind("another one on one of four", 4, 1, own=1),
)


@dataclass(frozen=True)
class Job:
    kind: Kind
    tapes: Sequence[str]
    seed: int
    price: float


@dataclass(frozen=True)
class Result:
    """Of one search.

    Attributes:
        right: share of the devices.
        blocks, builds: of all devices together.
        first, last: block times until the search of one device had ended, and of all.
    """

    right: float
    blocks: int
    builds: int
    first: int
    last: int


@dataclass
class Device:
    """A device's part of a search that goes on, and the blocks to come."""

    line: bench_bisect.Line
    search: bisect.Search
    blocks: Iterator[Callable[[int, int], float]]
    searching: bool = True

    def run(self, block: bisect.Measurement) -> None:
        ratio = next(self.blocks)(block.newer, block.older)
        self.search = self.search.with_evidence(block.newer, block.older, [ratio])


def drawn(job: Job, rng: np.random.Generator) -> list[Device]:
    """Devices on each of which the change between the ends was seen."""
    kind = job.kind
    places = [int(place) for place in rng.choice(np.arange(1, bench_bisect.COMMITS + 1), kind.culprits + kind.own, replace=False)]
    common, own = places[: kind.culprits], places[kind.culprits :]
    found = []
    for number in range(kind.devices):
        tape = job.tapes[(job.seed + number) % len(job.tapes)]
        shows = own[number : number + 1] or common
        logs = bench_bisect.recorded(tape).fastest
        while True:
            culprits = dict(zip(shows, rng.uniform(0.01, 0.05, len(shows)).tolist(), strict=True))
            starts = int(rng.integers(len(logs))), int(rng.integers(1 << 30))
            line = bench_bisect.Line(logs, culprits, frozenset(), *starts)
            if (ratios := bench_bisect.verified(line)) is not None:
                break
        blocks = line.blocks()
        for _ in ratios:
            next(blocks)
        search = bisect.Search(
            bench_bisect.COMMITS,
            (bisect.Evidence(bench_bisect.COMMITS, 0, ratios),),
            bench_bisect.earlier(tape, job.seed % bench_bisect.HISTORIES),
            build_price=job.price,
            min_effect=bench_bisect.MIN_EFFECT,
            max_blocks=2000,
            max_builds=bench_bisect.COMMITS,
        )
        found.append(Device(line, search, blocks))
    return found


def run(job: Job) -> Result:
    devices = drawn(job, np.random.default_rng(job.seed))
    before = sum(one.search.blocks for one in devices)
    rounds, first = 0, 0
    while any(one.searching for one in devices):
        given: dict[int, tuple[bisect.Measurement, ...]] = {}
        for number, one in enumerate(devices):
            if one.searching:
                others = [fleet.Other(other.search, given.get(at, ())) for at, other in enumerate(devices) if at != number]
                given[number] = fleet.Fleet(one.search, tuple(others)).next_measurements(searching.BATCH)
                one.searching = bool(given[number])
                if not one.searching and not first:
                    first = rounds
        for number, blocks in given.items():
            for block in blocks:
                devices[number].run(block)
        rounds += any(given.values())
    told = [
        fleet.Fleet(one.search, tuple(fleet.Other(other.search) for other in devices if other is not one)).told()
        for one in devices
    ]
    right = [bench_bisect.right(found, one.line) for found, one in zip(told, devices, strict=True)]
    whole = fleet.Fleet(devices[0].search, tuple(fleet.Other(one.search) for one in devices[1:]))
    batch = searching.BATCH
    return Result(
        sum(right) / len(right),
        sum(one.search.blocks for one in devices) - before,
        whole.builds,
        batch * first,
        batch * rounds,
    )


def row(kind: Kind, results: Sequence[Result], price: float) -> str:
    def mean(values: Sequence[float]) -> str:
        return f"{np.mean(values):6.1f} ±{np.std(values, ddof=1) / math.sqrt(len(values)):<4.1f}"

    share = float(np.mean([one.right for one in results]))
    wrong = max(np.std([one.right for one in results], ddof=1), 1 / math.sqrt(len(results))) / math.sqrt(len(results))
    columns = [
        [float(one.blocks) for one in results],
        [float(one.builds) for one in results],
        [float(one.first) for one in results],
        [float(one.last) for one in results],
        [one.last + price * one.builds for one in results],
    ]
    return f"{kind.name:28} {kind.devices:>7}  {100 * share:5.1f} ±{100 * wrong:<4.1f} " + " ".join(map(mean, columns))


def main() -> None:
    parser = argparse.ArgumentParser(description="search for planted changes on several devices at once")
    parser.add_argument("--runs", type=int, default=24, help="of each row (%(default)s)")
    parser.add_argument("--price", type=float, default=20.0, help="of a build, in blocks (%(default)s)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="*", type=int, help="their numbers, from 0 (all)")
    given = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of the processes: they are as many as were asked for
    tapes = sorted(path.stem for path in bench_decide.NOISE.glob("*.jsonl"))
    print(f"{bench_bisect.COMMITS} commits, a build costs {given.price:g} blocks, {given.runs} runs a row")
    print(f"{'culprits':28} devices  {'right, %':11} {'blocks':12} {'builds':12} {'first':12} {'last':12} {'wall'}")
    with multiprocessing.get_context("forkserver").Pool(given.processes) as pool:
        for number in given.rows or range(len(KINDS)):
            kind = KINDS[number]
            jobs = [Job(kind, tapes, given.seed + 1000 * kind.culprits + one, given.price) for one in range(given.runs)]
            print(row(kind, list(pool.imap_unordered(run, jobs)), given.price), flush=True)


if __name__ == "__main__":
    main()
