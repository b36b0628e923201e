"""A report on a journal that a real daemon has written, and writes."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import anyio.to_thread
import browser as browsers
import lab
import onefile


async def reported(made: lab.Lab, *words: str) -> str:
    argv = [sys.executable, "-m", "aibenchd", "report", str(made.config), "-o", "report.html", *words]
    done = await anyio.run_process(argv, cwd=made.directory, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    return (made.directory / "report.html").read_text(encoding="utf-8")


async def test_what_a_daemon_found_is_in_the_report_while_it_runs_and_after(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    made.configure(
        verify={"enabled": True, "profile": False},
        selfcheck={"share": 1},
        experiment=made.configuration["experiment"] | {"alpha": 0.01, "beta": 0.05},
    )
    first = made.commit("as it was")
    compared = "experiments e JOIN pairs p ON p.id = e.pair WHERE control IS NOT NULL AND run_type = 'benchmark' ORDER BY e.id"
    async with made.daemon():
        await made.ready()
        await made.until("SELECT count(*) FROM experiments WHERE state = 'decided'")
        hostile = "<script>alert(1)</script> keeps token=hunter2hunter2 activations"
        slower = made.commit(hostile, latency=110.0)
        await made.until(f"SELECT treatment, control, verdict FROM {compared}", [(slower, first, "regressed")])
        await made.until("SELECT state FROM findings", [("open",)])
        same = made.commit("harmless", latency=110.1)
        await made.until(f"SELECT treatment, verdict FROM {compared}", [(slower, "regressed"), (same, "unchanged")])
        await made.until("SELECT count(*) > 0 FROM experiments WHERE state IN ('waiting', 'open')", [(0,)])
        beside = await reported(made)
        (finding,) = (await made.ctl("findings"))["findings"]
    after = await reported(made)
    assert sorted(path.name for path in made.journal.parent.glob("journal.db*")) == ["journal.db"]
    for text in (beside, after):
        tree = onefile.check(text)
        assert "hunter2" not in text
        said = onefile.words(onefile.part(tree, "findings"))
        assert f"regressed +{100 * finding['estimate']:.1f}" in said
        assert "net on host" in said
        assert "<script>alert(1)</script> keeps token=[redacted] activations by Engine <engine@localhost>" in said
        assert f"aibenchctl ab {slower} {first} --repository engine --benchmark net --device host --wait" in said
        assert "false alarm" in onefile.words(onefile.part(tree, "measured")).lower()
        pictures = [one for one in onefile.part(tree, "experiments").iter() if one.get("role") == "img"]
        assert len(pictures) >= 4
    since = onefile.words(onefile.part(onefile.check(await reported(made, "--since", slower[:12])), "experiments"))
    assert same[:9] in since
    assert slower[:9] not in since.partition("against")[0]
    await anyio.to_thread.run_sync(_seen, made.directory / "report.html")
    assert "Traceback" not in made.log()


def _seen(path: Path) -> None:
    with browsers.opened() as browser:
        browser.open(path.as_uri())
        assert browser.run("return document.querySelectorAll('svg.picture path.line').length") > 0
        assert browser.complaints() == []
        assert browser.hosts() == {""}


async def test_many_reports_beside_a_daemon_that_measures_disturb_nothing(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    for number in range(6):
        made.commit(f"change {number}", latency=100.0 + 10 * number)
    made.configure(repositories=[made.configuration["repositories"][0] | {"start_at": made.commits[0]}])
    async with made.daemon():
        await made.ready()
        await made.until("SELECT count(*) > 0 FROM blocks")
        for _ in range(4):
            onefile.check(await reported(made))
        await made.until("SELECT count(*) FROM experiments WHERE state = 'decided'", [(6,)], within=120)
    assert "cannot be written" not in made.log()
    assert "Traceback" not in made.log()
