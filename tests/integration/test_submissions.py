"""Programs built at a desk: sent to a real daemon through its socket and through a real sshd, measured, watched, cancelled."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import lab
import pytest
import sshd

CLIENT = [sys.executable, "-m", "aibenchd.api.client"]
USER = pwd.getpwuid(os.geteuid()).pw_name
NO_EXPERIMENT = "SELECT count(*) FROM experiments"


@pytest.fixture
async def desk(tmp_path: Path) -> Path:
    """Where a person works: a specification with an input of its own, and programs."""
    directory = tmp_path / "desk"
    directory.mkdir()
    (directory / "input.txt").write_text("seven")
    files = {"words": {"filename": "input.txt", "location": "data/input.txt"}}
    test = {"identifier": "mine", "metric": "delay", "iter": 1, "commands": ["{program} {files.words}"]}
    (directory / "data").mkdir()
    (directory / "input.txt").rename(directory / "data" / "input.txt")
    model = {"name": "mynet", "format": "generic", "files": files}
    (directory / "mine.json").write_text(json.dumps({"model": model, "tests": [test]}))
    program(directory / "fast", 100.0)
    program(directory / "slow", 110.0)
    return directory


def program(path: Path, latency: float, before: str = "") -> Path:
    """A program that takes so long, and fails where its input is not what was sent."""
    text = lab.BENCH.format(latency=latency)
    checks = 'if [ $# -gt 0 ]; then [ "$(cat "$1")" = seven ] || exit 3; fi\n'
    path.write_text(text.replace("#!/bin/sh\n", f"#!/bin/sh\n{before}{checks}", 1))
    path.chmod(0o755)
    return path


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[lab.Lab]:
    """A daemon that watches nothing."""
    made = lab.make(tmp_path)
    made.configure(repositories=[], benchmarks=[])
    async with made.daemon():
        await made.ready()
        yield made
    assert "Traceback" not in made.log()


async def ask(where: lab.Lab, *words: str | Path, cwd: Path | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``aibenchctl WORDS``."""
    argv = [*CLIENT, "-s", str(where.socket), *map(str, words)]
    told = await anyio.run_process(argv, check=False, cwd=cwd)
    return told.returncode, told.stdout.decode(), told.stderr.decode()


async def submitted(where: lab.Lab, desk: Path, *words: str) -> int:
    """The number of a request that was sent and not waited for."""
    code, out, complaint = await ask(where, "submit", "mine.json", *words, "--json", cwd=desk)
    assert code == 0, complaint
    return int(json.loads(out)["request"])


async def test_two_programs_are_measured_against_each_other_and_the_slow_one_is_told(running: lab.Lab, desk: Path) -> None:
    words = ("submit", "mine.json", "--treatment", "slow", "--control", "fast", "--note", "is my change slow?", "--wait")
    code, out, complaint = await ask(running, *words, cwd=desk)
    assert code == 1, complaint
    assert "regressed" in out
    answer = await running.ctl("request", "1")
    assert answer["names"] == {"treatment": "slow", "control": "fast"}
    assert (answer["note"], answer["requested_by"]) == ("is my change slow?", USER)
    (experiment,) = answer["experiments"]
    assert (experiment["run_type"], experiment["repository"], experiment["benchmark"]) == ("submission", "submitted", "mine")
    assert 0.08 < experiment["estimate"] < 0.12
    # Nothing follows from it, and nothing is kept of it where commits are.
    assert running.rows("SELECT count(*) FROM findings") == [(0,)]
    assert running.rows("SELECT count(*) FROM cells") == [(0,)]
    assert running.rows("SELECT count(*) FROM standings") == [(0,)]
    assert (await running.ctl("revisions"))["revisions"] == []
    code, out, _ = await ask(running, "request", "1")
    assert code == 0
    assert "slow" in out
    assert "is my change slow?" in out
    # The other way round it is faster, and nothing is sent a second time.
    before = sorted((running.directory / "state" / "submissions" / ".content" / "sha256").iterdir())
    code, out, _ = await ask(running, "submit", "mine.json", "--treatment", "fast", "--control", "slow", "--wait", cwd=desk)
    assert code == 0
    assert "improved" in out
    assert sorted((running.directory / "state" / "submissions" / ".content" / "sha256").iterdir()) == before


