"""Which number of a process is decided on, from a cell's own history, and what its slow iterations show: the real daemon."""

from __future__ import annotations

import json
import signal
import statistics
from pathlib import Path
from typing import Any

import anyio
import lab
import pytest
import receiver

# 20 iterations with half a percent of noise each. The first {cold} take half as long again, every tenth {slow} times as long.
BENCH = """#!/bin/sh
exec awk -v seed="$(od -An -N3 -tu4 /dev/urandom)" 'BEGIN {{
    srand(seed)
    printf "PyTorchObserver {{\\"type\\": \\"NET\\", \\"metric\\": \\"latency\\", \\"unit\\": \\"us\\", \\"values\\": ["
    for (i = 0; i < 20; i++) {{
        t = {latency} * (1 + 0.01 * (rand() - 0.5))
        if (i < {cold}) t *= 1.5
        else if (i % 10 == 9) t *= {slow}
        printf "%s%.3f", i ? ", " : "", t
    }}
    print "]}}"
}}'
"""
SIMULATED = '#!/bin/sh\nset -e\n: > "$2"\ncp "$1/bench" "$(dirname "$2")/simulated.json"\n'
TWO_ARMS = "FROM experiments e JOIN pairs p ON p.id = e.pair WHERE e.control_build IS NOT NULL AND p.run_type = 'benchmark'"
COMMITS = 40  # that a history takes at the most


def begin(made: lab.Lab, **experiment: Any) -> None:
    """Watched from its first commit on, each against the one before it."""
    made.configure(experiment={"disturb_caches": False, "blocks": 2} | experiment)
    (chosen,) = made.configuration["repositories"]
    made.configure(repositories=[chosen | {"start_at": made.commits[0]}])


def bench(latency: float = 100.0, cold: int = 0, slow: float = 1.0) -> str:
    return BENCH.format(latency=latency, cold=cold, slow=slow)


async def measured(made: lab.Lab, commit: str) -> tuple[str, int, float]:
    """The verdict on a commit, its blocks, and up to which share of the iterations its number reaches."""
    columns = "e.verdict, e.blocks, json_extract(e.design, '$.summary.high')"
    query = f"SELECT count(*) {TWO_ARMS} AND p.treatment = '{commit}' AND e.state = 'decided'"
    await made.until(query, within=3 * lab.WAIT)
    (row,) = made.rows(f"SELECT {columns} {TWO_ARMS} AND p.treatment = '{commit}'")
    return row


async def test_a_steadier_number_is_chosen_from_history_and_stays_over_a_restart(tmp_path: Path) -> None:
    """Iterations with 5 % of noise each, in processes with next to none of their own: all are steadier than the fastest."""
    made = lab.make(tmp_path)
    made.configure(
        devices=[{"name": "dream", "kind": "simulated", "seed": 1, "program": {"samples": 20, "jitter": 0.05, "noise": 0.001}}]
    )

    def commit() -> str:
        return made.commit(
            f"commit {len(made.commits)}", bench=json.dumps({"latency": 1000 + len(made.commits) / 1e3}), build=SIMULATED
        )

    commit()
    begin(made)
    found: list[tuple[str, int, float]] = []
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        while not found or found[-1][2] < 1:
            assert len(found) < COMMITS
            found.append(await measured(made, commit()))
        while sum(high == 1 for _, _, high in found) < 5:
            found.append(await measured(made, commit()))
    before, after = ([blocks for _, blocks, high in found if (high == 1) is whole] for whole in (False, True))
    assert sum(before) >= 60  # it was not chosen at once
    assert statistics.mean(after) < 0.6 * statistics.mean(before)

    last = commit()
    async with made.daemon(AIBENCHD_CRASH_AT="block.after-commit") as process:
        with anyio.fail_after(lab.WAIT):
            await process.wait()
        assert process.returncode == -signal.SIGKILL
    frozen = made.rows(f"SELECT e.design, e.blocks {TWO_ARMS} AND p.treatment = '{last}'")
    assert frozen[0][1] == 1
    async with made.daemon():
        assert (await measured(made, last))[2] == 1
        ((number, design),) = made.rows(f"SELECT e.id, e.design {TWO_ARMS} AND p.treatment = '{last}'")
        shown = await made.ctl("show", str(number))
    assert design == frozen[0][0]
    assert json.loads(design)["summary"] == {"skip": 0, "low": 0.0, "high": 1.0, "guard": True}
    assert shown["decided_on"] == "mean of the whole of a process's iterations"
    blocks = made.rows(
        'SELECT s."values", b.treatment FROM samples s JOIN trials t ON t.id = s.trial'
        " JOIN blocks b ON b.experiment = t.experiment AND b.number = t.block"
        f" WHERE t.arm = 'treatment' AND b.experiment = {number} AND s.type = 'NET' AND s.metric = 'latency'"
    )
    assert len(blocks) >= 2
    for values, treatment in blocks:
        assert treatment == pytest.approx(statistics.fmean(json.loads(values)))


