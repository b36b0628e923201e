"""Whether a time creeps up over many commits, none of which changed it by as much as matters.

Each experiment is an edge between two commits: an estimate of the log ratio newer / older, with an interval. The history of
one series is the graph of all its edges: neighbours, the newest commit against a pinned release (an *anchor*), what was
measured again. Commits are places on their line; larger is newer.

**The levels.** The log time of each commit over that of a reference is the weighted least squares solution over all edges
(:func:`levels`), weights being inverse squares of errors, with its covariance, which is the inverse of the graph's weighted
Laplacian (a Gaussian Markov field; "measurements on graphs": Barooah and Hespanha, "Estimation on graphs from relative
measurements", 2007). Along a chain errors add up as a random walk; an anchor ties it (:func:`anchor_due`).

**The detector.** The hypothesis is that nothing changes but at known changes, whose sizes are free. The alternatives are, for
each commit as the last before it begins, a drift of one rate to this day, and a step that no edge was called for. Rate and
size have a half-normal prior (:data:`DRIFT`, :data:`STEP`), so that the likelihood ratio of each start, of all edges, has a
closed form. Where errors are normal and their scale is known it is an e-process: its mean under the hypothesis is 1, whenever
and for whatever reason one stops, and whichever edges were chosen in the light of those before. The sum over all starts is
the Shiryaev-Roberts e-detector (Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential change
detection", 2023): the mean number of commits to a false alarm is ``run_length`` at least, and the chance of one within n
commits at most n / ``run_length``, looked at after every commit. Known changes are projected out of all edges, those included
that span them: what is left does not depend on their sizes (Pérez-Ortiz, Lardy, de Heide, Grünwald, "E-statistics, group
invariance and anytime-valid testing", 2024), as long as which changes are known is not chosen by what is left.

It creeps where that evidence is there, and the estimated creep, its median over starts and sizes, is ``min_effect`` or more.

**Why a likelihood.** An experiment that says *unchanged* stops as soon as its blocks happen to lie near 0: a change of 0.3 % is
estimated as 0.2 % on average over four recorded tapes, whose experiments have an error of 0.35 %. So levels that are added up
along a chain creep by two thirds of what is true. Those that stop early have wide intervals, though: weighted by inverse
squares of their widths they give 0.29 to 0.33 %, as Wald's identity has it (the sum of all blocks at a stopping time is the
true mean times the number of blocks, on average), and that is the weight that the likelihood gives to each.

**The errors.** The intervals hold at any stopping time, so that they are wider than a fixed number of blocks would have it, by
an unknown factor. It is estimated from the edges between neighbours about their mean, weighted as their sum is, beside
:data:`DOUBT` edges that say it is 1; on the tapes it is 0.6. A drift leaves it as it is, steps make it larger. As one
experiment in a hundred is called for nothing, no edge counts for more than :data:`MOST` such errors as evidence; for the
size it counts in full. So one anchor alone is no creep: it is a change that was called, to be verified.

**Measured** (``make bench-search``: experiments over the four tapes, drawn from 40 of each effect and tape, 24 histories of 300
commits, looked at every fifth; drifts begin after 100 commits; anchors where :func:`anchor_due` says so with :data:`SHARE` 1, ten
commits apart at least, which is 9 in 100 commits). Commits from the beginning to the alarm, at 10, 50, 90 % of histories, and the
creep that is told then, beside the true one since the same commit:

==================  ===================  ===============  =================  ===============
drift a commit      without anchors      told, true       with anchors       told, true
==================  ===================  ===============  =================  ===============
0.1 %               125, 200, 50 % found 26.5 %, 15.3 %   20, 25, 30         2.4 %, 2.6 %
0.2 %               50, 115, 83 % found  22.9 %, 23.6 %   15, 15, 20         3.2 %, 3.5 %
0.3 %               35, 60, 115          19.2 %, 22.8 %   10, 10, 20         3.3 %, 3.8 %
0.5 %               20, 30, 40           13.6 %, 16.0 %   5, 10, 10          4.4 %, 4.8 %
0.3 %, 20 commits   none found           -                10, 10, 20         3.3 %, 3.8 %
==================  ===================  ===============  =================  ===============

So without anchors a slow or short creep is seen late or never, which no rule could mend: after 20 commits of 0.3 % the chain's
error is 2 % itself; and one of 0.1 % is called too large then. With anchors all were found. Without drift there was no alarm in
24 histories without anchors, and none in 24 with them (promised: 3 %; the error of such a share is 4 %). What is no creep of
2 %: a step of 1 % was called in none of 24 without anchors, in 2 with them; 1 % up and down every 40 commits in none, and in 3.

The interval of the creep held the true one in 83 to 100 % of the rows above, where a drift goes on, instead of 90 %: the alarm
chooses when it is read.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aibenchd import model

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Span = tuple[int, int]  # (older, newer): a known change came after the first, and with the second at the latest
Row = tuple[int, int, float, float]  # newer, older, log ratio, its standard error

DRIFT = 1 / 8  # margins per commit: the prior's scale of a rate
STEP = 2.0  # margins: that of a step
DOUBT = 5  # edges
EXACT = 1e-4  # as a log ratio: smaller errors are those of equal programs
SHARE = 1.0  # of the margin
TAIL = 0.05  # of the starts, on either side
NODES = np.array([statistics.NormalDist().inv_cdf((node + 0.5) / 20) for node in range(20)])
MOST = 3.0  # standard errors that one edge counts for: exp(3² / 2) is 90, and one in a hundred is called for nothing
LITTLE = 1e-5  # of all evidence, which no quantile misses
LEAST = -8.0  # standard errors on the wrong side, past which it makes no difference


@dataclass(frozen=True, slots=True)
class Edge:
    """What one experiment says of two commits.

    Attributes:
        older, newer: their places; control and treatment.
        estimate, low, high: newer / older as a ratio minus 1 and its interval, as in :class:`aibenchd.model.Decision`; without
            a bound on either side (NaN, infinite) it says nothing, and with both equal to it (equal programs) it is exact.
        confidence: of the interval.

    Raises:
        ValueError: places not in order, a ratio of 0 or less, an estimate outside its interval, a confidence that is none.
    """

    older: int
    newer: int
    estimate: float
    low: float = math.nan
    high: float = math.nan
    confidence: float = 0.9

    def __post_init__(self) -> None:
        if self.older >= self.newer:
            raise ValueError(f"commits {self.older} and {self.newer}: expected an older and a newer one")
        if self.estimate <= -1 or self.estimate == math.inf:
            raise ValueError(f"commits {self.older} and {self.newer}: expected a finite ratio above 0, not {1 + self.estimate}")
        if self.low > self.estimate or self.high < self.estimate:
            raise ValueError(f"commits {self.older} and {self.newer}: {self.estimate} is not in {self.low} to {self.high}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"expected a confidence between 0 and 1, not {self.confidence}")

    @classmethod
    def of(cls, older: int, newer: int, decision: model.Decision, rule: model.Rule) -> Edge:
        """That of a decided experiment of two arms."""
        if decision.verdict is model.Verdict.IDENTICAL:
            return cls(older, newer, 0.0, 0.0, 0.0)
        error = 2 * rule.beta if decision.verdict is model.Verdict.UNCHANGED else rule.alpha
        return cls(older, newer, decision.estimate, decision.low, decision.high, 1 - error)

    @property
    def ratio(self) -> float:
        """The log ratio."""
        return math.log1p(self.estimate)

    @property
    def error(self) -> float:
        """The standard error of the log ratio as the interval has it; infinite where there is no bound."""
        sides = (_log(self.high) - self.ratio, self.ratio - _log(self.low))
        bounded = [side for side in sides if math.isfinite(side)]
        return statistics.fmean(bounded) / _normal(self.confidence) if bounded else math.inf


@dataclass(frozen=True, slots=True)
class Level:
    """The time of the commit at ``place`` over that of the reference, and its interval."""

    place: int
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The A/B that confirms a creep. ``known`` is what known changes between the two add, as a ratio minus 1."""

    older: int
    newer: int
    known: float = 0.0