async def test_what_is_odd_in_a_specification_is_told_to_who_sends_it(running: lab.Lab, desk: Path) -> None:
    written = json.loads((desk / "mine.json").read_text())
    (test,) = written["tests"]
    test["itter"], test["commands"] = 5, [f"{test['commands'][0]} {{itr}}"]
    (desk / "mine.json").write_text(json.dumps(written))
    code, out, told = await ask(running, "submit", "mine.json", "--treatment", "fast", cwd=desk)
    assert code == 0, told
    key, name = sorted(told.splitlines(), key=lambda line: "{itr}" in line)
    assert key.startswith("warning: mine.json:1:")
    assert "did you mean 'iter'?" in key
    assert name.startswith("warning: mine.json:1:")
    assert "did you mean {iter}?" in name
    assert "warning" not in out
    code, out, _ = await ask(running, "submit", "mine.json", "--treatment", "fast", "--json", cwd=desk)
    assert (code, len(json.loads(out)["warnings"])) == (0, 2)


async def test_one_program_is_measured_as_it_is(running: lab.Lab, desk: Path) -> None:
    code, out, complaint = await ask(running, "submit", "mine.json", "--treatment", "fast", "--blocks", "4", "--wait", cwd=desk)
    assert code == 0, complaint
    assert "measured" in out
    assert "latency" in out
    (experiment,) = (await running.ctl("request", "1"))["experiments"]
    assert (experiment["verdict"], experiment["block_count"], experiment["control"]) == ("measured", 4, None)
    assert experiment["results"][0]["treatment"]["p50"] == pytest.approx(100.0, rel=0.02)
    code, _, _ = await ask(running, "watch", "1")
    assert code == 0


async def test_equal_programs_are_identical_without_a_trial(running: lab.Lab, desk: Path) -> None:
    code, out, _ = await ask(running, "submit", "mine.json", "--treatment", "fast", "--control", "fast", "--wait", cwd=desk)
    assert code == 0
    assert "identical" in out
    assert running.rows("SELECT count(*) FROM blocks") == [(0,)]


async def test_a_program_may_be_a_directory(running: lab.Lab, desk: Path) -> None:
    build = desk / "build"
    (build / "lib").mkdir(parents=True)
    (build / "lib" / "helper.sh").write_text("exit_code=0\n")
    (build / "lib64").symlink_to("lib")
    before = 'here="$(dirname "$(readlink -f "$0")")"; . "$here/lib64/helper.sh" || exit 4\n'
    program(build / "engine", 100.0, before)
    code, out, complaint = await ask(running, "submit", "mine.json", "--treatment", "build", "--wait", cwd=desk)
    assert code == 0, complaint + running.log()[-2000:]
    assert "measured" in out
    (build / "another").write_text("#!/bin/sh\n")
    (build / "another").chmod(0o755)
    code, _, complaint = await ask(running, "submit", "mine.json", "--treatment", "build", cwd=desk)
    assert code == 3
    assert "build: has several executables (another, engine); name the program in it" in complaint


async def test_a_program_may_have_a_name_that_is_no_text(running: lab.Lab, desk: Path) -> None:
    build = desk / "build"
    build.mkdir()
    program(build / os.fsdecode(b"-engine\xff"), 100.0)
    code, out, complaint = await ask(running, "submit", "mine.json", "--treatment", "build", "--wait", cwd=desk)
    assert (code, "measured" in out) == (0, True), complaint + running.log()[-2000:]
    program(build / os.fsdecode(b"other\xff"), 100.0)
    code, _, complaint = await ask(running, "submit", "mine.json", "--treatment", "build", cwd=desk)
    assert (code, "build: has several executables" in complaint) == (3, True), complaint


async def test_a_daemon_that_is_restarted_in_the_middle_goes_on(tmp_path: Path, desk: Path) -> None:
    where = lab.make(tmp_path)
    where.configure(repositories=[], benchmarks=[], experiment={"blocks": 30, "disturb_caches": False})
    program(desk / "fast", 100.0, "sleep 0.1\n")
    async with where.daemon() as process:
        await where.ready()
        await submitted(where, desk, "--treatment", "fast")
        await where.until("SELECT count(*) > 2 FROM blocks")
        process.kill()
        await process.wait()
    await where.until_alone()
    left = where.rows("SELECT count(*) FROM blocks")[0][0]
    assert left < 30
    shutil.rmtree(desk)
    async with where.daemon():
        await where.ready()
        code, out, _ = await ask(where, "watch", "1")
        assert code == 0
        assert "mine on host: measured, 30 blocks" in out


