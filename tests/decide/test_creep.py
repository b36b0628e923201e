"""Creeps: by value, by what cannot matter, and by rates on recorded noise."""

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibenchd import model
from aibenchd.decide import creep, summary, verdict

NOISE = Path(__file__).parents[1] / "data" / "noise"
RULE = model.Rule()
NINETY = statistics.NormalDist().inv_cdf(0.95)
DRAWN = 40  # experiments of each tape
COMMITS = 500
LOOK = 10  # commits from one look of a simulation to the next


def edge(older: int, newer: int, log: float, error: float = 0.004) -> creep.Edge:
    """Of a log ratio and its standard error."""
    low, high = math.expm1(log - NINETY * error), math.expm1(log + NINETY * error)
    return creep.Edge(older, newer, math.expm1(log), low, high, 0.9)


def chain(logs: list[float], error: float = 0.004) -> list[creep.Edge]:
    return [edge(place, place + 1, log, error) for place, log in enumerate(logs)]


def wobbling(commits: int, drift: float = 0.0, seed: int = 1, error: float = 0.004) -> list[float]:
    """Log ratios of neighbours."""
    return list(drift + np.random.default_rng(seed).standard_normal(commits) * error)


def test_a_level_is_the_weighted_mean_of_the_ways_to_it() -> None:
    """Two steps of one error against one edge over both: each way pulls by the inverse of its variance."""
    edges = [edge(0, 1, 0.010), edge(1, 2, 0.020), edge(0, 2, 0.036)]
    noise = creep.detect(edges).noise
    zero, one, two = creep.levels(edges, confidence=0.9)
    assert (zero.ratio, zero.low, zero.high) == (1.0, 1.0, 1.0)
    assert math.log(one.ratio) == pytest.approx(0.012)
    assert math.log(two.ratio) == pytest.approx(0.034)
    assert math.log(two.high / two.ratio) == pytest.approx(NINETY * 0.004 * noise * math.sqrt(2 / 3))
    assert math.log(creep.levels(edges, reference=2)[0].ratio) == pytest.approx(-0.034)


def test_errors_add_up_along_a_chain_and_an_anchor_ties_it() -> None:
    edges = chain([0.001, -0.001] * 20)
    noise = creep.detect(edges).noise
    free = creep.levels(edges)[-1]
    assert math.log(free.high / free.ratio) == pytest.approx(NINETY * 0.004 * noise * math.sqrt(40))
    tied = creep.levels([*edges, edge(0, 40, 0.0)])[-1]
    assert math.log(tied.high / tied.ratio) == pytest.approx(NINETY * 0.004 * noise * math.sqrt(40 / 41))


def test_the_evidence_is_the_likelihood_ratio_over_rates_sizes_and_starts() -> None:
    """By numeric integration over the half-normal priors, and over the size of a known change, which is flat."""
    edges = [*chain([0.003, 0.05, -0.002, 0.004]), edge(0, 4, 0.057, 0.003), edge(1, 3, 0.05, 0.005)]
    found = creep.detect(edges, [(1, 2)])
    margin, total = math.log1p(0.02), 0.0
    places = {0: 0, 1: 1, 2: 1, 3: 2, 4: 3}  # chances to creep
    crossed = np.array([one.older <= 1 < one.newer for one in edges], dtype=float)
    ratios, weights = np.array([one.ratio for one in edges]), np.array([(one.error * found.noise) ** -2 for one in edges])

    def likelihood(expected: np.ndarray) -> float:
        """Of the best size of the known change: as its mean over a flat prior, up to a constant."""
        rest = ratios - expected
        rest = rest - crossed * ((weights * crossed) @ rest / ((weights * crossed) @ crossed))
        return math.exp(-0.5 * float(weights @ rest**2))

    for start in range(3):
        for scale, profile in ((margin / 8, lambda at: max(at, 0)), (2 * margin, lambda at: min(max(at, 0), 1))):
            shape = np.array([profile(places[one.newer] - start) - profile(places[one.older] - start) for one in edges])
            sizes = (np.arange(4000) + 0.5) / 4000 * 6 * scale
            prior = np.exp(-0.5 * (sizes / scale) ** 2)
            nothing = likelihood(np.zeros(len(edges)))
            total += sum(prior * [likelihood(size * shape) for size in sizes]) / prior.sum() / nothing / 2
    assert found.log_evidence == pytest.approx(math.log(total), rel=1e-3)
    assert found.chance == pytest.approx(min(1.0, 3 / total))


