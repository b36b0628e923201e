"""``make bench-search``: how soon a creep is seen, and how often one that is none, where the truth is known.

A history is 300 commits of one series. Each is measured against the one before it by the daemon's own rule, over a recorded
tape of ``tests/data/noise``, of which each history has one; what is called a change is measured a second time, and between
neighbours it is a known one where that says the same. With anchors, the newest commit is measured against the first where
:func:`aibenchd.decide.creep.anchor_due` says so, at some share of the margin, but not twice within as many commits as the daemon
leaves between. The detector is asked after every fifth commit, up to its first alarm.

Experiments are drawn from pools, one of each tape and each of :data:`EFFECTS`, with either sign, and what is measured a second
time is another one; an effect between is that of the nearest, moved. Delays and true creeps are counted from the commit after
which the drift begins; ± is the standard error. "Held" is how often the interval of the creep holds the true one since the
commit it is told of, at 90 %.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aibenchd import creeping, model
from aibenchd.decide import creep, verdict
from tests.bench import bench_decide

Floats = NDArray[np.floating]

COMMITS = 300
LOOK = 5  # commits between two questions to the detector
BEGIN = 100  # the last commit before a drift
RULE = model.Rule()
EFFECTS = (0.0, 0.001, 0.003, 0.005, 0.01, 0.015, 0.02, 0.03)
SHARES = (None, creep.SHARE)  # of the margin, at which an anchor is due; None: no anchors
CALLED = {model.Verdict.REGRESSED, model.Verdict.IMPROVED}


@dataclass(frozen=True)
class Told:
    """What became of one history: when the first alarm was, and what it said."""

    alarm: int | None
    anchors: float  # a commit
    estimate: float = math.nan
    truth: float = math.nan  # since the middle of ``since``
    held: bool = False


def scenarios() -> dict[str, Floats]:
    """Log times of the commits."""
    places = np.arange(COMMITS + 1)
    since = np.maximum(places - BEGIN, 0)
    found: dict[str, Floats] = {"no drift": np.zeros(COMMITS + 1)}
    found |= {f"{rate:.1%} a commit": math.log1p(rate) * since for rate in (0.001, 0.002, 0.003, 0.005)}
    found["20 commits of 0.3%"] = math.log1p(0.003) * np.minimum(since, 20)
    found["a step of 1%"] = math.log1p(0.01) * np.minimum(since, 1)
    found["1% up and down"] = math.log1p(0.01) * (places // 40 % 2)
    return found


@functools.cache
def pool(tape: int, effect: float, size: int) -> list[model.Decision]:
    """Decided experiments."""
    replays = bench_decide.laid(tapes()[tape], tapes()[tape].fastest, "coin", size, RULE.max_blocks, seed=tape)
    times = np.exp(replays.treatment) * (1 + effect), np.exp(replays.control)
    orders = [["TC" if first else "CT" for first in row] for row in replays.ahead]
    return [verdict.decide(one, other, RULE, orders=order) for one, other, order in zip(*times, orders, strict=True)]


@functools.cache
def tapes() -> list[bench_decide.Tape]:
    return [bench_decide.recorded(path) for path in sorted(bench_decide.NOISE.glob("*.jsonl"))]


@dataclass(frozen=True)
class Lab:
    """Where commits of known log times are measured, over one tape."""

    rng: np.random.Generator
    tape: int
    size: int
    logs: Floats

    def measured(self, older: int, newer: int, times: int) -> list[tuple[creep.Edge, model.Verdict | None]]:
        """So many experiments on two commits."""
        theta = float(self.logs[newer] - self.logs[older])
        sign = math.copysign(1.0, theta) if theta else float(self.rng.choice((-1.0, 1.0)))
        effect = min(EFFECTS, key=lambda one: abs(math.log1p(one) - abs(theta)))
        moved = math.exp(abs(theta) - math.log1p(effect))
        places = self.rng.choice(self.size, times, replace=False)
        return [_told(older, newer, pool(self.tape, effect, self.size)[place], moved, sign) for place in places]

    def verified(self, older: int, newer: int) -> tuple[list[creep.Edge], bool]:
        """What is measured, a second time where that is a change; and whether both are the same change."""
        (edge, said), (again, confirmed) = self.measured(older, newer, 2)
        if said not in CALLED:
            return [edge], False
        return [edge, again], said is confirmed


def _told(older: int, newer: int, drawn: model.Decision, moved: float, sign: float) -> tuple[creep.Edge, model.Verdict | None]:
    """A drawn experiment, its ratio multiplied by ``moved``, or its mirror image."""
    ratios = sorted(((1 + one) * moved) ** sign - 1 for one in (drawn.low, drawn.estimate, drawn.high))
    mirrored = {model.Verdict.REGRESSED: model.Verdict.IMPROVED, model.Verdict.IMPROVED: model.Verdict.REGRESSED}
    said = drawn.verdict if sign > 0 or drawn.verdict is None else mirrored.get(drawn.verdict, drawn.verdict)
    return creep.Edge.of(older, newer, model.Decision(said, drawn.blocks, ratios[1], ratios[0], ratios[2]), RULE), said


def history(scenario: str, share: float | None, seed: int, size: int) -> Told:
    """One history up to its first alarm."""
    logs = scenarios()[scenario]
    lab = Lab(np.random.default_rng(seed), seed % len(tapes()), size, logs)
    edges: list[creep.Edge] = []
    known: set[creep.Span] = set()
    anchored: list[int] = []
    for commit in range(1, COMMITS + 1):
        found, confirmed = lab.verified(commit - 1, commit)
        edges += found
        known |= {(commit - 1, commit)} if confirmed else set()
        if commit % LOOK:
            continue
        late = anchored and commit - anchored[-1] < creeping.GAP
        if share is not None and not late and creep.anchor_due(edges, 0, known, min_effect=RULE.min_effect, share=share):
            edges += lab.verified(0, commit)[0]
            anchored.append(commit)
        said = creep.detect(edges, known, min_effect=RULE.min_effect)
        if said.creeps and said.since is not None:
            gaps = np.array([(place, place + 1) not in known for place in range(commit)])
            crept = np.diff(logs[: commit + 1]) * gaps
            truth = math.expm1(crept[sum(said.since) // 2 :].sum())
            return Told(commit, len(anchored) / commit, said.estimate, truth, said.low <= truth <= said.high)
    return Told(None, len(anchored) / COMMITS)


def row(told: list[Told], scenario: str) -> Iterator[str]:
    begin = 0 if scenario in ("no drift", "1% up and down") else BEGIN
    alarms = np.array([math.inf if one.alarm is None else one.alarm - begin for one in told])
    wrong, right = np.mean(alarms <= 0), np.mean((alarms > 0) & np.isfinite(alarms))
    yield f"{100 * wrong:5.1f} ±{_error(wrong, len(told)):.1f}"
    yield f"{100 * right:5.1f} ±{_error(right, len(told)):.1f}"
    yield " ".join(f"{quantile:4.0f}" for quantile in np.quantile(alarms, (0.1, 0.5, 0.9), method="lower"))
    found = [one for one, at in zip(told, alarms, strict=True) if 0 < at < math.inf]
    if found:
        yield f"{100 * np.mean([one.estimate for one in found]):5.1f} {100 * np.mean([one.truth for one in found]):5.1f}"
        yield f"{100 * np.mean([one.held for one in found]):4.0f}"
    else:
        yield from ("    -     -", "   -")
    yield f"{100 * np.mean([one.anchors for one in told]):5.1f}"


def _error(share: float, size: int) -> float:
    """Of a share of so many, in percent; where none or all are, as if one were not."""
    return 100 * math.sqrt(max(share * (1 - share), 1 / size) / size)


def main() -> None:
    parser = argparse.ArgumentParser(description="how soon a creep is seen, and how often one that is none")
    parser.add_argument("--histories", type=int, default=24, help="of each figure (%(default)s)")
    parser.add_argument("--pool", type=int, default=40, help="experiments of each tape and effect (%(default)s)")
    parser.add_argument("--scenario", choices=scenarios(), action="append", help="one of them (all)")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    for tape in range(len(tapes())):  # before the processes are forked
        for effect in EFFECTS:
            pool(tape, effect, given.pool)
    columns = ("alarms before %", "after %", "delay 10 50 90 %", "estimate, true %", "held %", "anchors a 100 commits")
    print(f"{'drift':20} {'anchors at':11}" + "".join(f"{column:22}" for column in columns))
    with multiprocessing.get_context("fork").Pool(given.processes) as processes:
        for scenario in given.scenario or scenarios():
            for share in SHARES:
                tasks = [(scenario, share, seed, given.pool) for seed in range(given.histories)]
                told = processes.starmap(history, tasks, chunksize=1)
                label = "none" if share is None else f"{share:.0%}"
                print(f"{scenario:20} {label:11}" + "".join(f"{cell:22}" for cell in row(told, scenario)), flush=True)


if __name__ == "__main__":
    main()