async def test_what_runs_is_cancelled_by_who_sent_it(running: lab.Lab, desk: Path) -> None:
    program(desk / "endless", 100.0, f"touch {desk}/begun; exec sleep 1000\n")
    number = await submitted(running, desk, "--treatment", "endless")
    with anyio.fail_after(lab.WAIT):
        while not (desk / "begun").exists():
            await anyio.sleep(0.02)
    code, out, complaint = await ask(running, "cancel", str(number))
    assert (code, out) == (0, f"request: {number}\ncancelled: 1\n"), complaint
    with anyio.fail_after(lab.WAIT):
        while any("sleep 1000" in command for command in running.processes()):
            await anyio.sleep(0.05)
    answer = await running.ctl("request", str(number))
    assert answer["outcomes"] == {"cancelled": 1}
    assert answer["experiments"][0]["reason"] == f"cancelled by {USER}"
    assert (await ask(running, "watch", str(number)))[0] == 2
    code, _, complaint = await ask(running, "cancel", str(number))
    assert (code, complaint) == (
        3,
        f"aibenchctl: nothing is left of request {number}; "
        f"'aibenchctl -s {running.socket} request {number}' shows how it ended\n",
    )
    # The device is as good as new.
    assert (await ask(running, "submit", "mine.json", "--treatment", "fast", "--wait", cwd=desk))[0] == 0


async def test_who_has_their_share_here_is_told_so_and_when_to_come_again(running: lab.Lab, desk: Path) -> None:
    running.configure(submissions={"max_size": "128KiB", "cache_size": "256KiB"})
    await running.ctl("reload")
    for name in ("fast", "slow"):
        program(desk / name, 100.0, f"# {name * 20_000}\n")
    code, _, complaint = await ask(running, "submit", "mine.json", "--treatment", "fast", "--wait", cwd=desk)
    assert code == 0, complaint
    code, _, complaint = await ask(running, "submit", "mine.json", "--treatment", "slow", cwd=desk)
    assert code == 3
    assert "leaves too little of your share of submissions.cache_size (128KiB); try again in " in complaint
    kept = running.directory / "state" / "submissions"
    own = {path.name for path in (kept / "senders").iterdir()}
    assert own == {path.name for where in (".content/sha256", "specifications") for path in (kept / where).iterdir()}


async def test_a_daemon_says_at_its_start_that_what_others_send_runs_as_itself(tmp_path: Path) -> None:
    where = lab.make(tmp_path)
    where.configure(repositories=[], benchmarks=[])
    async with where.daemon():
        await where.ready()
        assert "daemon's own user" not in where.log()
        where.configure(submissions={"groups": ["root"]})
        await where.ctl("reload")
        assert where.log().count("what members of root send runs on this host as the daemon's own user") == 1
    async with where.daemon():
        await where.ready()
        assert where.log().count("what members of root send runs on this host as the daemon's own user") == 2