@pytest.mark.parametrize(
    ("estimate", "low", "high", "error"),
    [
        (0.0, math.expm1(-0.01), math.expm1(0.03), 0.02 / NINETY),
        (0.0, math.nan, math.expm1(0.03), 0.03 / NINETY),
        (0.0, math.expm1(-0.01), math.inf, 0.01 / NINETY),
        (0.0, -1.0, math.expm1(0.02), 0.02 / NINETY),
        (0.0, math.nan, math.nan, math.inf),
        (math.nan, math.nan, math.nan, math.inf),
        (0.0, 0.0, 0.0, 0.0),
    ],
)
def test_the_error_of_an_edge_is_that_of_the_bounds_there_are(estimate: float, low: float, high: float, error: float) -> None:
    assert creep.Edge(0, 1, estimate, low, high).error == pytest.approx(error)


def test_an_edge_has_the_confidence_of_its_verdict() -> None:
    for said, confidence in ((model.Verdict.UNCHANGED, 0.9), (model.Verdict.REGRESSED, 0.99), (model.Verdict.INCONCLUSIVE, 0.99)):
        made = creep.Edge.of(3, 5, model.Decision(said, 8, 0.01, 0.0, 0.02), RULE)
        assert (made.older, made.newer, made.estimate) == (3, 5, 0.01)
        assert made.confidence == pytest.approx(confidence)
    assert creep.Edge.of(3, 5, model.Decision(model.Verdict.IDENTICAL, 0), RULE).error == 0.0


def test_twenty_commits_that_are_each_unchanged_are_a_creep() -> None:
    """Of 0.3 % each, between quiet stretches; the comparison spans them."""
    logs = wobbling(30, error=0.002) + wobbling(20, math.log1p(0.003), 2, 0.002)
    found = creep.detect(chain(logs, 0.002))
    assert found.creeps
    assert found.since is not None
    assert found.since[0] <= 32
    assert found.since[1] >= 28
    assert found.low <= 1.003**20 - 1 <= found.high
    assert found.compare == creep.Comparison(found.since[0], 50)
    assert not creep.detect(chain(logs[:30], 0.002)).creeps


def test_what_gets_faster_does_not_creep_up() -> None:
    assert not creep.detect(chain(wobbling(60, -0.01))).creeps
    assert creep.detect(chain(wobbling(60, 0.01))).creeps


def test_a_creep_below_what_matters_is_none_however_sure_it_is() -> None:
    edges = [*chain(wobbling(40, error=0.0005), 0.0005), *(edge(0, place, 0.01, 0.0005) for place in range(20, 40))]
    found = creep.detect(edges)
    assert found.chance < 1e-3
    assert not found.creeps
    assert found.high < 0.02
    assert creep.detect(edges, min_effect=0.005).creeps


def test_a_known_change_is_no_creep_also_in_what_spans_it() -> None:
    logs = wobbling(40)
    logs[20] += 0.05
    edges = [*chain(logs), *(edge(0, place, 0.05) for place in (25, 30, 35, 40))]
    assert creep.detect(edges).creeps
    assert not creep.detect(edges, [(20, 21)]).creeps
    assert not creep.detect(edges, [(18, 24)]).creeps


def test_a_creep_about_a_known_change_is_told_without_it() -> None:
    logs = wobbling(40, 0.005, error=0.001)
    logs[20] += 0.1
    found = creep.detect(chain(logs, 0.001), [(20, 21)])
    assert found.creeps
    assert found.estimate == pytest.approx(math.expm1(39 * 0.005), rel=0.15)
    assert found.compare is not None
    assert found.compare.older < 20
    assert found.compare.known == pytest.approx(math.expm1(logs[20]), abs=0.01)


def test_equal_programs_are_one_commit() -> None:
    """Wherever they are put, nothing is surer or less sure for them."""
    logs = wobbling(30, 0.004)
    plain = creep.detect(chain(logs))
    edges: list[creep.Edge] = []
    for place, log in enumerate(logs):
        edges += [edge(2 * place, 2 * place + 1, log), creep.Edge(2 * place + 1, 2 * place + 2, 0.0, 0.0, 0.0)]
    found = creep.detect(edges)
    assert found.log_evidence == pytest.approx(plain.log_evidence)
    assert found.estimate == pytest.approx(plain.estimate)
    assert creep.levels(edges)[-1].high == pytest.approx(creep.levels(chain(logs))[-1].high, rel=1e-2)


def test_commits_that_nothing_joins_to_the_newest_are_named_and_left_out() -> None:
    newer = [edge(place + 10, place + 11, 0.0) for place in range(5)]
    edges = [edge(0, 1, 0.3), edge(5, 6, 0.4), edge(6, 8, 0.4), *newer, creep.Edge(8, 10, 0.0)]
    found = creep.detect(edges)
    assert found.apart == ((0, 1), (5, 6, 8))
    assert found.log_evidence == creep.detect(newer).log_evidence
    assert [one.place for one in creep.levels(edges)] == [10, 11, 12, 13, 14, 15]
    assert [one.place for one in creep.levels(edges, reference=6)] == [5, 6, 8]


