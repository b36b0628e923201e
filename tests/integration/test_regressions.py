"""From a suspicion to a finding with its culprit: the real daemon, real git, an engine of a few lines."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import lab
import pytest
import receiver

# Built as a copy, it is as quick as ever: what was slow was one build, not the revision.
QUICK_WHEN_BUILT_ANEW = '#!/bin/sh\nset -e\nsed "s/130/$([ "$AIBENCHD_COPY" = 0 ] && echo 130 || echo 100)/" "$1/bench" > "$2"\n'
UNBUILDABLE = "#!/bin/sh\nexit 1\n"
# Its second operator is what takes longer where the revision says so; what is in no operator stays as it is.
OPERATORS = """#!/bin/sh
exec awk -v seed="$(od -An -N3 -tu4 /dev/urandom)" 'function said(type, time) {{
    printf "PyTorchObserver {{\\"type\\": \\"%s\\", \\"metric\\": \\"latency\\", \\"unit\\": \\"us\\", ", type
    printf "\\"value\\": %.3f}}\\n", time
}}
BEGIN {{
    srand(seed)
    for (i = 0; i < 8; i++) {{
        conv = 40 * (1 + 0.01 * rand()); relu = {relu} * (1 + 0.01 * rand())
        said("ID_0_Conv", conv); said("ID_1_Relu", relu); said("NET", conv + relu + 5)
    }}
}}'
"""
BROKEN = "#!/bin/sh\necho 'no such operator: conv9' >&2\nexit 3\n"


def begin(directory: Path, sink: str = "", **sections: Any) -> lab.Lab:
    """A lab in which regressions are measured again; watched from its first commit on."""
    made = lab.make(directory, sink)
    made.configure(verify={"enabled": True, "profile": False}, **sections)
    made.commit("first")
    watch(made)
    return made


def watch(made: lab.Lab, **repository: Any) -> None:
    (chosen,) = made.configuration["repositories"]
    made.configure(repositories=[chosen | {"start_at": made.commits[0]} | repository])


async def finding(made: lab.Lab, **wanted: str) -> dict[str, Any]:
    """The only finding, once it is as it is wanted."""
    where = " AND ".join(f"{name} = '{value}'" for name, value in wanted.items())
    await made.until(f"SELECT count(*) FROM findings WHERE {where}")
    (found,) = (await made.ctl("findings"))["findings"]
    return dict(found)


async def test_a_regression_is_measured_again_before_it_is_one(tmp_path: Path) -> None:
    async with receiver.Receiver().listening() as sink:
        made = begin(tmp_path, sink.url)
        async with made.daemon():
            await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
            slower = made.commit("slower", latency=130)
            found = await finding(made, state="open", search="found")
            assert found["confirmed"]
            assert found["treatment"] == slower
            assert found["verify"] != found["suspect"]
            verified = await made.ctl("show", str(found["verify"]))
            assert (verified["run_type"], verified["verdict"]) == ("verify", "regressed")
            assert found["estimate"] == verified["estimate"]
            seeds = made.rows("SELECT DISTINCT json_extract(design, '$.seed') FROM experiments WHERE control_build IS NOT NULL")
            assert len(seeds) == 2  # coins of its own
            (culprit,) = found["culprits"]["culprits"]
            assert (culprit["commits"], culprit["probability"]) == ([slower], 1.0)
            status = await made.ctl("status")
            assert status["verdicts"] == {"measured": 1, "regressed": 1, "verified": 1}
            (newest, _) = (await made.ctl("revisions"))["revisions"]
            assert newest["experiments"] == {"regressed": 1}  # and not two
            await made.until_delivered()
        records = [record for request in sink.requests for record in request.records if record["key"] == "NET latency"]
        assert {one["run_type"]: one["regressed_types"] for one in records} == {
            "benchmark": [],
            "verify": [],
            "regress": ["NET latency"],
        }
        (confirmed,) = [one for one in records if one["run_type"] == "regress"]
        assert confirmed["experiment"] == found["verify"]
        assert confirmed["estimate"] == found["estimate"]
        assert len({one["id"] for one in records}) == len(records)


async def test_what_only_one_build_was_slow_by_is_refuted_by_fresh_ones(tmp_path: Path) -> None:
    made = begin(tmp_path)
    made.configure(verify={"enabled": True, "profile": False, "builds": "fresh"})
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        made.commit("laid out badly", latency=130, build=QUICK_WHEN_BUILT_ANEW)
        found = await finding(made, state="refuted")
        assert not found["confirmed"]
        assert found["reason"].startswith("measured again: unchanged")
        assert made.rows("SELECT count(*) FROM builds WHERE copy = 1 AND state = 'built'") == [(2,)]
        assert made.rows("SELECT count(*) FROM pairs WHERE run_type = 'regress'") == [(0,)]


async def test_a_revision_that_breaks_the_program_is_a_finding(tmp_path: Path) -> None:
    made = begin(tmp_path)
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        broken = made.commit("broken", bench=BROKEN)
        found = await finding(made, state="open", search="found")
        assert (found["verdict"], found["treatment"]) == ("broken", broken)
        assert "no such operator: conv9" in found["reason"]
        assert found["culprits"]["culprits"][0]["commits"] == [broken]


async def test_a_later_sighting_joins_the_finding(tmp_path: Path) -> None:
    made = begin(tmp_path)
    watch(made, baseline={"rule": "pinned", "commit": made.commits[0]})
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        made.commit("slower", latency=130)
        await finding(made, state="open")
        made.commit("as slow", latency=130)
        await made.until("SELECT count(*) FROM sightings")
        (found,) = (await made.ctl("findings"))["findings"]
        assert found["sightings"] == 1
        made.commit("slower still", latency=180)
        await made.until("SELECT state FROM findings ORDER BY id", [("open",), ("open",)])


async def test_a_daemon_that_is_killed_in_a_search_goes_on_with_it(tmp_path: Path) -> None:
    made = begin(tmp_path)
    watch(made, backlog=1, baseline={"rule": "pinned", "commit": made.commits[0]})
    for number in range(1, 7):
        made.commit(f"commit {number}", latency=100 if number < 4 else 108)
    for _ in range(2):
        async with made.daemon(AIBENCHD_CRASH_AT="search.before-commit") as process:
            with anyio.fail_after(lab.WAIT):
                await process.wait()
            assert process.returncode == -signal.SIGKILL
    async with made.daemon():
        found = await finding(made, state="open", search="found")
    (named,) = found["culprits"]["culprits"]
    assert named["commits"] == [made.commits[4]]
    pairs = made.rows("SELECT treatment, control FROM pairs WHERE run_type = 'regress'")
    assert len(set(pairs)) == len(pairs)  # each asked for once


@pytest.mark.parametrize("culprit", [2, 9])
async def test_the_commit_at_fault_is_found_among_many(tmp_path: Path, culprit: int) -> None:
    made = begin(tmp_path)
    watch(made, backlog=1)
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        await made.ctl("pause")
        for number in range(1, 13):
            build = UNBUILDABLE if number == 6 else lab.BUILD
            made.commit(f"commit {number}", latency=100 if number < culprit else 106, build=build)
        await made.until("SELECT count(*) FROM revisions", [(13,)])
        await made.ctl("resume")
        found = await finding(made, state="open", search="found")
    (named,) = found["culprits"]["culprits"]
    assert named["commits"] == [made.commits[culprit]]
    assert named["probability"] > 0.9
    assert 0.03 < named["effect"] < 0.09
    newer, older = (made.commits.index(found[arm]) for arm in ("treatment", "control"))
    assert older < culprit <= newer
    assert found["culprits"]["commits"] == newer - older
    left = made.rows(
        "SELECT count(*) FROM experiments e JOIN pairs p ON p.id = e.pair"
        " WHERE run_type = 'regress' AND state IN ('open', 'waiting')"
    )
    assert left == [(0,)]


async def test_the_commit_that_broke_the_program_is_found_among_many(tmp_path: Path) -> None:
    made = begin(tmp_path)
    watch(made, backlog=1)
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        await made.ctl("pause")
        for number in range(1, 10):
            build = UNBUILDABLE if number == 4 else lab.BUILD
            made.commit(f"commit {number}", bench=BROKEN if number >= 6 else "", build=build)
        await made.until("SELECT count(*) FROM revisions", [(10,)])
        await made.ctl("resume")
        found = await finding(made, state="open", search="found")
    (named,) = found["culprits"]["culprits"]
    assert named["commits"] == [made.commits[6]]


async def test_each_benchmark_names_its_own_culprit(tmp_path: Path) -> None:
    """Two of three became slower by one commit, the third by another: each says so by blocks of its own."""
    made = begin(tmp_path)
    tests = lab.specification("one", "same", "other")
    for test in tests["tests"]:
        test["commands"] = [f"{{program}} {test['identifier']}"]
    made.write_specification("net.json", tests)
    watch(made, backlog=1, baseline={"rule": "pinned", "commit": made.commits[0]})
    culprits = {"one": 3, "same": 3, "other": 5}
    for number in range(1, 8):
        cases = (f"{name}) t={108 if number >= at else 100};;" for name, at in culprits.items())
        prelude = f'#!/bin/sh\ncase "$1" in {" ".join(cases)} esac\n'
        body = lab.BENCH.format(latency="t").removeprefix("#!/bin/sh\n").replace("-v seed", '-v t="$t" -v seed')
        made.commit(f"commit {number}", bench=prelude + body)
    async with made.daemon():
        await made.until("SELECT count(*) FROM findings WHERE search = 'found'", [(3,)], within=3 * lab.WAIT)
        found = {one["benchmark"]: one for one in (await made.ctl("findings"))["findings"]}
    for name, at in culprits.items():
        (culprit,) = found[name]["culprits"]["culprits"]
        assert culprit["commits"] == [made.commits[at]], name
    asked = made.rows(
        "SELECT count(DISTINCT finding) FROM experiments e JOIN pairs p ON p.id = e.pair WHERE run_type = 'regress'"
    )
    assert asked == [(3,)]


async def test_a_finding_names_the_operator_that_became_slower(tmp_path: Path) -> None:
    made = begin(tmp_path)
    made.commit("with operators", bench=OPERATORS.format(relu=20))
    watch(made, start_at=made.commits[1])
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE state = 'decided'")
        made.commit("a slower Relu", bench=OPERATORS.format(relu=30))
        found = await finding(made, state="open", search="found")
        whole = await made.ctl("finding", str(found["id"]))
        explained = whole["explained"]
        first, *_ = explained["operators"]
        assert (first["name"], first["status"]) == ("ID_1_Relu", "changed")
        assert first["change"] == pytest.approx(10, rel=0.05)
        assert first["share"] == pytest.approx(1, abs=0.1)
        assert sum(one["change"] for one in explained["operators"]) + explained["rest"]["change"] == pytest.approx(
            explained["network"]["change"]
        )
        client = [sys.executable, "-m", "aibenchd.api.client", "-s", str(made.socket)]
        said = (await anyio.run_process([*client, "finding", str(found["id"])])).stdout.decode()
        assert re.search(r"^ID_1_Relu +changed +\+(9\.\d+|10(\.\d+)?) us", said, re.MULTILINE)
        with anyio.fail_after(lab.WAIT):
            watched = await anyio.run_process([*client, "finding", str(found["id"]), "--watch"], check=False)
        last = watched.stdout.decode().splitlines()[-1]
        assert last.startswith(f"nothing more is to come of finding {found['id']}: confirmed, it stands; its ")
        assert (watched.returncode, watched.stderr) == (1, b"")


async def test_a_drift_that_no_commit_shows_is_found_and_confirmed(tmp_path: Path) -> None:
    made = begin(tmp_path)
    made.configure(creep={"enabled": True, "run_length": 50})
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        for number in range(1, 16):
            made.commit(f"commit {number}", latency=100 * 1.004**number)
            await made.until(f"SELECT count(*) >= {number} FROM experiments WHERE verdict = 'unchanged'")
            if made.rows("SELECT 1 FROM pairs WHERE run_type = 'anchor'"):
                break
        found = await finding(made, state="open")
        newer, older = (made.commits.index(found[arm]) for arm in ("treatment", "control"))
        assert len(made.commits) - newer <= 3
        assert newer - older >= 4
        assert 0.02 < found["estimate"] < 0.08
    regressed = made.rows("SELECT p.run_type FROM experiments e JOIN pairs p ON p.id = e.pair WHERE verdict = 'regressed'")
    assert {run_type for (run_type,) in regressed} == {"anchor", "verify"}