async def test_who_stops_watching_stops_nothing_else(running: lab.Lab, desk: Path) -> None:
    program(desk / "fast", 100.0, f"until [ -e {desk}/watched ]; do sleep 0.05; done\n")
    number = await submitted(running, desk, "--treatment", "fast")
    watching = subprocess.Popen(
        [*CLIENT, "-s", str(running.socket), "watch", str(number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert watching.stdout is not None
    first = await anyio.to_thread.run_sync(watching.stdout.readline)
    assert first.startswith("mine on host: ")
    watching.send_signal(2)
    _, complaint = await anyio.to_thread.run_sync(watching.communicate)
    assert watching.returncode == 130
    assert f"request {number} goes on; 'aibenchctl -s {running.socket} cancel {number}' ends it" in complaint
    (desk / "watched").touch()
    assert (await ask(running, "watch", str(number)))[0] == 0


async def test_it_goes_through_ssh_as_well(running: lab.Lab, desk: Path, tmp_path: Path) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed (apt-get install openssh-client)")
    with sshd.running(tmp_path / "host") as host:
        key = tmp_path / "key"
        key.write_bytes(host.key.read_bytes())
        key.chmod(0o600)
        known = f"ssh -F /dev/null -i '{key}' -o 'UserKnownHostsFile=\"{host.known_hosts}\"' -o BatchMode=yes"
        address = f"ssh://{USER}@127.0.0.1:{host.port}{running.socket}"
        (desk / "fast").write_bytes((desk / "fast").read_bytes() + b"#" * (3 << 20))  # more than one piece

        async def afar(*words: str) -> tuple[int, str, str]:
            argv = [*CLIENT, "-H", address, *words]
            told = await anyio.run_process(argv, check=False, cwd=desk, env={**os.environ, "AIBENCHD_SSH": known})
            return told.returncode, told.stdout.decode(), told.stderr.decode()

        code, out, complaint = await afar("submit", "mine.json", "--treatment", "slow", "--control", "fast")
        assert code == 0, complaint
        assert f"see: aibenchctl -H {address} request 1\n" in out
        assert (await afar("watch", "1"))[0] == 1
        running.configure(submissions={"max_size": "1MiB"})
        assert (await afar("reload"))[0] == 0
        (desk / "fast").write_bytes((desk / "fast").read_bytes() + b"#" * (8 << 20))
        code, _, complaint = await afar("submit", "mine.json", "--treatment", "fast")
        assert code == 3
        assert "more than 1MiB is sent; send less, or raise submissions.max_size" in complaint


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("mine.json", "--treatment", "gone"), "gone: there is no such program"),
        (("mine.json", "--treatment", "mine.json"), "mine.json: is not executable; chmod +x it"),
        (("mine.json",), "--treatment PROGRAM: which program is to be measured?"),
        (("gone.json", "--treatment", "fast"), "gone.json: there is no such file"),
        (("squeeze", "--treatment", "fast"), "there is neither a file nor a benchmark 'squeeze'"),
        (("mine.json", "--treatment", "fast", "--device", "hots"), "there is no device 'hots'; did you mean 'host'?"),
        (
            ("mine.json", "--treatment", "fast", "--framework", "genric"),
            "there is no framework 'genric'; did you mean 'generic'?",
        ),
        (("mine.json", "--treatment", "fast", "--blocks", "x"), "blocks: "),
        (("away.json", "--treatment", "fast"), "away.json:1:2: model.name: is required"),
        (("leaves.json", "--treatment", "fast"), "'../data/secret' leaves the directory that is sent from"),
        (("outside.json", "--treatment", "fast"), "link/secret: is not in "),
        (("hidden.json", "--treatment", "fast"), ".secrets/key: is hidden; nothing hidden is sent"),
        (("absolute.json", "--treatment", "fast"), "'/etc/passwd' leaves the directory that is sent from"),
        (("lacks.json", "--treatment", "fast"), "lacks.bin: the specification names it, and it is not there"),
    ],
)
async def test_what_cannot_be_measured_is_refused_with_what_to_do(
    running: lab.Lab, desk: Path, words: tuple[str, ...], said: str
) -> None:
    def model_file(name: str, location: str) -> None:
        files = {"words": {"filename": "input.txt", "location": location}}
        test = {"identifier": "mine", "metric": "delay", "commands": ["{program} {files.words}"]}
        content: dict[str, Any] = {"model": {"name": "n", "format": "generic", "files": files}, "tests": [test]}
        (desk / name).write_text(json.dumps(content))

    (desk.parent / "secrets").mkdir()
    (desk.parent / "secrets" / "secret").write_text("x")
    (desk / "link").symlink_to(desk.parent / "secrets")
    for name, location in (
        ("leaves", "../data/secret"),
        ("outside", "link/secret"),
        ("hidden", ".secrets/key"),
        ("absolute", "/etc/passwd"),
        ("lacks", "lacks.bin"),
    ):
        model_file(f"{name}.json", location)
    (desk / "away.json").write_text('{"model": {"format": "generic"}, "tests": []}')
    code, _, complaint = await ask(running, "submit", *words, cwd=desk)
    assert code == 3
    assert said in complaint
    assert "Traceback" not in complaint
    assert str(running.directory / "state") not in complaint
    assert running.rows(NO_EXPERIMENT) == [(0,)]


async def test_more_experiments_than_are_planned_at_once_are_refused(running: lab.Lab, desk: Path) -> None:
    tests = [{"identifier": f"t{number}", "metric": "delay", "commands": ["{program}"]} for number in range(1_001)]
    (desk / "many.json").write_text(json.dumps({"model": {"name": "n", "format": "generic"}, "tests": tests}))
    code, _, complaint = await ask(running, "submit", "many.json", "--treatment", "fast", cwd=desk)
    assert (code, "it has 1,001 experiments, more than 1,000; send it in parts" in complaint) == (3, True), complaint
    assert running.rows(NO_EXPERIMENT) == [(0,)]