async def test_a_change_of_the_tail_alone_is_a_finding_with_its_commit(tmp_path: Path) -> None:
    async with receiver.Receiver().listening() as sink:
        made = lab.make(tmp_path, sink.url)
        made.commit("first", bench=bench())
        begin(made)
        made.configure(verify={"enabled": True, "profile": False})
        (chosen,) = made.configuration["repositories"]
        made.configure(repositories=[chosen | {"backlog": 1}])
        async with made.daemon():
            await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
            await made.ctl("pause")
            for number in range(1, 5):
                made.commit(f"commit {number}", bench=bench(slow=2.0 if number >= 3 else 1.0) + f"# {number}\n")
            await made.until("SELECT count(*) FROM revisions", [(5,)])
            await made.ctl("resume")
            await made.until("SELECT count(*) FROM findings WHERE state = 'open' AND search = 'found'", within=3 * lab.WAIT)
            (found,) = (await made.ctl("findings"))["findings"]
            suspect = await made.ctl("show", str(found["suspect"]))
            verified = await made.ctl("show", str(found["verify"]))
            await made.until_delivered()
        (culprit,) = found["culprits"]["culprits"]
        assert culprit["commits"] == [made.commits[3]]
        assert (suspect["verdict"], suspect["in_tail"]) == ("regressed", True)
        assert "slowest quarter is judged beside it" in suspect["decided_on"]
        assert suspect["reason"].startswith("in the tail: the slowest quarter of the iterations; apart from it unchanged")
        assert verified["decided_on"] == "mean of the slowest quarter of a process's iterations"
        assert (verified["verdict"], verified["in_tail"], verified["estimate"]) == ("regressed", True, found["estimate"])
        assert found["estimate"] == pytest.approx(0.4, abs=0.01)  # two of the slowest five take twice as long
        assert "in the tail" in found["reason"]
        designs = made.rows(
            "SELECT DISTINCT json_extract(design, '$.summary') FROM experiments e JOIN pairs p ON p.id = e.pair"
            " WHERE p.run_type IN ('verify', 'regress')"
        )
        assert [json.loads(design) for (design,) in designs] == [{"skip": 0, "low": 0.75, "high": 1.0, "guard": False}]
        records = [record for request in sink.requests for record in request.records if record["key"] == "NET latency"]
    said = {one["run_type"]: (one["in_tail"], one["summary"]["name"]) for one in records if one["verdict"] == "regressed"}
    assert said["benchmark"] == (True, "mean of the fastest eighth")
    assert said["verify"] == said["regress"] == (True, "mean of the slowest quarter")


async def test_a_warm_up_that_is_longer_than_its_specification_says_is_found_from_history(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.commit("first", bench=bench(cold=4))
    begin(made)
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        await made.ctl("calibrate", "host", "--blocks", "30")
        await made.until("SELECT json_extract(summary, '$.skip') FROM noises", [(4,)], within=2 * lab.WAIT)
        slower = made.commit("slower", bench=bench(latency=110, cold=4))
        assert (await measured(made, slower))[0] == "regressed"
        ((number,),) = made.rows(f"SELECT e.id {TWO_ARMS} AND p.treatment = '{slower}'")
        shown = await made.ctl("show", str(number))
    assert ", without the first 4" in shown["decided_on"]
    results = {f"{one['type']} {one['metric']}": one for one in shown["results"]}
    first, all_of_them = results["NET first_iteration"], results["NET latency"]
    assert first["treatment"]["p50"] == pytest.approx(165, rel=0.01)
    assert first["control"]["p50"] == pytest.approx(150, rel=0.01)
    assert all_of_them["treatment"]["p50"] == pytest.approx(110, rel=0.01)
