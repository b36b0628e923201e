"""The daemon is killed at every named point of the journal's way, and at random moments; nothing is lost or done twice."""

from __future__ import annotations

import collections
import json
import random
import signal
from pathlib import Path

import anyio
import lab
import receiver

from aibenchd import crashpoints

COUNTS = (1, 2)  # a point kills when it is reached for the first time, and for the second
PUSHES = 10  # while a point is waited for
RANDOM_KILLS = 26
LATENCIES = (100.0, 140.0, 140.0, 90.0, 90.0, 126.0)  # of commits, in turn; each differs from the last by 40 % or not at all


def expected(before: float, after: float) -> str:
    if before == after:
        return "identical"
    return "regressed" if after > before else "improved"


class Pushing:
    """Pushes commits, and knows what each must be found to be."""

    def __init__(self, made: lab.Lab) -> None:
        self.lab = made
        self.verdicts: dict[str, str] = {}

    def push(self) -> None:
        number = len(self.lab.commits)
        latency = LATENCIES[number % len(LATENCIES)]
        before = LATENCIES[(number - 1) % len(LATENCIES)]
        commit = self.lab.commit(f"revision {number}", latency=latency)
        self.verdicts[commit] = expected(before, latency) if number else "measured"
        if not number:
            (repository,) = self.lab.configuration["repositories"]
            self.lab.configure(repositories=[repository | {"start_at": commit}])


async def test_fifty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    rng = random.Random(11)
    sink = receiver.Receiver()
    kills = 0
    async with sink.listening():
        made = lab.make(tmp_path, sink.url)
        pushing = Pushing(made)
        for count in COUNTS:
            for point in crashpoints.POINTS:
                pushing.push()
                await killed_at(made, f"{point}:{count}", pushing)
                kills += 1
        for _ in range(RANDOM_KILLS):
            if rng.random() < 0.3:
                pushing.push()
            await killed_after(made, rng.uniform(0.2, 1.8))
            kills += 1
        async with made.daemon() as process:
            await finished(made, pushing, sink)
        assert process.returncode == 0, made.log()[-4000:]
    assert kills >= 50
    compare(made, pushing, sink)


async def killed_at(made: lab.Lab, point: str, pushing: Pushing) -> None:
    """Run the daemon until the point kills it; more commits are pushed where it is not reached by those there are."""
    async with made.daemon(AIBENCHD_CRASH_AT=point) as process:
        for _ in range(PUSHES):
            with anyio.move_on_after(lab.WAIT / PUSHES):
                await process.wait()
                break
            pushing.push()
        assert process.returncode == -signal.SIGKILL, f"{point} was never reached; {made.log()[-4000:]}"


async def killed_after(made: lab.Lab, seconds: float) -> None:
    async with made.daemon() as process:
        await anyio.sleep(seconds)
        process.kill()
        await process.wait()


async def finished(made: lab.Lab, pushing: Pushing, sink: receiver.Receiver) -> None:
    """Wait until all is decided and delivered."""
    await made.until(
        "SELECT (SELECT count(*) FROM revisions WHERE state = 'planned'),"
        " (SELECT count(*) FROM experiments WHERE state IN ('waiting', 'open')), (SELECT count(*) FROM outbox)",
        [(len(pushing.verdicts), 0, 0)],
        within=4 * lab.WAIT,
    )


def compare(made: lab.Lab, pushing: Pushing, sink: receiver.Receiver) -> None:
    """The journal and what the receiver took, beside what there must be."""
    experiments = made.rows(
        "SELECT e.id, p.treatment, p.control, e.verdict, e.blocks FROM experiments e JOIN pairs p ON p.id = e.pair"
    )
    assert {treatment: verdict for _, treatment, _, verdict, _ in experiments} == pushing.verdicts
    assert len(experiments) == len(pushing.verdicts), "a pair was planned twice"
    for id_, _, _, verdict, blocks in experiments:
        assert made.rows(f"SELECT number FROM blocks WHERE experiment = {id_} ORDER BY number") == [(n,) for n in range(blocks)]
        arms = 1 if verdict == "measured" else 2
        assert made.rows(f"SELECT count(*) FROM trials WHERE experiment = {id_}") == [(arms * blocks,)]
        assert made.rows(
            f"SELECT count(*) FROM samples s JOIN trials t ON t.id = s.trial WHERE t.experiment = {id_} AND s.type = 'NET'"
        ) == [(arms * blocks,)]
        late = f"SELECT count(*) FROM blocks b JOIN experiments e ON e.id = b.experiment WHERE e.id = {id_}"
        assert made.rows(f"{late} AND b.finished_at > e.decided_at") == [(0,)], "a block after the verdict"
    check_records(experiments, sink)


def check_records(experiments: list[tuple[int, str, str | None, str, int]], sink: receiver.Receiver) -> None:
    texts: dict[str, set[str]] = collections.defaultdict(set)
    ids: dict[tuple[object, ...], set[str]] = collections.defaultdict(set)
    for request in sink.requests:
        for record in request.records:
            texts[record["id"]].add(json.dumps(record, sort_keys=True))
            ids[record["kind"], record["experiment"], record["block"], record["key"]].add(record["id"])
    assert all(len(found) == 1 for found in texts.values()), "one id, two contents"
    assert all(len(found) == 1 for found in ids.values()), "one record, two ids"
    network = {(kind, experiment, block) for kind, experiment, block, key in ids if key == "NET latency"}
    wanted = {("verdict", id_, None) for id_, *_ in experiments}
    wanted |= {("samples", id_, block) for id_, _, _, _, blocks in experiments for block in range(blocks)}
    assert network == wanted