async def test_a_benchmark_that_the_daemon_has_takes_a_program_of_mine(tmp_path: Path, desk: Path) -> None:
    where = lab.make(tmp_path)
    where.commit("first")
    where.configure(devices=[{"name": name, "kind": "local", "cpus": [cpu]} for name, cpu in (("host", 0), ("other", 1))])
    async with where.daemon():
        await where.ready()
        code, _, complaint = await ask(where, "submit", "net", "--treatment", "fast", cwd=desk)
        assert code == 3
        assert "on which device? Name one or more of host, other, with --device" in complaint
        words = ("--treatment", "slow", "--control", "fast", "--device", "other", "--wait")
        assert (await ask(where, "submit", "net", *words, cwd=desk))[0] == 1
        assert where.rows("SELECT count(*) FROM findings") == [(0,)]
        # The next commit is compared with the one before, whatever was submitted meanwhile.
        second = where.commit("second")
        await where.until(
            f"SELECT count(*) FROM pairs WHERE treatment = '{second}' AND control = '{where.commits[0]}'"
            " AND run_type = 'benchmark' AND request IS NULL"
        )


async def test_records_say_that_they_are_of_a_submission(tmp_path: Path, desk: Path) -> None:
    where = lab.make(tmp_path)
    records = tmp_path / "records"
    where.configure(repositories=[], benchmarks=[], sinks=[{"name": "files", "kind": "simple-local", "directory": str(records)}])
    async with where.daemon():
        await where.ready()
        assert (await ask(where, "submit", "mine.json", "--treatment", "fast", "--wait", cwd=desk))[0] == 0
        rows = where.rows("SELECT count(*) FROM results")
        assert rows[0][0] > 0
        with anyio.fail_after(lab.WAIT):
            while not any(path.is_file() for path in records.rglob("*")):
                await anyio.sleep(0.05)


async def test_submissions_and_commits_have_a_device_in_turns(tmp_path: Path, desk: Path) -> None:
    where = lab.make(tmp_path)
    where.configure(experiment={"blocks": 20, "disturb_caches": False})
    bench = program(tmp_path / "bench", 100.0, "sleep 0.1\n").read_text()
    program(desk / "fast", 100.0, "sleep 0.1\n")
    where.commit("first", bench=bench)
    async with where.daemon():
        await where.ready()
        await where.until("SELECT count(*) > 2 FROM blocks")
        await where.ctl("pause")  # so that what is sent is there before the commit's last block, however long that takes
        await submitted(where, desk, "--treatment", "fast", "--blocks", "30")
        await where.ctl("resume")
        await where.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'", [(2,)])
    ((commit_ended,), (sent_began, sent_ended)) = (
        where.rows(f"SELECT {columns} FROM experiments JOIN pairs ON pairs.id = pair WHERE run_type = '{kind}'")[0]
        for columns, kind in (("decided_at", "benchmark"), ("started_at, decided_at", "submission"))
    )
    assert sent_began < commit_ended < sent_ended


async def test_a_list_of_benchmarks_is_sent_with_all_that_its_members_name(running: lab.Lab, desk: Path) -> None:
    (desk / "nets" / "lib").mkdir(parents=True)
    (desk / "nets" / "words.txt").write_text("seven")
    (desk / "nets" / "lib" / "libwords.so").write_text("eight")
    digest = hashlib.sha256(b"seven").hexdigest()
    (desk / "nets" / "a.yaml").write_text(
        f"""
        model:
          name: a
          format: generic
          files: {{words: {{filename: words.txt, location: words.txt, sha256: {digest}}}}}
          libraries: [{{location: lib/libwords.so}}]
        tests:
          - identifier: "{{WHICH}}-a"
            metric: delay
            commands: ["test -e $LD_LIBRARY_PATH/libwords.so && {{program}} {{files.words}}"]
        """
    )
    (desk / "list.yaml").write_text("benchmarks: [nets/a.yaml]")
    words = ("submit", "list.yaml", "--treatment", "fast", "--wait")
    code, out, complaint = await ask(running, *words, "--set", "WHICH=first", cwd=desk)
    assert code == 0, complaint + running.log()[-2000:]
    assert "first-a" in out
    # What the daemon has by its digest is not asked for again, whatever file names it.
    (desk / "nets" / "words.txt").unlink()
    shutil.copy(desk / "nets" / "a.yaml", desk / "nets" / "b.yaml")
    (desk / "list.yaml").write_text("benchmarks: [nets/b.yaml]")
    code, out, complaint = await ask(running, *words, "--set", "WHICH=second", cwd=desk)
    assert code == 0, complaint
    # Wrong bytes are not measured.
    (desk / "nets" / "words.txt").write_text("nine")
    (desk / "nets" / "a.yaml").write_text((desk / "nets" / "a.yaml").read_text().replace(digest, "f" * 64))
    (desk / "list.yaml").write_text("benchmarks: [nets/a.yaml]")
    code, _, complaint = await ask(running, *words, cwd=desk)
    assert code == 3
    assert f"and the specification says {'f' * 64}" in complaint
    (desk / "list.yaml").write_text("benchmarks: [../other.yaml]")
    code, _, complaint = await ask(running, *words, cwd=desk)
    assert (code, "'../other.yaml' leaves the directory that is sent from" in complaint) == (3, True)