@dataclass(frozen=True, slots=True)
class Creep:
    """What the history of one series says.

    Attributes:
        creeps: whether the time has crept up by ``min_effect`` or more since some commit.
        chance: that a history of this length without any drift shows as much at any commit of it, at most.
        log_evidence: the detector's; -infinite where there are no edges.
        since: the last commit before it began lies between these places, at 90 %; None where there are no edges.
        estimate, low, high: newest / that commit as a ratio minus 1, known changes left out, with its interval, given that
            there is a drift; NaN where there are no edges.
        compare: what to measure to confirm it; None where it does not creep.
        noise: true over stated standard errors of edges, as estimated.
        apart: groups of commits that no edges join to the newest; they are left out.
    """

    creeps: bool
    chance: float
    log_evidence: float
    since: Span | None
    estimate: float
    low: float
    high: float
    compare: Comparison | None
    noise: float
    apart: tuple[tuple[int, ...], ...]


def detect(
    edges: Iterable[Edge],
    known: Collection[Span] = (),
    *,
    min_effect: float = 0.02,
    run_length: float = 10_000,
    confidence: float = 0.9,
) -> Creep:
    """Whether the newest commit has crept up; ask again after each.

    Args:
        edges: in any order; commits that none names are no places of the line.
        known: changes that are no creep: findings, what was accepted, and what was called and is being verified. Commits
            within a span are not compared with each other. A release beside the line has a place below its first commit,
            with a span between the two.
        min_effect: the smallest creep that matters, as a ratio minus 1.
        run_length: commits to a false alarm, on average, at least.
        confidence: of the interval of the estimate.

    Raises:
        ValueError: a span that is not in order, or a number out of range.
    """
    if not run_length > 1:
        raise ValueError(f"expected a run length above 1 commit, not {run_length}")
    tail, margin = _tail(confidence), _margin(min_effect)
    groups = _groups(edges)
    graph = _Graph.of(groups[-1] if groups else [], known)
    apart = tuple(_places(group) for group in groups[:-1])
    if not graph.starts:
        return Creep(False, 1.0, -math.inf, None, math.nan, math.nan, math.nan, None, graph.noise, apart)
    found = _weigh(graph, margin)
    least, median, most = found.creep((tail, 0.5, 1 - tail))
    first, last = (graph.last_at(start) for start in found.since())
    creeps = found.total >= math.log(run_length) and median >= margin
    return Creep(
        creeps=creeps,
        chance=math.exp(min(math.log(graph.starts) - found.total, 0.0)),
        log_evidence=found.total,
        since=(graph.places[first], graph.places[last]),
        estimate=_change(median),
        low=_change(least),
        high=_change(most),
        compare=Comparison(graph.places[first], graph.places[-1], _change(graph.known_since(first))) if creeps else None,
        noise=graph.noise,
        apart=apart,
    )


