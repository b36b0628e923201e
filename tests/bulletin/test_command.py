"""``aibenchd report`` over a journal of some weeks: what is in the file, and what is not."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import onefile
import pastweeks
import pytest
import sqlalchemy as sa
import statusd

from aibenchd import cli, errors
from aibenchd.bulletin import command, contents, page
from aibenchd.store import periods, schema, store
from aibenchd.web import render

NOBODY = 65534
PERIOD = periods.Period(pastweeks.BEGAN, datetime.now(UTC) + timedelta(days=1))


def text_of(lab: object, limits: contents.Limits) -> str:
    """The report of all of a journal, with other limits than the command has."""
    from aibenchd import settings

    chosen = settings.load(lab.directory / "lab.yaml")
    with store.reading(lab.journal) as connection:
        return "".join(page.written(contents.Reader(connection, PERIOD, chosen, limits), datetime.now(UTC)))


def test_it_is_one_whole_file_that_refers_to_nothing_else(lab) -> None:
    tree = onefile.check(lab.text("--since", "30d"))
    for name, _ in page.PARTS:
        assert onefile.part(tree, name) is not None


def test_it_tells_findings_with_culprits_triage_and_how_to_repeat_them(lab) -> None:
    said = onefile.words(onefile.part(onefile.check(lab.text("--since", "30d")), "findings"))
    expected = (
        "regressed +6.2\N{NO-BREAK SPACE}%", "resnet50 on lab-host", "culprit", "Kim <kim@example.org>", "98\N{NO-BREAK SPACE}%",
        "12,100 to 1 against nothing having become slower", "nobody has looked",
        f"aibenchctl ab {pastweeks.commit(24)} {pastweeks.commit(23)} --repository engine --benchmark resnet50 --device lab-host",
        "maybe", "27\N{NO-BREAK SPACE}%", "1 suspect more was measured again and refuted",
    )  # fmt: skip
    assert [words for words in expected if " ".join(words.split()) not in said] == []


def test_what_was_made_of_a_finding_is_told(lab) -> None:
    def mute(tx: store.Transaction) -> None:
        tx.connection.execute(schema.findings.update().where(schema.findings.c.id == 1).values(triage="muted"))
        made = {"finding": 1, "action": "mute", "by": "kim", "why": "until the profiler is out", "state": "open"}
        tx.connection.execute(schema.triages.insert().values(**made, until=datetime(2030, 1, 2, tzinfo=UTC), at=statusd.NOW))

    lab.write(mute)
    said = onefile.words(onefile.part(onefile.check(lab.text("--since", "30d")), "finding-1"))
    assert "muted by kim, 2026-01-05 12:00 UTC, until 2030-01-02 00:00 UTC: until the profiler is out" in said


def test_what_stands_from_before_is_told_apart(lab) -> None:
    tree = onefile.check(lab.text("--since", "3d"))
    said = onefile.words(onefile.part(tree, "findings"))
    new, _, old = said.partition("From before, and not mended")
    assert "mobilenet_v2" in new
    assert "resnet50" not in new
    assert "resnet50 on lab-host" in old


def test_what_is_hostile_is_text(lab) -> None:
    text = lab.text("--since", "30d")
    assert pastweeks.HOSTILE not in text
    assert pastweeks.HOSTILE in " ".join(onefile.words(onefile.check(text)).split())


@pytest.mark.parametrize(
    "subject",
    [
        "</style></title><script>alert(1)</script>",
        "--><svg onload=alert(1)>",
        '"\' onmouseover=alert(1) x="',
        "{{ 7 * 191 }}{% raw %}",
        "line\x00one\x1b[31m\x85two\ud800",
        "abc\u202egnp.exe\u2066",
        "https://me:hunter2hunter2@example.org/x?token=verysecret1",
        *(f"{'x' * (cut - 25)}\nhttps://me:hunter2hunter2@example.org/" for cut in (300, 500)),
        "x" * 100_000,
    ],
)
def test_anything_may_be_a_subject_an_author_and_a_reason(lab, subject: str) -> None:
    stored = subject.encode("utf-8", "replace").decode()

    def spoil(tx: store.Transaction) -> None:
        tx.connection.execute(schema.revisions.update().values(subject=stored, author=stored))
        own = schema.experiments.c
        spoilt = {"reason": stored, "identifier": stored[:200], "backend": own.backend + stored[:50]}
        tx.connection.execute(schema.experiments.update().values(**spoilt))
        tx.connection.execute(schema.findings.update().values(reason=stored))
        tx.connection.execute(schema.results.update().where(schema.results.c.type == "NET").values(unit=stored[:50]))

    lab.write(spoil)
    text = lab.text("--since", "4d")
    onefile.check(text)
    assert len(text) < contents.Limits().size
    assert "1337" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2066]", text)
    assert "hunter2" not in text
    assert "verysecret1" not in text


def test_each_experiment_that_was_called_has_its_pictures(lab) -> None:
    tree = onefile.check(lab.text("--since", "30d"))
    with sqlite3.connect(lab.journal) as journal:
        query = (
            "SELECT e.id FROM experiments e JOIN pairs p ON p.id = e.pair WHERE verdict = 'regressed' AND run_type = 'benchmark'"
        )
        regressed = [number for (number,) in journal.execute(query)]
    assert len(regressed) > 4
    for number in regressed:
        drawn = [one.get("aria-label") for one in onefile.part(tree, f"experiment-{number}").iter() if one.get("role") == "img"]
        assert [words.partition(":")[0] for words in drawn] == [
            "change after each block, with its interval",
            "share of each arm's samples",
        ]


def test_counts_are_those_of_the_journal(lab) -> None:
    said = onefile.words(onefile.part(onefile.check(lab.text("--since", "30d", "--device", "lab-host")), "measured"))
    with sqlite3.connect(lab.journal) as journal:
        query = (
            "SELECT count(*), sum(b.finished_at - b.started_at) / 3600 FROM blocks b JOIN experiments e ON e.id = b.experiment "
            "WHERE device = 'lab-host' AND decided_at IS NOT NULL"
        )
        blocks, hours = journal.execute(query).fetchone()
    assert f"lab-host 1 1 211 14 9 {blocks} {2 * blocks} {hours:.1f}" in said


def test_it_can_be_narrowed(lab) -> None:
    words = onefile.words(onefile.check(lab.text("--since", "30d", "--device", "phone-a", "--benchmark", "squeezenet")))
    assert "lab-host" not in words
    assert "resnet50" not in words
    assert "squeezenet on phone-a" in words
    digest = pastweeks.digest("squeezenet")
    assert "squeezenet on phone-a" in onefile.words(onefile.check(lab.text("--since", "30d", "--benchmark", digest)))


def test_since_a_commit_is_what_came_after_it(lab) -> None:
    span = ("--since", pastweeks.commit(23)[:10], "--until", pastweeks.commit(24))
    tree = onefile.check(lab.text(*span))
    findings = onefile.words(onefile.part(tree, "findings"))
    assert "resnet50" in findings
    assert "mobilenet_v2" not in findings
    listed = list(next(onefile.part(tree, "experiments").iter("tbody")))
    assert {pastweeks.commit(24)[:9]} == {code.text for row in listed for code in row.iter("code")}
    assert len(listed) == 12


def test_a_time_in_which_nothing_ended_says_so(lab) -> None:
    said = onefile.words(onefile.check(lab.text("--since", "2020-01-01", "--until", "2020-02-01")))
    assert "Nothing ended in this time" in said
    assert "Nothing was found to have regressed or broken." in said


def test_a_new_journal_has_a_report_too(new_lab) -> None:
    assert "Nothing ended in this time" in onefile.words(onefile.check(new_lab.text()))


def test_a_journal_is_enough(lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "CONFIG", lab.directory / "etc" / "aibenchd.yaml")
    words = ["report", "--since", "30d", "-o", str(lab.output)]
    assert cli.main([*words, "--state-directory", str(lab.journal.parent)]) == 0
    said = onefile.words(onefile.check(lab.output.read_text(encoding="utf-8")))
    assert "resnet50 on lab-host" in said
    assert cli.main(words) == 1
    assert f"{command.CONFIG}: cannot be read" in capsys.readouterr().err
    # One that is there counts all the same.
    command.CONFIG.parent.mkdir()
    command.CONFIG.write_text("devices: 5")
    assert cli.main([*words, "--state-directory", str(lab.journal.parent)]) == 1
    assert "devices: expected a list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--since", "last week"], "--since 'last week': expected a date (2026-03-02), how long ago (7d, 12h), or a commit"),
        (["--since", "2026-13-02"], "--since 2026-13-02: month must be in 1..12"),
        (["--since", "abcdef12345"], "--since abcdef12345: the journal knows no such commit"),
        (["--since", "1d", "--until", "2d"], "--since 1d is not before --until 2d"),
        (["--since", "99999999d"], "--since 99999999d: expected a duration of at most 36500d"),
        (["--device", "phone-z"], "there is no device 'phone-z'; there is gpu-box, lab-host, phone-a"),
        (["--benchmark", "resnet"], "there is no benchmark 'resnet'; there is mobilenet_v2, resnet50, squeezenet, transformer"),
        (["--repository", "x"], "there is no repository 'x'; there is engine"),
        (["--state-directory", "/nowhere"], "/nowhere/journal.db: there is no journal, or this user may not see it"),
        (["-o", "/nowhere/report.html"], "/nowhere/report.html: cannot be written: No such file or directory"),
    ],
)
def test_what_means_nothing_is_told(lab, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    lab.output.write_text("the last one")
    assert lab.report(*words) == 1
    assert expected in capsys.readouterr().err
    assert lab.output.read_text() == "the last one"
    assert {path.name for path in lab.directory.iterdir()} == {"lab.yaml", "report.html", "state"}


@pytest.mark.parametrize(
    ("version", "expected"), [("0001", "written by an older aibenchd"), ("9999", "written by a newer aibenchd")]
)
def test_a_journal_of_another_version_is_left_alone(lab, version: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(lab.journal) as journal:
        journal.execute("UPDATE alembic_version SET version_num = ?", [version])
    journal.close()
    before = lab.journal.read_bytes()
    assert lab.report() == 1
    assert expected in capsys.readouterr().err
    assert lab.journal.read_bytes() == before


def test_what_is_no_journal_is_told(lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.journal.write_bytes(b"not a journal at all" * 1000)
    assert lab.report() == 1
    assert "the journal cannot be read: file is not a database" in capsys.readouterr().err
    lab.journal.unlink()
    sqlite3.connect(lab.journal).close()
    lab.journal.touch()
    assert lab.report() == 1
    assert "this is no journal of aibenchd's" in capsys.readouterr().err


def test_nothing_is_changed_where_the_journal_lies(lab) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in lab.journal.parent.iterdir()}
    lab.text("--since", "30d")
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in lab.journal.parent.iterdir()} == before


def test_it_goes_to_standard_output(lab) -> None:
    words = [sys.executable, "-m", "aibenchd", "report", str(lab.directory / "lab.yaml"), "--since", "30d", "-o", "-"]
    done = subprocess.run(words, capture_output=True, check=True)
    assert done.stderr == b""
    onefile.check(done.stdout.decode())
    assert not lab.output.exists()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # as a pager that is quit
    _, told = process.communicate()
    assert (process.returncode, told) == (1, b"-: cannot be written: Broken pipe\n")


def test_the_file_can_be_read_by_whom_the_umask_lets(lab) -> None:
    before = os.umask(0o027)
    try:
        lab.text()
    finally:
        os.umask(before)
    assert stat.S_IMODE(lab.output.stat().st_mode) == 0o640


def test_what_is_no_file_is_written_into_as_it_is(lab) -> None:
    assert lab.report("-o", "/dev/null") == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert lab.report("-o", str(lab.directory)) == 1


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv, to be somebody else")
def test_somebody_who_may_only_read_the_journal_has_a_report(lab) -> None:
    for path in (*lab.directory.parents[:3], lab.directory):
        path.chmod(path.stat().st_mode | 0o055)
    words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-m", "aibenchd", "report"]
    done = subprocess.run([*words, str(lab.directory / "lab.yaml"), "-o", "-"], capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip("another user cannot run this Python")
    assert (done.returncode, done.stderr) == (0, "")
    onefile.check(done.stdout)


def test_it_stays_below_its_size_and_says_what_is_left_out(lab) -> None:
    whole, less = text_of(lab, contents.Limits()), text_of(lab, contents.Limits(size=220_000))
    onefile.check(less)
    assert len(less.encode()) <= 220_000 < len(whole.encode())
    said = onefile.words(onefile.part(onefile.check(less), "experiments"))
    assert "so that the file stays below 214.8 KiB" in said
    assert "--all shows the others too" in said
    pictures = [one.get("id") for one in onefile.check(less).iter("article") if one.get("id").startswith("experiment-")]
    assert 0 < len(pictures) < 60


def test_all_is_all(lab) -> None:
    said = onefile.words(onefile.check(lab.text("--since", "30d", "--all")))
    assert "left out" not in said
    assert "Of 660 of those listed there are pictures below" in said
    some = onefile.words(onefile.check(lab.text("--since", "30d")))
    assert re.search(r"Listed are \d+ of 708 that ended .*; --all lists all\.", some)


def test_false_alarms_are_told_beside_what_is_promised(lab) -> None:
    def check_itself(tx: store.Transaction) -> None:
        pair = statusd.pair(tx, pastweeks.commit(5), pastweeks.commit(5), run_type="selfcheck")
        build = statusd.build(tx, "selfcheck")
        for place in range(50):
            ended = statusd.decided("unchanged" if place else "regressed") | {"decided_at": pastweeks.BEGAN + timedelta(hours=9)}
            facts = {"backend": f"{place}", "control_build": build, "design": {"rule": {"alpha": 0.01}}}
            statusd.experiment(tx, pair, build, **facts, **ended)

    lab.write(check_itself)
    said = onefile.words(onefile.part(onefile.check(lab.text("--since", "30d")), "measured"))
    assert "1 of 50 , 2.0 % (0.1 … 10.6 %) in this time" in said
    assert "1.0 % at most is promised" in said
    later = onefile.words(onefile.part(onefile.check(lab.text("--since", "1d")), "measured"))
    assert "none was looked for in this time, 1 of 50" in later


def test_a_series_that_creeps_is_told_and_drawn(new_lab) -> None:
    def creep(tx: store.Transaction) -> None:
        ended = {"decided_at": datetime.now(UTC), "low": 0.001, "high": 0.009, "estimate": 0.005}
        facts = {"design": pastweeks.design("slow", ""), "identifier": "slow", "model": "slow"}
        for number in range(60):
            commit = pastweeks.commit(number)
            statusd.revision(tx, commit, number)
            build = statusd.build(tx, commit)
            pair = statusd.pair(tx, commit, pastweeks.commit(number - 1))
            if number:
                statusd.experiment(tx, pair, build, control_build=build, **facts, **statusd.decided("unchanged") | ended)

    new_lab.write(creep)
    tree = onefile.check(new_lab.text())
    drifts = onefile.part(tree, "drifts")
    said = onefile.words(drifts)
    assert "slow on lab-host creeps: +" in said
    assert "change " in said
    assert "time over that of the oldest commit" in said
    new_lab.configure(creep={"enabled": False})
    assert "They are not looked for" in onefile.words(onefile.check(new_lab.text()))


def test_why_nothing_was_decided_and_how_devices_fared_is_told(lab) -> None:
    def fail(tx: store.Transaction) -> None:
        pair, build = statusd.pair(tx, pastweeks.commit(59)), statusd.build(tx, "unbuilt")
        now = datetime.now(UTC)
        for place in range(3):
            why = {"state": "skipped", "reason": "the treatment does not build", "decided_at": now, "backend": f"{place}"}
            statusd.experiment(tx, pair, build, **why)
        tx.connection.execute(schema.builds.update().where(schema.builds.c.state == "failed").values(finished_at=now))
        row = {"experiment": 1, "block": 0, "arm": "control", "cause": "device lost", "reason": "gone", "excluded_at": now}
        number = tx.connection.scalar(sa.select(sa.func.max(schema.blocks.c.experiment)))
        tx.connection.execute(schema.exclusions.insert().values(row | {"experiment": number}))
        undo = {"device": "phone-a", "action": {}, "created_at": now}
        tx.connection.execute(schema.undo.insert().values(undo))

    lab.write(fail)
    tree = onefile.check(lab.text("--since", "30d"))
    trouble = onefile.words(onefile.part(tree, "trouble"))
    assert "3 skipped the treatment does not build" in trouble
    assert "build.sh: exit code 2: conv.cc:214: error: expected ';'" in trouble
    assert "exit code 139 (SIGSEGV) in glDispatchCompute" in trouble
    health = onefile.words(onefile.part(tree, "devices"))
    assert "device lost: 1 trial run again." in health
    assert "1 change on it are not undone" in health or "1 change on it is not undone" in health
    assert "24 trials failed." in health
    assert "gpu-box It measured nothing." in health


def test_an_inconclusive_verification_is_told_with_what_it_is_of_and_what_would_help(lab) -> None:
    def verify(tx: store.Transaction) -> None:
        finding, suspect = tx.connection.execute(
            sa.select(schema.findings.c.id, schema.findings.c.suspect).where(schema.findings.c.state == "unconfirmed")
        ).one()
        of = sa.select(schema.experiments.c.identifier, schema.experiments.c.benchmark, schema.experiments.c.design)
        name, benchmark, design = tx.connection.execute(of.where(schema.experiments.c.id == suspect)).one()
        facts = {"identifier": name, "benchmark": benchmark, "design": design, "device": "phone-a", "backend": "opengl"}
        facts |= {"finding": finding, "reason": "the budget of blocks is spent", "blocks": 60}
        built = statusd.build(tx, "verified")
        for ended, reason in (("inconclusive", "the budget of blocks is spent"), ("regressed", "")):
            pair = statusd.pair(tx, pastweeks.commit(58), pastweeks.commit(57), run_type="verify")
            now = statusd.decided(ended) | {"decided_at": datetime.now(UTC), "low": -0.01}
            statusd.experiment(tx, pair, built, control_build=built, **facts | {"reason": reason}, **now)

    before = onefile.words(onefile.part(onefile.check(lab.text("--since", "30d")), "trouble"))
    lab.write(verify)
    tree = onefile.part(onefile.check(lab.text("--since", "30d")), "trouble")
    rows = [" ".join(onefile.words(row).split()) for row in tree.iter("tr")]
    (told,) = [row for row in rows if "verification of" in row]
    assert "verification of" not in before
    assert told.startswith("inconclusive verification of finding 4 , unconfirmed: experiment ")
    assert " was broken 1 transformer phone-a /opengl " in told
    assert "the budget of blocks is spent What would help: how small a change is found here is not known yet" in told
    assert "raise max_blocks (60) or min_effect, or have the device quieter, and ask again." in told
    assert any(link.get("href") == "#finding-4" for link in tree.iter("a"))
    none = text_of(lab, contents.Limits(inconclusive=0))
    assert "1 inconclusive verifications more are left out; --all lists them." in onefile.words(onefile.check(none))


def test_what_would_help_is_told_of_each_that_is_inconclusive(lab) -> None:
    tree = onefile.part(onefile.check(lab.text("--since", "30d")), "trouble")
    rows = [" ".join(onefile.words(row).split()) for row in tree.iter("tr")]
    inconclusive, broken = ([row for row in rows if row.startswith(word)] for word in ("inconclusive", "broken"))
    assert inconclusive
    assert broken
    assert all("a commit" in row and "What would help: " in row for row in inconclusive)
    assert not any("What would help" in row for row in broken)


def test_the_dashboard_escapes_what_the_report_escapes() -> None:
    assert page.environment().autoescape
    assert render.environment().finalize is None  # which is the report's alone


def test_an_experiment_that_is_gone_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreError, match="there is no journal"), store.reading(tmp_path / "journal.db"):
        pass