async def test_a_model_of_hundreds_of_files_is_sent(running: lab.Lab, desk: Path) -> None:
    names = [f"weights/of-the-layer-with-a-name-that-says-all-about-it/{'x' * 100}-{number:03}.bin" for number in range(499)]
    (desk / "weights" / "of-the-layer-with-a-name-that-says-all-about-it").mkdir(parents=True)
    for name in names:
        (desk / name).write_text(name)
    files = {f"f{number}": {"filename": Path(name).name, "location": name} for number, name in enumerate(names)}
    test = {"identifier": "many", "metric": "delay", "iter": 1, "commands": ["test -e {files.f498} && {program}"]}
    (desk / "many.json").write_text(json.dumps({"model": {"name": "n", "format": "generic", "files": files}, "tests": [test]}))
    code, out, complaint = await ask(running, "submit", "many.json", "--treatment", "fast", "--wait", cwd=desk)
    assert (code, "measured" in out) == (0, True), complaint + running.log()[-2000:]
    (desk / "weights" / "one-more.bin").write_text("x")
    files["more"] = {"filename": "more.bin", "location": "weights/one-more.bin"}
    (desk / "many.json").write_text(json.dumps({"model": {"name": "n", "format": "generic", "files": files}, "tests": [test]}))
    code, _, complaint = await ask(running, "submit", "many.json", "--treatment", "fast", cwd=desk)
    assert (code, "specification.files: expected 500 or fewer" in complaint) == (3, True), complaint


async def test_files_of_several_directories_are_sent_from_one_that_holds_them(running: lab.Lab, desk: Path) -> None:
    (desk / "lists").mkdir()
    (desk / "lists" / "all.json").write_text('{"benchmarks": ["../mine.json"]}')
    words = ("submit", "lists/all.json", "--treatment", "fast", "--wait")
    code, _, complaint = await ask(running, *words, cwd=desk)
    assert code == 3
    assert "'../mine.json' leaves the directory that is sent from: name one that holds all files" in complaint
    code, out, complaint = await ask(running, *words, "--directory", ".", cwd=desk)
    assert code == 0, complaint
    assert "measured" in out
    code, _, complaint = await ask(running, *words, "--directory", "data", cwd=desk)
    assert (code, "--directory data: is no directory that lists/all.json lies below" in complaint) == (3, True)


async def test_a_program_is_pushed_to_a_device_as_built_ones_are(tmp_path: Path, desk: Path) -> None:
    with sshd.running(tmp_path / "device") as server:
        where = lab.make(tmp_path)
        where.configure(repositories=[], benchmarks=[], devices=[server.settings(host_key=server.fingerprint())])
        async with where.daemon():
            await where.ready()
            code, out, complaint = await ask(
                where, "submit", "mine.json", "--treatment", "slow", "--control", "fast", "--wait", cwd=desk
            )
            assert code == 1, complaint
            assert "regressed" in out
            # A program of another machine fails there, and says why.
            header = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf7\x00\x01\x00\x00\x00"  # of no CPU that runs Linux here
            (desk / "foreign").write_bytes(header + bytes(100))
            (desk / "foreign").chmod(0o755)
            code, out, _ = await ask(where, "submit", "mine.json", "--treatment", "foreign", "--wait", cwd=desk)
            assert code == 1, out
            assert "Exec format error" in out


async def test_what_was_on_its_way_when_the_daemon_died_is_swept(tmp_path: Path) -> None:
    where = lab.make(tmp_path)
    where.configure(repositories=[], benchmarks=[])
    half = where.directory / "state" / "submissions" / "incoming" / "half"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    async with where.daemon():
        await where.ready()
        assert not half.exists()