def levels(
    edges: Iterable[Edge], known: Collection[Span] = (), *, reference: int | None = None, confidence: float = 0.9
) -> tuple[Level, ...]:
    """Of each commit that edges join to the reference, in order; known changes are in them.

    Between anchors they creep by less than what is true, as the module says.

    Args:
        edges, known: as :func:`detect`.
        reference: a place; the oldest that is joined to the newest commit where there is none.
        confidence: of the intervals.

    Raises:
        ValueError: no edge that says anything has the reference, or as :func:`detect`.
    """
    tail, groups = _tail(confidence), _groups(edges)
    if reference is None and not groups:
        return ()
    group = groups[-1] if reference is None else _group_of(groups, reference)
    graph = _Graph.of(group, known)
    at = 0 if reference is None else graph.places.index(reference)
    logs, errors = graph.solved(at)
    reach = -statistics.NormalDist().inv_cdf(tail) * errors
    found = zip(graph.places, logs, logs - reach, logs + reach, strict=True)
    return tuple(Level(place, *(1 + _change(float(one)) for one in bounds)) for place, *bounds in found)


def anchor_due(
    edges: Iterable[Edge], release: int, known: Collection[Span] = (), *, min_effect: float = 0.02, share: float = SHARE
) -> bool:
    """Whether it is worth it to measure the newest commit against the release: its level is known too loosely, or not at all.

    Args:
        edges, known: as :func:`detect`.
        release: its place.
        min_effect: the smallest creep that matters, as a ratio minus 1.
        share: of it; the standard error of the level past which an anchor is due.

    Raises:
        ValueError: as :func:`detect`.
    """
    margin, groups = _margin(min_effect), _groups(edges)
    graph = _Graph.of(groups[-1] if groups else [], known)
    if release not in graph.places:
        return True
    if release == graph.places[-1]:
        return False
    return graph.newest_error(graph.places.index(release)) > share * margin


