"""The search inside merges: the real daemon, real git and hg, histories with merges in which one commit is slow."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import lab
import pytest
import remotes

# A commit adds a part, which takes so many microseconds; a merge has the parts of both sides.
BUILD = """#!/bin/sh
set -e
took=$(cat "$1"/parts/* | awk '{ took += $1 } END { print 100 + took }')
sed "s/LATENCY/$took/" "$1/bench" > "$2"
echo "# $(ls "$1/parts" | tr '\\n' ' ')" >> "$2"
"""
FINDING = "SELECT count(*) FROM findings WHERE state = 'open' AND search NOT IN ('', 'running', 'deferred')"


@dataclass
class Engine:
    """A remote of an engine of parts; its branch is ``main``."""

    remote: remotes.GitRemote | remotes.HgRemote
    kind: str

    def begin(self) -> str:
        script = self.remote.path / "build.sh"
        script.touch(0o755)
        if self.kind == "hg":
            self.remote("bookmark", "main")
        return self.remote.commit("first", bench=lab.BENCH.format(latency="LATENCY"), **{"build.sh": BUILD, "parts__first": "0"})

    def part(self, name: str, takes: float = 0, **files: str) -> str:
        """One more part, in a commit of its name."""
        return self.remote.commit(name, **{f"parts__{name}": f"{takes}\n"} | files)

    def go_to(self, commit: str) -> None:
        """Commits that follow are on no branch, or on ``main``."""
        if self.kind == "git":
            self.remote("checkout", "--quiet", *(["main"] if commit == "main" else ["--detach", commit]))
        else:
            self.remote("update", "--quiet", commit)

    def merge(self, name: str, *sides: str, takes: float = 0) -> str:
        """A merge that adds a part itself."""
        if self.kind == "git":
            self.remote("merge", "--quiet", "--no-ff", "--no-commit", *sides)
        else:
            (side,) = sides
            self.remote("merge", "--quiet", "--rev", side)
        return self.part(name, takes)


@pytest.fixture(params=["git", "hg"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    if request.param == "git":
        yield Engine(remotes.GitRemote(tmp_path / "remote"), "git")
        return
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # where pip puts hg
    if not shutil.which("hg"):
        pytest.skip("hg is not installed (pip install mercurial)")
    remote = remotes.HgRemote(tmp_path / "remote")
    yield Engine(remote, "hg")
    remote.close()


def watching(directory: Path, engine: Engine, first: str, **repository: Any) -> lab.Lab:
    """A lab that measures the branch's head against its first commit."""
    made = lab.make(directory)
    (chosen,) = made.configuration["repositories"]
    own = {"url": engine.remote.url, "kind": engine.kind, "branch": "main", "start_at": first, "backlog": 1}
    pinned = {"baseline": {"rule": "pinned", "commit": first}}
    made.configure(verify={"enabled": True}, repositories=[chosen | own | pinned | repository])
    return made


async def found_in(made: lab.Lab) -> dict[str, Any]:
    await made.until(FINDING, within=3 * lab.WAIT)
    return dict(await made.ctl("finding", "1"))


def history(engine: Engine, slow: str, takes: float = 9) -> dict[str, str]:
    """A branch of which one commit is a merge that brought in another merge; commits by name, of which ``slow`` takes longer."""
    made: dict[str, str] = {"first": engine.begin()}

    def part(name: str) -> None:
        made[name] = engine.part(name, takes * (name == slow))

    def merge(name: str, side: str) -> None:
        made[name] = engine.merge(name, made[side], takes=takes * (name == slow))

    engine.go_to(made["first"])
    part("side1")
    part("inner1")
    part("inner2")
    engine.go_to(made["side1"])
    part("side2")
    merge("inner", "inner2")
    part("side3")
    engine.go_to("main")
    part("second")
    merge("merge", "side3")
    part("last")
    return made


def paths(made: dict[str, str], found: dict[str, Any]) -> list[tuple[list[str], list[str]]]:
    """The names of what is named, and of the merges that it came by."""
    names = {commit: name for name, commit in made.items()}
    return [([names[one] for one in group["commits"]], [names[one] for one in group["within"]]) for group in found["culprits"]]


@pytest.mark.parametrize(
    ("engine", "slow", "within", "told"),
    [
        ("git", "inner2", ["merge", "inner"], {"merge": "found", "inner": "found"}),
        ("hg", "inner2", ["merge", "inner"], {"merge": "found", "inner": "found"}),
        ("git", "inner", ["merge"], {"merge": "found", "inner": "no culprit"}),
        ("git", "merge", [], {"merge": "no culprit"}),
    ],
    indirect=["engine"],
)
async def test_the_search_goes_on_inside_merges(
    tmp_path: Path, engine: Engine, slow: str, within: list[str], told: dict[str, str]
) -> None:
    commits = history(engine, slow)
    made = watching(tmp_path, engine, commits["first"])
    async with made.daemon():
        found = await found_in(made)
        client = [sys.executable, "-m", "aibenchd.api.client", "-s", str(made.socket), "finding", "1"]
        said = (await anyio.run_process(client)).stdout.decode()
    assert found["search"] == "found"
    assert paths(commits, found["culprits"]) == [([slow], within)]
    names = {commit: name for name, commit in commits.items()}
    assert {names[one["commit"]]: one["search"] for one in found["culprits"]["merges"]} == told
    (culprit,) = found["culprits"]["culprits"]
    assert culprit["probability"] > 0.85  # on up to three lines, at 97 % each
    assert 0.06 < culprit["effect"] < 0.12
    assert found["commits"][commits[slow]]["subject"] == slow
    assert f"{commits[slow][:12]} {slow} (" in said
    if within:
        assert f"(merged by {' > '.join(commits[name][:12] for name in within)})" in said
    beside = made.rows("SELECT DISTINCT subject, state FROM revisions WHERE NOT on_branch")
    assert {state for _, state in beside} == {"side"}
    planned = {commit for (commit,) in made.rows("SELECT treatment FROM pairs WHERE run_type = 'benchmark'")}
    assert planned <= {commits[name] for name in ("first", "second", "merge", "last")}
    left = (
        "SELECT count(*) FROM experiments e JOIN pairs p ON p.id = e.pair"
        " WHERE run_type = 'regress' AND state IN ('open', 'waiting')"
    )
    assert made.rows(left) == [(0,)]


@pytest.mark.parametrize("engine", ["git"], indirect=True)
async def test_a_daemon_that_is_killed_inside_a_merge_goes_on_there(tmp_path: Path, engine: Engine) -> None:
    commits = history(engine, "inner1")
    made = watching(tmp_path, engine, commits["first"])
    for point in ("merge.before-commit", "merge.before-commit:2", "search.before-commit", "search.before-commit:2"):
        async with made.daemon(AIBENCHD_CRASH_AT=point) as process:
            with anyio.fail_after(2 * lab.WAIT):
                await process.wait()
            assert process.returncode == -signal.SIGKILL, point
    async with made.daemon():
        found = await found_in(made)
    assert paths(commits, found["culprits"]) == [(["inner1"], ["merge", "inner"])]
    pairs = made.rows("SELECT treatment, control FROM pairs WHERE run_type = 'regress'")
    assert len(set(pairs)) == len(pairs)  # each asked for once


@pytest.mark.parametrize("engine", ["git"], indirect=True)
async def test_a_commit_that_breaks_the_program_is_found_inside_a_merge(tmp_path: Path, engine: Engine) -> None:
    made_of = {"first": engine.begin()}
    engine.go_to(made_of["first"])
    made_of["side1"] = engine.part("side1")
    broken = "#!/bin/sh\necho 'no such operator: conv9' >&2\nexit 3\n"
    made_of["side2"] = engine.part("side2", bench=broken)
    made_of["side3"] = engine.part("side3")
    engine.go_to("main")
    made_of["merge"] = engine.merge("merge", made_of["side3"])
    made_of["last"] = engine.part("last")
    made = watching(tmp_path, engine, made_of["first"])
    async with made.daemon():
        found = await found_in(made)
    assert (found["verdict"], found["search"]) == ("broken", "found")
    assert paths(made_of, found["culprits"]) == [(["side2"], ["merge"])]


@pytest.mark.parametrize("engine", ["git"], indirect=True)
async def test_a_merge_whose_commits_are_all_filtered_is_at_fault_itself(tmp_path: Path, engine: Engine) -> None:
    commits = {"first": engine.begin()}
    engine.go_to(commits["first"])
    commits["docs"] = engine.remote.commit("docs", docs__readme="slow")
    engine.go_to("main")
    commits["second"] = engine.part("second")
    commits["merge"] = engine.merge("merge", commits["docs"], takes=9)
    commits["last"] = engine.part("last")
    made = watching(tmp_path, engine, commits["first"], paths={"exclude": ["docs/**"]})
    async with made.daemon():
        found = await found_in(made)
    assert paths(commits, found["culprits"]) == [(["merge"], [])]
    assert [one["commits"] for one in found["culprits"]["merges"]] == [0]
    assert made.rows('SELECT count(*) FROM builds WHERE "commit" = \'' + commits["docs"] + "'") == [(0,)]