def test_no_edges_say_nothing() -> None:
    for edges in ([], [creep.Edge(0, 1, 0.5)]):
        found = creep.detect(edges)
        assert (found.creeps, found.chance, found.since, found.compare, found.apart) == (False, 1.0, None, None, ())
        assert math.isnan(found.estimate)
        assert creep.levels(edges) == ()
        assert creep.anchor_due(edges, 0)
    assert not creep.detect([edge(0, 1, 0.3)], [(0, 1)]).creeps


def test_one_edge_says_no_more_than_its_own_error_rate_allows() -> None:
    """However far off it is, of 200 commits: one experiment in a hundred is wrong."""
    for log in (0.05, 5.0):
        assert creep.detect([*chain(wobbling(200)), edge(0, 200, log)]).chance > 0.01


def test_an_anchor_is_due_once_the_chain_is_longer_than_it_is_good_for() -> None:
    edges = chain(wobbling(100, error=0.005), 0.005)
    due = [length for length in range(1, 101) if creep.anchor_due(edges[:length], 0)]
    assert due == list(range(due[0], 101))
    noise = creep.detect(edges[: due[0]]).noise
    assert math.sqrt(due[0] - 1) * 0.005 * noise <= math.log1p(0.02) * creep.SHARE * 1.1
    tied = [*edges[: due[0]], edge(0, due[0], 0.0, 0.005)]
    assert not creep.anchor_due(tied, 0)
    assert creep.anchor_due(edges[:3], 0, share=0.1)
    assert creep.anchor_due(edges[3:6], 0)  # nothing joins it
    assert not creep.anchor_due(edges, 100)


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (lambda: creep.Edge(2, 2, 0.0), "expected an older and a newer"),
        (lambda: creep.Edge(0, 1, -1.0), "above 0"),
        (lambda: creep.Edge(0, 1, math.inf), "finite"),
        (lambda: creep.Edge(0, 1, 0.0, 0.01, 0.02), "is not in"),
        (lambda: creep.Edge(0, 1, 0.0, confidence=1.0), "confidence"),
        (lambda: creep.detect([], [(3, 3)]), "known change from 3 to 3"),
        (lambda: creep.detect([], min_effect=0.0), "smallest effect"),
        (lambda: creep.detect([], run_length=1.0), "run length"),
        (lambda: creep.levels([], confidence=0.0), "confidence"),
        (lambda: creep.levels([edge(0, 1, 0.0)], reference=7), "commit 7: no edge"),
    ],
)
def test_what_makes_no_sense_is_told(faulty: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        faulty()  # type: ignore[operator]


graphs = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 4), st.floats(-0.03, 0.05), st.floats(0.001, 0.02)), min_size=1, max_size=30
)


@settings(max_examples=60)
@given(drawn=graphs, seed=st.integers(0, 1 << 30), known=st.booleans())
def test_neither_order_nor_names_nor_units_matter(drawn: list[tuple[int, int, float, float]], seed: int, known: bool) -> None:
    edges = [edge(older, older + far, log, error) for older, far, log, error in drawn]
    spans = [(4, 5)] if known else []
    found = creep.detect(edges, spans)
    rng = np.random.default_rng(seed)
    assert creep.detect([edges[at] for at in rng.permutation(len(edges))], spans) == found
    names = np.cumsum(rng.integers(1, 9, 20)).tolist()
    renamed = creep.detect(
        [creep.Edge(names[one.older], names[one.newer], one.estimate, one.low, one.high) for one in edges],
        [(names[older], names[newer]) for older, newer in spans],
    )
    assert (renamed.log_evidence, renamed.estimate, renamed.noise) == (found.log_evidence, found.estimate, found.noise)
    assert renamed.since == (found.since and (names[found.since[0]], names[found.since[1]]))
    scaled = [edge(older, older + far, 3 * log, 3 * error) for older, far, log, error in drawn]
    tripled = creep.detect(scaled, spans, min_effect=1.02**3 - 1)
    assert tripled.log_evidence == pytest.approx(found.log_evidence, abs=1e-6, nan_ok=True)
    grain = 0.1 * math.log((1 + tripled.high) / (1 + tripled.low)) + 1e-6
    assert math.log1p(tripled.estimate) == pytest.approx(3 * math.log1p(found.estimate), abs=grain, nan_ok=True)