@dataclass(frozen=True, eq=False)
class _Graph:
    """Edges that join all their commits to each other.

    Attributes:
        places: of the commits, rising.
        older, newer: of each edge, indices of ``places``; shape (edges,).
        ratios, errors: log ratios and their standard errors as stated; shape (edges,).
        changed: whether there is a known change in the gap after each commit but the last; shape (commits - 1,).
        clock: how often the time could have crept before each commit: gaps without a known change, and whose ends are not
            equal programs; shape (commits,).
    """

    places: tuple[int, ...]
    older: Ints
    newer: Ints
    ratios: Floats
    errors: Floats
    changed: Bools
    clock: Ints

    @classmethod
    def of(cls, rows: Sequence[Row], known: Collection[Span]) -> _Graph:
        for start, end in known:
            if start >= end:
                raise ValueError(f"known change from {start} to {end}: expected an older and a newer commit")
        places = _places(rows)
        index = {place: at for at, place in enumerate(places)}
        older = np.array([index[older] for _, older, _, _ in rows], dtype=np.int64)
        newer = np.array([index[newer] for newer, _, _, _ in rows], dtype=np.int64)
        ratios, errors = np.array([row[2:] for row in rows]).reshape(-1, 2).T
        sites = np.array(places)
        changed = np.zeros(max(len(places) - 1, 0), dtype=bool)
        for start, end in known:
            changed |= (sites[:-1] < end) & (sites[1:] > start)
        still = changed.copy()
        still[older[(errors < EXACT) & (newer == older + 1)]] = True
        clock = np.concatenate([[0], np.cumsum(~still)])
        return cls(places, older, newer, ratios, np.maximum(errors, EXACT), changed, clock)

    @property
    def starts(self) -> int:
        """How many commits a drift may have begun after."""
        return int(self.clock[-1])

    @functools.cached_property
    def noise(self) -> float:
        """True over stated standard errors."""
        near = (self.clock[self.newer] - self.clock[self.older] == 1) & ~self.crosses.any(axis=1) & (self.errors > EXACT)
        weights, ratios = self.errors[near] ** -2, self.ratios[near]
        if not near.any():
            return 1.0
        count = weights.sum() ** 2 / (weights**2).sum()  # of equal weights that say as much
        mean = weights @ ratios / weights.sum()
        square = ((weights * (ratios - mean)) ** 2).sum() / weights.sum()
        return math.sqrt(float((DOUBT + count * square) / (DOUBT + count)))

    @functools.cached_property
    def crosses(self) -> Bools:
        """Which known changes each edge spans, shape (edges, changes); those that all edges span alike are one."""
        gaps = np.flatnonzero(self.changed)
        found: Bools = np.unique((self.older[:, None] <= gaps) & (gaps < self.newer[:, None]), axis=1)
        return found

    def last_at(self, start: int) -> int:
        """Index of the last commit after so many chances to creep."""
        return int(np.searchsorted(self.clock, start, side="right")) - 1

    def known_since(self, index: int) -> float:
        """What known changes after a commit add up to, as a log ratio."""
        if not self.changed[index:].any():
            return 0.0
        logs, _ = self.solved(0)
        return float(np.diff(logs)[index:][self.changed[index:]].sum())

    @functools.cached_property
    def laplacian(self) -> Floats:
        """Of the edges' information, shape (commits, commits)."""
        found, weights = np.zeros((len(self.places), len(self.places))), (self.errors * self.noise) ** -2
        for one, other in ((self.older, self.newer), (self.newer, self.older)):
            np.add.at(found, (one, one), weights)
            np.add.at(found, (one, other), -weights)
        return found

    def solved(self, reference: int) -> tuple[Floats, Floats]:
        """Log time over that of the reference, and its standard error; both of shape (commits,)."""
        pulls, logs, errors = (np.zeros(len(self.places)) for _ in range(3))
        weighted = self.ratios * (self.errors * self.noise) ** -2
        np.add.at(pulls, self.newer, weighted)
        np.add.at(pulls, self.older, -weighted)
        rest = np.delete(np.arange(len(self.places)), reference)
        covariance = np.linalg.inv(self.laplacian[np.ix_(rest, rest)])
        logs[rest], errors[rest] = covariance @ pulls[rest], np.sqrt(np.diag(covariance))
        return logs, errors

    def newest_error(self, reference: int) -> float:
        """The standard error of the newest commit's log time over that of the reference."""
        rest = np.delete(np.arange(len(self.places)), reference)
        newest = np.zeros(len(rest))
        newest[-1] = 1.0
        return math.sqrt(float(np.linalg.solve(self.laplacian[np.ix_(rest, rest)], newest)[-1]))


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Of each kind of alternative (a drift, a step) and each start.

    Attributes:
        logs: log likelihood ratio against no creep; shape (kinds, starts), as the others.
        means, errors: of how much it has crept up to now, as a log ratio, but that it is positive.
    """

    logs: Floats
    means: Floats
    errors: Floats

    @property
    def total(self) -> float:
        """The log of the sum over starts, of the mean over kinds."""
        return float(np.logaddexp.reduce(self.logs, axis=None)) - math.log(len(self.logs))

    @property
    def shares(self) -> Floats:
        """Of each alternative in all evidence; shape as ``logs``, sums to 1."""
        found: Floats = np.exp(self.logs - np.logaddexp.reduce(self.logs, axis=None))
        return found

    def since(self) -> tuple[int, int]:
        """First and last start, of their interval."""
        below = np.cumsum(self.shares.sum(axis=0))
        first, last = (min(int(np.searchsorted(below, tail)), len(below) - 1) for tail in (TAIL, 1 - TAIL))
        return first, last

    def creep(self, quantiles: Sequence[float]) -> list[float]:
        """Quantiles of how much it has crept, over all alternatives."""
        likely = self.shares > LITTLE
        sizes = np.maximum(self.means[likely][:, None] + self.errors[likely][:, None] * NODES, 0.0).ravel()
        order = np.argsort(sizes)
        below = np.cumsum(np.repeat(self.shares[likely], len(NODES))[order])
        places = np.searchsorted(below, np.array(quantiles) * below[-1])
        return [float(size) for size in sizes[order][places]]


def _weigh(graph: _Graph, margin: float) -> _Evidence:
    weights = 1 / (graph.errors * graph.noise)
    spans = _cleared(graph.crosses * weights[:, None])
    ratios = spans(graph.ratios * weights)
    bounded = np.clip(ratios, -MOST, MOST)
    starts = np.arange(graph.starts)
    older, newer = (np.maximum(graph.clock[ends][:, None] - starts, 0) for ends in (graph.older, graph.newer))
    logs, means, errors = [], [], []
    for scale, profile, reach in (
        (DRIFT * margin, newer - older, graph.starts - starts),
        (STEP * margin, np.minimum(newer, 1) - np.minimum(older, 1), np.ones(len(starts))),
    ):
        rows = spans(profile * weights[:, None])
        information = (rows**2).sum(axis=0)
        spread = scale**2 / (1 + scale**2 * information)
        logs.append(np.log(spread) / 2 - math.log(scale) + _half_normal(bounded @ rows * np.sqrt(spread)))
        means.append(ratios @ rows * spread * reach)
        errors.append(np.sqrt(spread) * reach)
    return _Evidence(np.array(logs), np.array(means), np.array(errors))


def _cleared(columns: Floats) -> Callable[[Floats], Floats]:
    """What takes the columns out of others: the residual of a regression on them."""
    if not columns.size:
        return lambda others: others
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    basis = left[:, sizes > 1e-9 * sizes[0]]
    return lambda others: others - basis @ (basis.T @ others)


def _half_normal(z: Floats) -> Floats:
    """z² / 2 + log 2 Φ(z): what is left of a normal likelihood's mean over a half-normal prior, but for its width."""
    z = np.maximum(z, LEAST)
    found: Floats = z**2 / 2 + np.log([math.erfc(-one / math.sqrt(2)) for one in z])
    return found


