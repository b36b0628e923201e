"""Device time goes to what can be decided: a benchmark that is too noisy for its budget does not hold up another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lab

# Each process has a luck of its own, as large as the argument says.
BENCH = """#!/bin/sh
exec awk -v seed="$(od -An -N3 -tu4 /dev/urandom)" -v noise="$1" 'BEGIN {
    srand(seed)
    luck = exp(noise * (rand() + rand() + rand() + rand() - 2))
    printf "PyTorchObserver {\\"type\\": \\"NET\\", \\"metric\\": \\"latency\\", \\"unit\\": \\"us\\", \\"values\\": ["
    for (i = 0; i < 8; i++) printf "%s%.3f", i ? ", " : "", 100 * luck * (1 + 0.001 * rand())
    print "]}"
}'
"""
BUDGET = 1000  # blocks, the most that may be asked for: they last longer than this looks; the hopeless one would need far more
OPEN = "FROM experiments JOIN pairs ON pairs.id = pair WHERE control_build IS NOT NULL AND identifier = "


async def test_a_hopeless_benchmark_does_not_starve_one_that_can_be_decided(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    specification = lab.specification("steady", "hopeless")
    for test, noise in zip(specification["tests"], ("0.01", "2"), strict=True):
        test["commands"] = [f"{{program}} {noise}"]
    made.write_specification("net.json", specification)
    rule = {"alpha": 0.01, "beta": 0.05, "max_blocks": BUDGET}
    made.configure(experiment=made.configuration["experiment"] | rule)
    made.commit("first", bench=BENCH)
    (chosen,) = made.configuration["repositories"]
    made.configure(repositories=[chosen | {"start_at": made.commits[0]}])
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'", [(2,)])
        await made.ctl("pause")
        for number, subject in enumerate(("second", "third"), 1):
            made.commit(subject, bench=f"{BENCH}# {subject}\n")
            await made.until(f"SELECT count(*) {OPEN} 'hopeless'", [(number,)])
        await made.ctl("resume")
        await made.until(f"SELECT count(*) {OPEN} 'steady' AND verdict IS NOT NULL", [(2,)], within=120)
        await made.ctl("pause")
        decided = f"(SELECT max(decided_at) {OPEN} 'steady')"
        by_then = f"(SELECT count(*) FROM blocks WHERE experiment = experiments.id AND finished_at <= {decided})"
        hopeless = made.rows(f"SELECT state, {by_then}, out_of_reach {OPEN} 'hopeless' ORDER BY experiments.id DESC")
        (state, blocks, out_of_reach), (_, of_older, _) = hopeless
        assert (state, out_of_reach) == ("open", 1)
        assert of_older <= blocks < BUDGET / 2
        (device,) = (await made.ctl("devices"))["devices"]
        assert device["left"]["experiments"] >= 1  # of a cell that is new, a few blocks say nothing yet
        assert device["left"]["blocks"] > BUDGET / 2
        shown = (await made.ctl("experiments", "--state", "open"))["experiments"]
        assert {one["benchmark"] for one in shown} == {"hopeless"}
        said = subprocess.run(
            [sys.executable, "-m", "aibenchd.api.client", "-s", made.socket, "experiments", "--state", "open"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert " left; its budget will hardly decide it, so that others go first" in said.stdout
