"""``aibenchd ab``, on a real repository with a slow commit."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import desk
import lab
import pytest
import remotes

from aibenchd.demo import demo, history

# Two operators, of which one takes the time that the commit says.
BENCH = """#!/bin/sh
exec awk -v seed="$(od -An -N3 -tu4 /dev/urandom)" '
function row(type, value) {{
    printf "PyTorchObserver {{\\"type\\": \\"%s\\", \\"metric\\": \\"latency\\", \\"unit\\": \\"us\\", ", type
    printf "\\"value\\": %.3f}}\\n", value
}}
BEGIN {{
    srand(seed)
    conv = {conv} * (1 + 0.01 * (rand() - 0.5)); relu = 20 * (1 + 0.01 * (rand() - 0.5))
    row("NET", conv + relu); row("conv", conv); row("relu", relu)
}}'
"""


@pytest.fixture
def engine(at_desk: desk.Desk) -> lab.Lab:
    made = lab.Lab(at_desk.directory)
    made.commit("as it was", bench=BENCH.format(conv=80))
    made.commit("slower", bench=BENCH.format(conv=90))
    return made


def test_a_slow_commit_is_found_with_its_operator(at_desk: desk.Desk, engine: lab.Lab) -> None:
    words = ("ab", str(engine.remote), "HEAD", "HEAD~1", "-b", at_desk.specification())
    done = at_desk.run(*words)
    assert done.code == 5, done.err
    assert f"HEAD {engine.commits[1][:10]} (treatment) against HEAD~1 {engine.commits[0][:10]} (control)" in done.out
    assert "regressed" in done.out
    assert [line.split()[:2] for line in done.out.splitlines() if line.startswith(" conv")] == [["conv", "changed"]]
    found = at_desk.run(*words, "--json", "--alpha", "0.001", "--min-effect", "1%").only
    assert found["commits"] == {"treatment": engine.commits[1], "control": engine.commits[0]}
    assert found["low"] < 0.1 < found["high"]  # an interval at 99.9 %
    assert at_desk.run("ab", str(engine.remote), "HEAD~1", "HEAD", "-b", at_desk.specification()).code == 0


def test_changes_that_are_not_committed_are_measured(at_desk: desk.Desk, engine: lab.Lab) -> None:
    (engine.remote / "bench").write_text(BENCH.format(conv=80))
    status = _git(engine.remote, "status", "--porcelain")
    (engine.remote / "below").mkdir()
    done = at_desk.run("ab", str(engine.remote / "below"), ".", "main", "-b", at_desk.specification(), "--json")
    assert (done.code, done.only["verdict"], done.only["treatment"]) == (0, "improved", "WORKTREE")
    assert _git(engine.remote, "status", "--porcelain") == status


def test_builds_are_kept_and_failures_are_not(at_desk: desk.Desk, engine: lab.Lab) -> None:
    (engine.remote / "build.sh").write_text('#!/bin/sh\nset -e\necho built >> "$AIBENCHD_COUNT"\nhave-it\ncp "$1/bench" "$2"\n')
    count, tools = at_desk.directory / "count", at_desk.directory / "tools"
    words = ("ab", str(engine.remote), "WORKTREE", "HEAD~1", "-b", at_desk.specification(), "--max-blocks", "2")
    words = (*words, "--build-env", f"AIBENCHD_COUNT={count}", f"PATH={tools}:/usr/bin:/bin")
    done = at_desk.run(*words)
    assert (done.code, "the treatment does not build" in done.out, "have-it: not found" in done.out) == (1, True, True)
    assert ".log" in done.err
    tools.mkdir()
    (tools / "have-it").write_text("#!/bin/sh\n")
    (tools / "have-it").chmod(0o755)
    assert at_desk.run(*words).code == 6
    assert at_desk.run(*words).code == 6
    assert count.read_text().split() == ["built"] * 2  # once in vain


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no-such", "main"), "remote has no commit, tag or branch 'no-such'"),
        (("main", "--", "-x"), "no commit, tag or branch '-x'"),
    ],
)
def test_a_commit_that_is_not_there_is_named(at_desk: desk.Desk, engine: lab.Lab, words: tuple[str, ...], said: str) -> None:
    done = at_desk.run("ab", "-b", at_desk.specification(), str(engine.remote), *words)
    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_directory_that_is_no_repository_is_named(at_desk: desk.Desk) -> None:
    (at_desk.directory / "empty").mkdir()
    done = at_desk.run("ab", "-b", at_desk.specification(), "empty", "main", "main~1")
    assert (done.code, done.err) == (1, "empty: is no repository of git or Mercurial; name one, or the URL of one\n")


def test_a_remote_is_fetched(at_desk: desk.Desk, engine: lab.Lab) -> None:
    url = f"file://{engine.remote}"
    done = at_desk.run("ab", url, "main", engine.commits[0], "-b", at_desk.specification(), "--json")
    assert (done.code, done.only["commits"]["treatment"]) == (5, engine.commits[1])
    gone = at_desk.run("ab", f"file://{engine.remote}-gone", "main", "HEAD", "-b", at_desk.specification())
    assert gone.code == 3
    work_tree = at_desk.run("ab", url, "WORKTREE", "main", "-b", at_desk.specification())
    assert (work_tree.code, "has no working tree" in work_tree.err) == (1, True)


def test_bench_takes_commits_too(at_desk: desk.Desk, engine: lab.Lab) -> None:
    done = at_desk.run("bench", "-b", at_desk.specification(), "--repo", str(engine.remote), "--treatment", "HEAD~1", "--json")
    assert (done.code, done.only["verdict"]) == (0, "measured")
    assert done.only["statistics"]["treatment"]["p50"] == pytest.approx(100, rel=0.02)


def test_mercurial_too(at_desk: desk.Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # where pip puts hg
    if not shutil.which("hg"):
        pytest.skip("hg is not installed (pip install mercurial)")
    remote = remotes.HgRemote(at_desk.directory / "engine")
    try:
        first = remote.commit("as it was", bench=BENCH.format(conv=80), **{"build.sh": lab.BUILD})
        for name in ("bench", "build.sh"):
            (remote.path / name).chmod(0o755)
        first = remote.commit("executable", bench=BENCH.format(conv=80))
        (remote.path / "bench").write_text(BENCH.format(conv=95))
        done = at_desk.run("ab", str(remote.path), "WORKTREE", "tip", "-b", at_desk.specification(), "--json")
        assert (done.code, done.only["verdict"]) == (5, "regressed"), done.only["reason"]
        assert done.only["commits"]["control"] == first
    finally:
        remote.close()


@pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="onnxruntime is not installed")
def test_a_real_engine_whose_commit_copies_every_layer(at_desk: desk.Desk) -> None:
    made = demo.ENGINES["onnxruntime"]
    commits = history.write(made.commits, at_desk.directory / "remote.git", at_desk.directory / "work")
    specification = at_desk.directory / "squeezenet.json"
    specification.write_text(json.dumps(demo.specification(made)))
    slow = next(index for index, one in enumerate(made.commits) if one.expected == "regressed")
    words = ("ab", "work", commits[slow], commits[slow - 1], "-b", str(specification), "--min-effect", "10%")
    done = at_desk.run(*words, "--backend", "cpu", "--json")
    assert (done.code, done.only["verdict"], done.only["backend"]) == (5, "regressed", "cpu"), done.err
    assert done.only["estimate"] > 0.1


def _git(directory: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True, text=True).stdout