def _groups(edges: Iterable[Edge]) -> list[list[Row]]:
    """Edges that say something, in a fixed order, by which commits they join; that with the newest commit is the last."""
    rows = sorted((edge.newer, edge.older, edge.ratio, error) for edge in edges if math.isfinite(error := edge.error))
    root: dict[int, int] = {}

    def top(place: int) -> int:
        while root.setdefault(place, place) != place:
            root[place] = place = root[root[place]]
        return place

    for newer, older, _, _ in rows:
        root[top(newer)] = top(older)
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(top(row[0]), []).append(row)
    return sorted(found.values(), key=lambda group: group[-1][0])


def _group_of(groups: Sequence[Sequence[Row]], place: int) -> Sequence[Row]:
    for group in groups:
        if place in _places(group):
            return group
    raise ValueError(f"commit {place}: no edge with a bound has it; expected one that was measured")


def _places(rows: Sequence[Row]) -> tuple[int, ...]:
    return tuple(sorted({place for newer, older, _, _ in rows for place in (older, newer)}))


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, not {confidence}")
    return (1 - confidence) / 2


def _margin(min_effect: float) -> float:
    if not 0 < min_effect < math.inf:
        raise ValueError(f"expected a smallest effect above 0, not {min_effect}")
    return math.log1p(min_effect)


@functools.lru_cache(maxsize=16)
def _normal(confidence: float) -> float:
    """Half the width of a normal law's interval, in standard deviations."""
    return -statistics.NormalDist().inv_cdf(_tail(confidence))


def _log(change: float) -> float:
    """A ratio minus 1 as a log ratio."""
    return math.log1p(change) if change > -1 else -math.inf


def _change(log: float) -> float:
    """A log ratio as a ratio minus 1."""
    return math.expm1(min(log, 700.0))