@pytest.fixture(scope="module")
def drawn() -> dict[float, list[list[model.Decision]]]:
    """Experiments as the daemon decides them, by what is true of them and by tape."""
    return {effect: [experiments(path, effect) for path in sorted(NOISE.glob("*.jsonl"))] for effect in (0.0, 0.003)}


def experiments(path: Path, effect: float) -> list[model.Decision]:
    times = np.array([summary.of_process(json.loads(line)["us"]) for line in path.read_text().splitlines()])
    rng = np.random.default_rng(31)
    found = []
    for start in rng.integers(0, len(times), DRAWN):
        slots = times[(start + np.arange(2 * RULE.max_blocks)) % len(times)]
        first = rng.random(RULE.max_blocks) < 0.5
        early, late = slots[0::2], slots[1::2]
        orders = ["TC" if treatment else "CT" for treatment in first]
        treatment, control = np.where(first, early, late) * (1 + effect), np.where(first, late, early)
        found.append(verdict.decide(treatment, control, RULE, orders=orders))
    return found


def measured(rng: np.random.Generator, pool: list[model.Decision], older: int, newer: int, *, mirror: bool) -> creep.Edge:
    """One of them; where nothing changed its mirror image is as likely."""
    made = creep.Edge.of(older, newer, pool[rng.integers(len(pool))], RULE)
    if mirror and rng.random() < 0.5:
        ratios = (1 / (1 + one) - 1 for one in (made.estimate, made.high, made.low))
        return creep.Edge(older, newer, *ratios, made.confidence)
    return made


def first_alarm(edges: list[creep.Edge], commits: range) -> int | None:
    """The first of these commits after which it creeps."""
    for commit in commits:
        if creep.detect([one for one in edges if one.newer <= commit]).creeps:
            return commit
    return None


@pytest.mark.parametrize("anchored", [False, True])
def test_where_nothing_drifts_an_alarm_is_as_rare_as_is_promised(
    drawn: dict[float, list[list[model.Decision]]], anchored: bool
) -> None:
    """At most 500 in 10,000 histories of 500 commits: of 24, as many and three standard errors."""
    alarms, histories = 0, 24
    for seed in range(histories):
        rng, pool = np.random.default_rng(seed), drawn[0.0][seed % 4]
        edges = [measured(rng, pool, place, place + 1, mirror=True) for place in range(COMMITS)]
        if anchored:
            edges += [measured(rng, pool, 0, place, mirror=True) for place in range(LOOK, COMMITS + 1, LOOK)]
        alarms += first_alarm(edges, range(2 * LOOK, COMMITS + 1, 2 * LOOK)) is not None
    rate = COMMITS / 10_000
    assert alarms / histories <= rate + 3 * math.sqrt(rate * (1 - rate) / histories)


def test_a_drift_of_three_in_a_thousand_is_found_without_anchors_and_its_size_is_right(
    drawn: dict[float, list[list[model.Decision]]],
) -> None:
    """After 60 quiet commits: nine in ten of 24 histories within 100 more; then its estimate is right to a tenth, on average."""
    found, crept = 0, []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        edges = [measured(rng, drawn[0.0][seed % 4], place, place + 1, mirror=True) for place in range(60)]
        edges += [measured(rng, drawn[0.003][seed % 4], place, place + 1, mirror=False) for place in range(60, 160)]
        found += first_alarm(edges, range(60, 161, LOOK)) is not None
        crept.append(math.log1p(creep.detect(edges).estimate))
    assert found / 24 >= 0.9 - 3 * math.sqrt(0.9 * 0.1 / 24)
    assert np.mean(crept) == pytest.approx(100 * math.log1p(0.003), rel=0.1 + 3 * np.std(crept) / np.mean(crept) / math.sqrt(24))


def test_anchors_find_it_sooner(drawn: dict[float, list[list[model.Decision]]]) -> None:
    """The same drift, with an anchor every tenth commit, whose error is half of what is stated: in half as many commits."""
    alone, anchored = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        edges = [measured(rng, drawn[0.0][seed % 4], place, place + 1, mirror=True) for place in range(60)]
        edges += [measured(rng, drawn[0.003][seed % 4], place, place + 1, mirror=False) for place in range(60, 200)]
        crept = {place: max(place - 60, 0) * math.log1p(0.003) for place in range(10, 201, 10)}
        anchors = [edge(0, place, log + rng.normal(0, 0.004), 0.008) for place, log in crept.items()]
        alone.append(first_alarm(edges, range(60, 201, LOOK)) or 210)
        anchored.append(first_alarm(edges + anchors, range(60, 201, LOOK)) or 210)
    assert np.median(anchored) - 60 <= (np.median(alone) - 60) / 2
