"""From a push to a verdict, and what people see of it on the way."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import lab
import pytest
import receiver

BROKEN = "#!/bin/sh\necho 'no such operator: conv9' >&2\nexit 3\n"
GARBAGE = '#!/bin/sh\necho \'PyTorchObserver {"type": "NET", oops\'\n'
UNBUILDABLE = "#!/bin/sh\necho 'undefined reference to conv9' >&2\nexit 1\n"
HANGS = "#!/bin/sh\nsleep 60 & wait\n"


def begin(made: lab.Lab, **repository: Any) -> None:
    """Watch from the first commit on."""
    (chosen,) = made.configuration["repositories"]
    made.configure(repositories=[chosen | {"start_at": made.commits[0]} | repository])


async def verdicts(made: lab.Lab, wanted: list[str | None]) -> None:
    """Wait until the experiments, in order of their revisions, have ended so."""
    query = "SELECT e.verdict FROM experiments e JOIN pairs p ON p.id = e.pair WHERE p.request IS NULL ORDER BY e.id"
    await made.until(query, [(verdict,) for verdict in wanted])


async def test_a_push_becomes_a_verdict_that_people_see(tmp_path: Path) -> None:
    async with receiver.Receiver().listening() as sink:
        made = lab.make(tmp_path, sink.url)
        made.commit("first")
        begin(made)
        async with made.daemon():
            await verdicts(made, ["measured"])
            slow = made.commit("slower", latency=150)
            await verdicts(made, ["measured", "regressed"])
            status = await made.ctl("status")
            assert status["verdicts"] == {"measured": 1, "regressed": 1}
            assert status["repositories"][0]["head"] == slow
            (newest, *_) = (await made.ctl("experiments"))["experiments"]
            shown = await made.ctl("show", str(newest["id"]))
            assert len(shown["blocks"]) == newest["block_count"] >= 8
            assert 0.45 < newest["estimate"] < 0.55
            assert [one["commit"] for one in (await made.ctl("revisions"))["revisions"]] == made.commits[::-1]
            assert await made.ctl("history", "net", "host")
            assert await made.ctl("coverage")
            await made.ctl("backup", str(tmp_path / "copy.db"))
            assert (tmp_path / "copy.db").stat().st_size > 0
            await made.until_delivered()
        records = [record for request in sink.requests for record in request.records]
        (verdict,) = [r for r in records if r["verdict"] == "regressed"]
        assert (verdict["commit"], verdict["control_commit"]) == (slow, made.commits[0])
        assert verdict["key"] == "NET latency"
        assert any(r["key"] == "PROCESS cpu_time" for r in records)


async def test_what_is_wrong_with_a_revision_is_said(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.commit("first")
    made.commit("broken", bench=BROKEN)
    made.commit("does not build", build=UNBUILDABLE)
    made.commit("garbage", bench=GARBAGE)
    begin(made, baseline={"rule": "pinned", "commit": made.commits[0]})
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE state IN ('decided', 'skipped')", [(4,)])
        made.configure(experiment=made.configuration["experiment"] | {"timeout": "1s"})  # of which the others need more, or less
        await made.ctl("reload")
        made.commit("hangs", bench=HANGS)
        await verdicts(made, ["measured", "broken", None, "broken", "broken"])
        reasons = dict(made.rows("SELECT p.treatment, e.reason FROM experiments e JOIN pairs p ON p.id = e.pair"))
        assert "exit code 3: no such operator: conv9" in reasons[made.commits[1]]
        assert reasons[made.commits[2]] == "the treatment does not build"
        assert "printed no sample" in reasons[made.commits[3]]
        assert "timed out after 1 s" in reasons[made.commits[4]]
        ((build,),) = made.rows("SELECT id FROM builds WHERE state = 'failed'")
        log = subprocess.run(
            [sys.executable, "-m", "aibenchd.api.client", "-s", made.socket, "log", "build", str(build)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "undefined reference to conv9" in log.stdout


async def test_a_control_that_does_not_build_is_replaced(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.commit("first")
    made.commit("does not build", build=UNBUILDABLE)
    made.commit("slower", latency=150)
    begin(made)
    async with made.daemon():
        await made.until(
            "SELECT verdict FROM experiments WHERE verdict IS NOT NULL ORDER BY verdict", [("measured",), ("regressed",)]
        )
        assert made.rows("SELECT p.control FROM pairs p JOIN experiments e ON e.pair = p.id WHERE e.verdict = 'regressed'") == [
            (made.commits[0],)
        ]


async def test_what_does_not_build_for_one_device_is_the_control_on_another(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    frameworks = tmp_path / "frameworks"
    for platform, refuses in (("host", ""), ("board", 'grep -q not-for-boards "$1/subject" && exit 1\n')):
        script = frameworks / "generic" / platform / "build.sh"
        script.parent.mkdir(parents=True)
        script.write_text(f'#!/bin/sh\n{refuses}exec "$1/build.sh" "$@"\n')
        script.chmod(0o755)
    host, board = ({"name": name, "kind": "local", "platform": name, "cpus": [cpu]} for cpu, name in enumerate(("host", "board")))
    made.configure(builds={"frameworks_directory": str(frameworks)}, devices=[host, board])
    made.commit("first")
    slower = made.commit("slower and not-for-boards", latency=150)
    mended = made.commit("builds everywhere", latency=150.01)
    begin(made)
    async with made.daemon():
        await made.until(
            "SELECT e.device, p.treatment, p.control, e.verdict FROM experiments e JOIN pairs p ON p.id = e.pair"
            " WHERE e.verdict IS NOT NULL ORDER BY e.device, e.id",
            [
                ("board", made.commits[0], None, "measured"),
                ("board", mended, made.commits[0], "regressed"),
                ("host", made.commits[0], None, "measured"),
                ("host", slower, made.commits[0], "regressed"),
                ("host", mended, slower, "unchanged"),
            ],
        )
        (first,) = made.rows("SELECT DISTINCT reason FROM experiments WHERE verdict = 'measured'")
        assert first == ("no control: nothing older on the branch has been measured",)


async def ab(made: lab.Lab, *arguments: str) -> int:
    command = [sys.executable, "-m", "aibenchd.api.client", "-s", str(made.socket), "ab", *arguments, "--wait"]
    return (await anyio.run_process(command, check=False)).returncode


async def test_ab_exits_with_the_verdict(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    old, fast = made.commit("first"), made.commit("faster", latency=60)
    made.commit("newest", latency=61)
    async with made.daemon():
        await made.ready()
        await made.until("SELECT count(*) FROM repositories")
        assert await ab(made, fast, old) == 0
        assert await ab(made, old[:12], fast[:12]) == 1
        assert await ab(made, "no-such-revision") == 3
        assert await ab(made, old, "--device", "nobody") == 3
        with pytest.raises(AssertionError, match="engine has no commit, tag or branch 'no-such-revision'"):
            await made.ctl("ab", "no-such-revision")
    assert await ab(made, fast, old) == 4


async def test_paused_and_drained_nothing_begins(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.commit("first")
    begin(made)
    async with made.daemon():
        await verdicts(made, ["measured"])
        await made.ctl("pause")
        status = await made.ctl("status")
        assert status["paused"]
        assert status["paused_by"]
        made.commit("slower", latency=150)
        await made.ctl("drain", "host")
        await made.ctl("resume")
        await made.until("SELECT count(*) FROM experiments WHERE state = 'open'")
        assert made.rows("SELECT count(*) FROM blocks WHERE experiment = 2") == [(0,)]
        await made.ctl("undrain", "host")
        await verdicts(made, ["measured", "regressed"])
        with pytest.raises(AssertionError, match="nobody"):
            await made.ctl("drain", "nobody")


async def test_what_outruns_the_backlog_is_coalesced(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.commit("first")
    for number in range(1, 7):
        made.commit(f"{number}", latency=100 + 20 * number)
    begin(made, backlog=2)
    async with made.daemon():
        await made.until("SELECT count(*), sum(state = 'new') FROM revisions", [(7, 0)])
        await made.until("SELECT count(*) FROM experiments WHERE state <> 'decided'", [(0,)])
        states = dict(made.rows('SELECT "commit", state FROM revisions'))
        assert states[made.commits[-1]] == "planned"
        assert sorted(states.values()).count("coalesced") == 5
        assert made.rows("SELECT verdict FROM experiments ORDER BY id DESC LIMIT 1") == [("regressed",)]


async def test_runs_are_as_far_apart_as_configured_and_the_newest_goes(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.commit("first")
    begin(made, min_run_interval="1h")
    async with made.daemon():
        await verdicts(made, ["measured"])
        made.commit("second", latency=120)
        made.commit("third", latency=140)
        await made.until("SELECT count(*) FROM revisions WHERE state = 'new'", [(2,)])
        begin(made, min_run_interval="1s")
        await made.ctl("reload")
        await verdicts(made, ["measured", "regressed"])
        assert made.rows("SELECT state FROM revisions ORDER BY position") == [("planned",), ("coalesced",), ("planned",)]
        assert made.rows("SELECT control FROM pairs ORDER BY id DESC LIMIT 1") == [(made.commits[0],)]


async def test_a_new_benchmark_is_measured_with_no_one_asking(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.commit("first")
    async with made.daemon():
        await verdicts(made, ["measured"])
        made.write_specification("more.json", lab.specification("more"))
        made.configure(benchmarks=[*made.configuration["benchmarks"], {"specification": "more.json"}])
        await made.ctl("reload")
        await made.until("SELECT identifier, verdict FROM experiments ORDER BY id", [("net", "measured"), ("more", "measured")])


@pytest.mark.parametrize("good", [True, False])
async def test_a_model_file_is_verified_before_it_runs(tmp_path: Path, good: bool) -> None:
    made = lab.make(tmp_path)
    weights = b"weights of a network" * 1_000
    (tmp_path / "net.bin").write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest() if good else "0" * 64
    specification = lab.specification("net")
    specification["model"]["files"] = {"weights": {"filename": "net.bin", "location": "net.bin", "sha256": digest}}
    specification["tests"][0]["commands"] = ["test $(basename {files.weights}) = net.bin && test -s {files.weights} && {program}"]
    made.write_specification("net.json", specification)
    made.commit("first")
    async with made.daemon():
        if good:
            await verdicts(made, ["measured"])
        else:
            await made.until("SELECT state FROM experiments", [("skipped",)])
            ((reason,),) = made.rows("SELECT reason FROM experiments")
            assert digest in reason
            assert hashlib.sha256(weights).hexdigest() in reason
            assert made.rows("SELECT count(*) FROM trials") == [(0,)]


async def test_a_mercurial_remote_goes_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    if shutil.which("hg") is None:
        pytest.skip("Mercurial (hg) is not installed")
    made = lab.make(tmp_path)
    remote = tmp_path / "remote"
    subprocess.run(["hg", "init", str(remote)], check=True)

    def commit(latency: float) -> None:
        for name, text in (("bench", lab.BENCH.format(latency=latency)), ("build.sh", lab.BUILD)):
            (remote / name).write_text(text)
            (remote / name).chmod(0o755)
        subprocess.run(["hg", "-R", str(remote), "commit", "-q", "-A", "-m", f"{latency}", "-u", "engine"], check=True)

    commit(100)
    (repository,) = made.configuration["repositories"]
    made.configure(repositories=[repository | {"kind": "hg", "branch": "default"}])
    async with made.daemon():
        await verdicts(made, ["measured"])
        commit(60)
        await verdicts(made, ["measured", "improved"])


@pytest.mark.parametrize("reproducible", [True, False])
async def test_programs_that_were_lost_are_built_again_and_must_be_the_same(tmp_path: Path, reproducible: bool) -> None:
    made = lab.make(tmp_path)
    stamp = "" if reproducible else 'date +%N >> "$2"\n'
    slow = lab.BENCH.replace("exec awk", "sleep 0.2; exec awk")
    made.commit("first", bench=slow.format(latency=100), build=lab.BUILD + stamp)
    made.commit("slower", bench=slow.format(latency=150), build=lab.BUILD + stamp)
    begin(made)
    async with made.daemon():
        await made.until("SELECT count(*) > 0 FROM blocks b JOIN experiments e ON e.id = b.experiment WHERE control_build > 0")
    shutil.rmtree(tmp_path / "state" / "builds")
    shutil.rmtree(tmp_path / "state" / "devices")
    async with made.daemon():
        ended = "SELECT state, verdict FROM experiments WHERE control_build > 0"
        if reproducible:
            await made.until(ended, [("decided", "regressed")])
        else:
            await made.until(ended, [("skipped", None)])
            ((reason,),) = made.rows("SELECT reason FROM experiments WHERE state = 'skipped'")
            assert "came out different" in reason


async def test_what_was_lost_of_a_platform_that_no_device_has_any_more_is_not_built_again(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    scripts = [tmp_path / f"frameworks/generic/{platform}/build.sh" for platform in ("host", "board")]
    for one in scripts:
        one.parent.mkdir(parents=True)
        one.write_text('#!/bin/sh\nexec "$1/build.sh" "$@"\n')
        one.chmod(0o755)
    host, board = ({"name": name, "kind": "local", "platform": name, "cpus": [cpu]} for cpu, name in enumerate(("host", "board")))
    made.configure(builds={"frameworks_directory": str(tmp_path / "frameworks")}, devices=[host, board])
    made.commit("first")
    begin(made)
    states = "SELECT platform, state FROM builds ORDER BY platform"
    async with made.daemon():
        await made.until(states, [("board", "built"), ("host", "built")])
    change(made.journal, "UPDATE experiments SET state = 'open', verdict = NULL")
    shutil.rmtree(tmp_path / "state" / "builds")
    made.configure(devices=[host])
    async with made.daemon():
        await made.until(states, [("board", "evicted"), ("host", "built")])
        made.configure(devices=[host, board])
        await made.ctl("reload")
        await made.until(states, [("board", "built"), ("host", "built")])


async def test_of_two_builds_the_one_that_was_lost_is_made_again(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.commit("first")
    begin(made)
    async with made.daemon():
        await verdicts(made, ["measured"])
        await made.ctl("drain", "host")  # nothing waits for it: no block is in flight, and what comes next is not pushed
        made.commit("slower", latency=150)
        await made.until("SELECT count(*) FROM experiments WHERE state = 'open'")
        before = dict(made.rows('SELECT "commit", started_at FROM builds'))
        ((lost,),) = made.rows(f"SELECT directory FROM builds WHERE \"commit\" = '{made.commits[1]}'")
        shutil.rmtree(lost)
        await made.ctl("undrain", "host")
        await verdicts(made, ["measured", "regressed"])
        after = dict(made.rows('SELECT "commit", started_at FROM builds'))
    assert [after[commit] > before[commit] for commit in made.commits] == [False, True]


async def test_a_planner_that_broke_is_shown_and_started_again(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.commit("first")
    async with made.daemon():
        await verdicts(made, ["measured"])
        change(made.journal, "ALTER TABLE requests RENAME TO mislaid")
        made.commit("slower", latency=150)
        with anyio.fail_after(lab.WAIT):
            while not (faults := [one for one in (await made.ctl("status"))["faults"] if one["unit"].startswith("planner")]):
                await anyio.sleep(0.05)
        assert "no such table: requests" in faults[0]["reason"]
        change(made.journal, "ALTER TABLE mislaid RENAME TO requests")
        await verdicts(made, ["measured", "regressed"])
        assert (await made.ctl("status"))["faults"] == []


def change(journal: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(journal, timeout=10, isolation_level=None)) as connection:
        connection.execute(statement)


async def test_a_sample_that_is_no_time_breaks_the_revision_and_not_the_device(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.commit("first")
    made.commit("zero", bench='#!/bin/sh\necho \'PyTorchObserver {"type": "NET", "metric": "latency", "value": 0}\'\n')
    begin(made)
    async with made.daemon():
        await verdicts(made, ["measured", "broken"])
        ((reason,),) = made.rows("SELECT reason FROM experiments WHERE verdict = 'broken'")
        assert "must be positive" in reason
        assert "service broke" not in made.log()


async def test_an_experiment_that_the_harness_cannot_run_holds_up_no_other(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    slow = lab.BENCH.replace("exec awk", "sleep 0.2; exec awk")
    for number in range(3):
        made.commit(f"{number}", bench=slow.format(latency=100 + 50 * number))
    begin(made)
    async with made.daemon():
        await made.until("SELECT count(*) > 0, (SELECT sum(state = 'built') FROM builds) FROM blocks", [(1, 3)])
    # What the newest pair's treatment is pushed from can no longer be read as a tree: a fault of this host, each time.
    newest = (
        f'SELECT b.directory FROM builds b JOIN revisions r ON r."commit" = b."commit" WHERE r."commit" = \'{made.commits[-1]}\''
    )
    ((directory,),) = made.rows(newest)
    program = next(path for path in Path(directory).iterdir() if path.is_file())
    program.chmod(0o644)
    program.write_bytes(b"other bytes than those of the digest")
    shutil.rmtree(tmp_path / "state" / "devices")
    async with made.daemon():
        await made.until("SELECT verdict FROM experiments ORDER BY id", [("measured",), ("regressed",), (None,)])
        assert "block could not be run" in made.log()
        faults = (await made.ctl("status"))["faults"]
        assert any(fault["unit"] == "device/host/blocks" for fault in faults)
        change(made.journal, "UPDATE experiments SET state = 'cancelled' WHERE verdict IS NULL")
        with anyio.fail_after(lab.WAIT):
            while (await made.ctl("status"))["faults"]:
                await anyio.sleep(0.05)
