"""The daemon is killed at every named point of the journal's way, and at random moments; nothing is lost or done twice."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import lab
import receiver

from aibenchd import crashpoints

COUNTS = (1, 3)  # a point kills when it is reached for the first time, and for the third
PUSHES = 10  # while a point is waited for
RANDOM_KILLS = 26
UNBUILDABLE = "#!/bin/sh\nexit 1\n"
LATENCIES = (100.0, 140.0, 140.0, 140.01, None, 90.0)  # of commits, in turn; None: it does not build
# So few blocks are enough to be sure that there is no change, that no alarm can come of them: the verdicts are certain.
EXPERIMENT = {"alpha": 0.0001, "beta": 0.02, "min_effect": 0.02, "disturb_caches": False, "blocks": 2}
LEFTOVERS = (
    "build/slot-*/*",
    "builds/.incoming/*",
    "repositories/*/trees/*",
    "repositories/*/mirror.git/worktrees/*",
    "devices/*/programs/.incoming/*",
    "host/*",
)


def small_lab(directory: Path, sink: str) -> lab.Lab:
    """Two devices where there are two CPUs; one benchmark runs on all of them, the other on the first."""
    made = lab.make(directory, sink)
    made.write_specification("more.json", lab.specification("more"))
    devices = [{"name": f"cpu{cpu}", "kind": "local", "cpus": [cpu]} for cpu in sorted(os.sched_getaffinity(0))[:2]]
    (repository,) = made.configuration["repositories"]
    made.configure(
        experiment=EXPERIMENT,
        verify={"enabled": True, "profile": False},
        devices=devices,
        benchmarks=[{"specification": "net.json"}, {"specification": "more.json", "devices": {"names": [devices[0]["name"]]}}],
        repositories=[repository | {"backlog": 500}],
    )
    return made


class Experiment(NamedTuple):
    """A row of the journal."""

    id: int
    treatment: str
    control: str | None
    benchmark: str
    device: str
    backend: str
    state: str
    verdict: str | None
    reason: str
    blocks: int
    run_type: str

    @property
    def cell(self) -> tuple[str, str, str]:
        return self.benchmark, self.device, self.backend


@dataclass
class Ideal:
    """Pushes commits, and knows what each must be found to be."""

    lab: lab.Lab

    def push(self) -> None:
        number = len(self.lab.commits)
        latency = LATENCIES[number % len(LATENCIES)]
        if latency is None:
            self.lab.commit(f"revision {number}", build=UNBUILDABLE)
        else:
            self.lab.commit(f"revision {number}", latency=latency)
        if not number:
            (repository,) = self.lab.configuration["repositories"]
            self.lab.configure(repositories=[repository | {"start_at": self.lab.commits[0]}])

    @property
    def cells(self) -> set[tuple[str, str, str]]:
        names = [device["name"] for device in self.lab.configuration["devices"]]
        return {("net", name, "") for name in names} | {("more", names[0], "")}

    def latency(self, commit: str) -> float | None:
        return LATENCIES[self.lab.commits.index(commit) % len(LATENCIES)]

    def control(self, treatment: str) -> str | None:
        """The newest commit before that builds."""
        before = self.lab.commits[: self.lab.commits.index(treatment)]
        return next((commit for commit in reversed(before) if self.latency(commit) is not None), None)

    def verdict(self, treatment: str) -> str:
        after, control = self.latency(treatment), self.control(treatment)
        if after is None:
            return "the treatment does not build"
        if control is None:
            return "measured"
        ratio = after / (self.latency(control) or after)
        if abs(ratio - 1) < 0.001:
            return "identical" if ratio == 1 else "unchanged"
        return "regressed" if ratio > 1 else "improved"


async def test_fifty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    rng = random.Random(11)
    killed: collections.Counter[str] = collections.Counter()
    async with receiver.Receiver().listening() as sink:
        made = small_lab(tmp_path, sink.url)
        ideal = Ideal(made)
        for count in COUNTS:
            for point in crashpoints.POINTS:
                ideal.push()
                await killed_at(made, f"{point}:{count}", ideal)
                killed[point] += 1
        for _ in range(RANDOM_KILLS):
            if rng.random() < 0.3:
                ideal.push()
            await killed_after(made, rng.uniform(0.2, 1.8))
            killed["random"] += 1
        async with made.daemon() as process:
            await finished(made)
        assert process.returncode == 0, made.log()[-4000:]
        await made.until_alone()
    assert killed.total() >= 50
    assert killed.keys() >= set(crashpoints.POINTS)
    every = [Experiment(*row) for row in made.rows(
        "SELECT e.id, p.treatment, p.control, identifier, device, backend, state, verdict, e.reason, e.blocks, p.run_type"
        " FROM experiments e JOIN pairs p ON p.id = e.pair"
    )]  # fmt: skip
    found = [one for one in every if one.run_type == "benchmark"]
    check_experiments(found, ideal)
    check_findings(found, every, made)
    check_blocks(every, made)
    check_records(made, sink.requests)
    check_leftovers(tmp_path / "state")


async def killed_at(made: lab.Lab, point: str, ideal: Ideal) -> None:
    """Run the daemon until the point kills it; more commits are pushed where it is not reached by those there are."""
    async with made.daemon(AIBENCHD_CRASH_AT=point) as process:
        for _ in range(PUSHES):
            with anyio.move_on_after(2 * lab.WAIT / PUSHES):
                await process.wait()
                break
            ideal.push()
        assert process.returncode == -signal.SIGKILL, f"{point} was never reached; {made.log()[-4000:]}"


async def killed_after(made: lab.Lab, seconds: float) -> None:
    async with made.daemon() as process:
        await anyio.sleep(seconds)
        assert process.returncode is None, made.log()[-4000:]
        process.kill()
        assert await process.wait() == -signal.SIGKILL


# Regressions whose commit is not named yet, with how far that is.
UNNAMED = (
    "(SELECT group_concat(e.id || ': ' || coalesce(f.state || ' ' || f.search, 'no finding'), ', ')"
    " FROM experiments e JOIN pairs p ON p.id = e.pair LEFT JOIN findings f ON f.suspect = e.id"
    " WHERE e.verdict = 'regressed' AND p.run_type = 'benchmark' AND coalesce(f.search, '') <> 'found')"
)


async def finished(made: lab.Lab) -> None:
    """Wait until all is decided and delivered."""
    await made.until(
        "SELECT (SELECT count(*) FROM revisions WHERE state = 'planned'),"
        " (SELECT count(*) FROM experiments WHERE state IN ('waiting', 'open')), (SELECT count(*) FROM outbox),"
        f" {UNNAMED}",
        [(len(made.commits), 0, 0, None)],
        within=4 * lab.WAIT,  # of silence: sooner than it would look again by itself, so that a bell that was not heard is seen
    )


def check_experiments(found: Sequence[Experiment], ideal: Ideal) -> None:
    """Each pair once in each cell, with the verdict that it was made for."""
    assert_once((one.treatment, one.control, *one.cell) for one in found)
    replaced = [one for one in found if one.reason == "the control does not build"]
    assert all(one.control and ideal.latency(one.control) is None for one in replaced)
    final = [one for one in found if one not in replaced]
    assert {(one.treatment, one.cell): one.verdict or one.reason for one in final} == {
        (commit, cell): ideal.verdict(commit) for commit in ideal.lab.commits for cell in ideal.cells
    }
    assert_once((one.treatment, *one.cell) for one in final)
    assert [one for one in final if one.verdict and one.control != ideal.control(one.treatment)] == []
    assert [one for one in found if one.state != ("decided" if one.verdict else "skipped")] == []


def check_findings(found: Iterable[Experiment], every: Sequence[Experiment], made: lab.Lab) -> None:
    """What regressed is measured again once, confirmed once, and its commit named."""
    regressed = {one.id: one for one in found if one.verdict == "regressed"}
    rows = made.rows(
        "SELECT f.suspect, f.state, e.id, json_extract(f.culprits, '$.culprits[0].commits[0]')"
        " FROM findings f JOIN experiments e ON e.finding = f.id"
    )
    assert_once((suspect,) for suspect, *_ in rows)
    assert {suspect: (state, culprit) for suspect, state, _, culprit in rows} == {
        id_: ("open", one.treatment) for id_, one in regressed.items()
    }
    verifying = {one.id: one for one in every if one.run_type == "verify"}
    assert sorted(verifying) == sorted(verify for _, _, verify, _ in rows)
    assert {one.verdict for one in verifying.values()} == {"regressed"}
    assert {one.run_type for one in every} <= {"benchmark", "verify", "anchor"}
    # What improved after a finding is compared with what was before it.
    assert_once((one.treatment, one.control, one.benchmark, one.device) for one in every if one.run_type == "anchor")


def check_blocks(found: Iterable[Experiment], made: lab.Lab) -> None:
    """Blocks are numbered without a gap, each is whole, and none is later than the verdict."""
    numbers = collections.defaultdict(list)
    for experiment, number in made.rows("SELECT experiment, number FROM blocks ORDER BY experiment, number"):
        numbers[experiment].append(number)
    for one in found:
        assert numbers.pop(one.id, []) == list(range(one.blocks)), one
        assert (one.blocks > 0) == (one.verdict not in (None, "identical")), one
    assert not numbers
    trials = "SELECT experiment, block, group_concat(arm) FROM (SELECT * FROM trials ORDER BY id) GROUP BY experiment, block"
    ran = {
        (experiment, block): "".join(arm[0] for arm in arms.split(",")).upper() for experiment, block, arms in made.rows(trials)
    }
    assert ran == {(e, number): order for e, number, order in made.rows('SELECT experiment, number, "order" FROM blocks')}
    assert made.rows(
        "SELECT t.id FROM trials t LEFT JOIN samples s ON s.trial = t.id AND s.type = 'NET'"
        " WHERE t.outcome <> 'ok' OR s.\"values\" IS NULL OR json_array_length(s.\"values\") <> 8"
    ) == []  # fmt: skip
    assert (
        made.rows("SELECT e.id FROM experiments e JOIN blocks b ON b.experiment = e.id WHERE b.finished_at > e.decided_at") == []
    )


def check_records(made: lab.Lab, requests: Iterable[receiver.Request]) -> None:
    """What was received is what there must be, under one id each, with one content."""
    texts: dict[str, set[str]] = collections.defaultdict(set)
    ids: dict[tuple[Any, ...], set[str]] = collections.defaultdict(set)
    for record in (record for request in requests for record in request.records):
        texts[record["id"]].add(json.dumps(record, sort_keys=True))
        confirmed = record["run_type"] == "regress"
        ids[record["kind"], record["experiment"], record["block"], record["key"], confirmed].add(record["id"])
    assert [id_ for id_, contents in texts.items() if len(contents) > 1] == [], "one id, two contents"
    assert [what for what, of in ids.items() if len(of) > 1] == [], "one record, two ids"
    samples = made.rows(
        "SELECT DISTINCT 'samples', t.experiment, t.block, s.type || ' ' || s.metric, 0 FROM trials t"
        " JOIN samples s ON s.trial = t.id JOIN blocks b ON b.experiment = t.experiment AND b.number = t.block WHERE b.valid"
    )
    verdicts = made.rows("SELECT 'verdict', experiment, NULL, type || ' ' || metric, 0 FROM results")
    identical = made.rows("SELECT 'verdict', id, NULL, 'NET latency', 0 FROM experiments WHERE verdict = 'identical'")
    confirmations = made.rows("SELECT 'verdict', id, NULL, 'NET latency', 1 FROM experiments WHERE finding IS NOT NULL")
    assert ids.keys() == {*samples, *verdicts, *identical, *confirmations}
    assert {experiment for _, experiment, *_ in (*verdicts, *identical)} == {
        id_ for (id_,) in made.rows("SELECT id FROM experiments WHERE state = 'decided'")
    }


def check_leftovers(state: Path) -> None:
    """No work tree, nothing half built or half copied, no directory of an experiment."""
    left = [path for pattern in LEFTOVERS for path in state.glob(pattern)]
    assert left == []


def assert_once(keys: Iterable[tuple[Any, ...]]) -> None:
    assert [key for key, count in collections.Counter(keys).items() if count > 1] == []
