"""The builder with real git repositories, real scripts and the real launcher."""

from __future__ import annotations

import contextlib
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from aibenchd import board, digests, errors, events, hostgate, settings
from aibenchd.build import builder
from aibenchd.devices import base as devices
from aibenchd.devices import launching
from aibenchd.store import builds, store
from aibenchd.watch import git

PATIENCE = 60  # seconds, after which a wait has failed
COPY = 'cp "$1/main.sh" "$2"'  # the least that a build script can do


class Remote:
    """A git repository that commits are pushed to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._git("init", "--quiet", "--initial-branch=main")

    def commit(self, files: Mapping[str, str], time: int = 1_770_000_000) -> str:
        """A new commit with these files changed; its id."""
        for name, text in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
            path.chmod(0o755 if text.startswith("#!") else 0o644)
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message=change", time=time)
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str, time: int = 0) -> str:
        who = {f"GIT_{role}_{what}": "a@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        when = {"GIT_AUTHOR_DATE": f"{time} +0000", "GIT_COMMITTER_DATE": f"{time} +0000"}
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **who, **when}
        return subprocess.run(
            ["git", *arguments], cwd=self.directory, env=environment, check=True, capture_output=True, text=True
        ).stdout


class Workshop:
    """A builder with all that it needs, and words for what the tests do with it."""

    def __init__(self, root: Path, journal: store.Store, launcher: launching.Launcher) -> None:
        self.root = root
        self.state = root / "state"
        self.journal = journal
        self.board = board.Board(journal.events)
        self.gate = hostgate.HostGate()
        self.remote = Remote(root / "engine")
        self.repositories = {"engine": self.watched("engine", self.remote)}
        self._house = builder.House(journal, self.board, self.gate, launcher, self.state, lambda: False)
        self.settings = settings.BuildSettings(frameworks_directory=root / "frameworks")
        self.script(COPY)

    def watched(self, name: str, remote: Remote) -> git.Git:
        chosen = settings.RepositorySettings(name=name, url=str(remote.directory), framework="generic")
        return git.Git(chosen, self.state / "repositories" / name)

    def script(self, text: str, name: str = "generic/build.sh") -> Path:
        path = self.root / "frameworks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("set -eu\n" + textwrap.dedent(text))
        return path

    def choose(self, **changes: object) -> None:
        self.settings = self.settings.model_copy(update=changes)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """With a builder at work."""
        hired = builder.Builder(self.settings, self.repositories, self._house, random.Random(1))
        async with anyio.create_task_group() as group:
            group.start_soon(hired.run)
            with anyio.fail_after(PATIENCE):
                yield
            group.cancel_scope.cancel()

    async def want(self, commit: str, platform: str = "host", *, repository: str = "engine") -> int:
        return await self.journal.write(lambda tx: builds.want(tx, builds.Key(repository, commit, "generic", platform), 0))

    async def entry(self, build: int) -> builds.Entry:
        entry = await self.journal.read(lambda connection: builds.by_id(connection, build))
        assert entry is not None
        return entry

    async def until(self, build: int, *states: str) -> builds.Entry:
        with self.journal.events.bell("build.") as bell:
            while (entry := await self.entry(build)).state not in states:
                await bell.wait(1)
        return entry

    async def until_idle(self) -> None:
        with self.journal.events.bell("board.") as bell:
            while {notice.state for notice in self.board.notices("builder")} != {"idle"}:
                await bell.wait(1)

    async def build(self, commit: str) -> builds.Entry:
        """Build one commit, by a builder that lives no longer."""
        build = await self.want(commit)
        async with self.running():
            entry = await self.until(build, "built", "failed")
            await self.until_idle()
        return entry

    async def build_script(self, text: str) -> builds.Entry:
        """The outcome of a build by a script of this text."""
        self.script(text)
        return await self.build(self.remote.commit({"main.sh": "#!/bin/sh\n"}))

    def log(self, entry: builds.Entry) -> str:
        return (self.state / entry.log).read_text()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "state/journal.sqlite", events.Events()) as opened:
        yield opened


@pytest.fixture
async def workshop(tmp_path: Path, journal: store.Store) -> AsyncIterator[Workshop]:
    async with launching.Launcher(devices.RunSettings()) as launcher:
        yield Workshop(tmp_path, journal, launcher)


async def test_a_revision_becomes_a_program_in_the_cache(workshop: Workshop) -> None:
    workshop.script('cp "$1/main.sh" "$2"; echo weights > "$(dirname "$2")/weights.txt"; echo made it')
    workshop.script("", "generic/meta.json").write_text('{"compiler": "none"}')
    commit = workshop.remote.commit({"main.sh": "#!/bin/sh\necho hello\n"}, time=1_770_000_000)
    entry = await workshop.build(commit)
    assert entry.state == "built", entry.reason
    assert Path(entry.directory) == workshop.state / "builds/engine/generic/host/2026/02/02" / commit
    assert subprocess.check_output([Path(entry.directory, entry.program)], text=True) == "hello\n"
    assert Path(entry.directory, "weights.txt").read_text() == "weights\n"
    assert entry.meta == {"compiler": "none"}
    assert "made it" in workshop.log(entry)


async def test_nothing_of_a_build_is_left_but_its_programs(workshop: Workshop) -> None:
    entry = await workshop.build_script(COPY + '; mkdir -m 0 "$HOME/locked"; touch "$1/object.o"; chmod a-w "$1"')
    assert entry.state == "built", entry.reason
    assert not list((workshop.state / "build/slot-0").iterdir())
    assert not list((workshop.state / "builds/.incoming").iterdir())


async def test_a_second_builder_builds_nothing_again(workshop: Workshop) -> None:
    first = await workshop.build(workshop.remote.commit({"main.sh": "#!/bin/sh\n"}))
    with workshop.journal.events.bell("build.started") as started:
        again = await workshop.build(first.commit)
        assert not await started.wait(0)
    assert again == first


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
async def test_revisions_that_differ_in_a_comment_have_equal_digests(workshop: Workshop) -> None:
    workshop.script('cd "$1"; gcc -O1 -g0 -DWHERE="\\"$1\\"" -DWHEN=__TIME__ main.c -o "$2"')
    text = '#include <stdio.h>\n/* {comment} */\nint main(void) {{ puts(WHERE " " WHEN); return {code}; }}\n'
    commits = [
        workshop.remote.commit({"main.c": text.format(comment=comment, code=code)})
        for comment, code in (("one", 0), ("two, and longer", 0), ("two, and longer", 3))
    ]
    first, second, third = [await workshop.build(commit) for commit in commits]
    assert [entry.state for entry in (first, second, third)] == ["built"] * 3, first.reason
    assert first.digest == second.digest
    assert third.digest != first.digest


async def test_a_build_sees_only_the_fixed_environment(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAK", "of the daemon's")
    workshop.choose(env={"FLAVOUR": "vanilla"})
    workshop.script('env > "$2"; pwd >> "$2"; ls -A "$HOME" "$TMPDIR" >> "$2"')
    entry = await workshop.build(workshop.remote.commit({}, time=1_771_000_000))
    seen = Path(entry.directory, entry.program).read_text()
    for line in ("SOURCE_DATE_EPOCH=1771000000", "LC_ALL=C", "TZ=UTC", "FLAVOUR=vanilla", f"AIBENCHD_PYTHON={sys.executable}"):
        assert line in seen.splitlines()
    assert f"CCACHE_DIR={workshop.state}/build/ccache" in seen
    assert f"{workshop.state}/build/slot-0/engine/source" in seen
    assert "LEAK" not in seen


async def test_a_failure_is_recorded_once_with_its_reason_and_its_log(workshop: Workshop) -> None:
    entry = await workshop.build_script("echo compiling; echo 'main.c:3: no such thing' >&2; exit 3")
    assert entry.state == "failed"
    assert entry.reason.splitlines() == [
        f"{workshop.root}/frameworks/generic/build.sh ended with exit status 3",
        "compiling",
        "main.c:3: no such thing",
    ]
    assert "main.c:3: no such thing" in workshop.log(entry)
    with workshop.journal.events.bell("build.started") as started:
        assert await workshop.build(entry.commit) == entry
        assert not await started.wait(0)


async def test_a_person_may_have_a_failed_build_tried_again(workshop: Workshop) -> None:
    failed = await workshop.build_script("exit 1")
    workshop.script(COPY)
    async with workshop.running():
        assert await workshop.journal.write(lambda tx: builds.rebuild(tx, failed.id))
        built = await workshop.until(failed.id, "built")
    assert built.reason == ""
    assert built.log != failed.log


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("true", "did not make generic_benchmark"),
        ("kill -SEGV $$", "was killed by signal 11 (Segmentation fault)"),
        ('ln -s /bin/true "$2"', "the link generic_benchmark leads out"),
        (COPY + '; ln -s ../../.. "$(dirname "$2")/up"', "the link up leads out"),
        (COPY + '; mkfifo "$(dirname "$2")/pipe"', "pipe is neither a file"),
        ("exit 9", "ended with exit status 9, and printed nothing"),
    ],
)
async def test_what_a_script_may_not_do_is_said(workshop: Workshop, text: str, reason: str) -> None:
    entry = await workshop.build_script(text)
    assert entry.state == "failed"
    assert reason in entry.reason
    assert reason in workshop.log(entry)


async def test_a_missing_script_names_the_path_expected(workshop: Workshop) -> None:
    shutil.rmtree(workshop.root / "frameworks")
    entry = await workshop.build(workshop.remote.commit({}))
    assert entry.state == "failed"
    assert f"expected {workshop.root}/frameworks/generic/host/build.sh" in entry.reason
    assert "no build script" in workshop.log(entry)


async def test_an_unknown_commit_fails(workshop: Workshop) -> None:
    workshop.remote.commit({})
    entry = await workshop.build("0123456789" * 4)
    assert entry.state == "failed"
    assert "0123456789" in entry.reason


async def test_a_script_that_takes_too_long_is_killed_with_all_that_it_started(workshop: Workshop) -> None:
    pids: list[int] = []
    for timeout in (0.5, 4, 32):  # until it is enough for all three to begin
        workshop.choose(timeout=timeout)
        entry = await workshop.build_script("echo $$; sh -c 'echo $$; exec sleep 1000' & setsid sh -c 'echo $$; exec sleep 1000'")
        assert entry.state == "failed"
        assert "took longer than builds.timeout" in entry.reason
        pids += [int(line) for line in workshop.log(entry).split() if line.isdigit()]
        if len(pids) >= 3:
            break
    assert len(pids) >= 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_what_a_script_leaves_running_is_killed(workshop: Workshop) -> None:
    entry = await workshop.build_script(
        COPY + "; setsid sh -c 'echo $$ > \"$TMPDIR/../output/pid\"; exec sleep 1000' &"
        ' until test -s "$TMPDIR/../output/pid"; do sleep 0.01; done'
    )
    assert entry.state == "built", entry.reason
    assert not Path("/proc", Path(entry.directory, "pid").read_text().strip()).exists()


async def test_of_much_output_the_beginning_and_the_end_are_kept(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "LOG_LIMIT", 1 << 16)
    entry = await workshop.build_script("echo first; yes | head -c 50000000; echo; echo last; exit 1")
    log = workshop.log(entry)
    assert log.startswith("first\n")
    assert "bytes cut here" in log
    assert "\nlast\n" in log
    assert len(log) < 1 << 17
    assert entry.reason.endswith("last")


async def test_a_full_disk_puts_the_build_off_and_is_shown(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "RESTS", (0.01, 0.05))
    flag = workshop.root / "space"
    workshop.script(f'test -e {flag} || {{ echo "write error: No space left on device"; exit 1; }}; {COPY}')
    build = await workshop.want(workshop.remote.commit({"main.sh": "#!/bin/sh\n"}))
    async with workshop.running():
        with workshop.journal.events.bell("build.postponed") as postponed:
            for _ in range(2):
                assert await postponed.wait(PATIENCE)
        (notice,) = [notice for notice in workshop.board.notices("build") if notice.fault]
        assert notice.unit == "build/engine"
        assert "the disk is full" in notice.reason
        flag.touch()
        assert (await workshop.until(build, "built")).reason == ""
        with anyio.fail_after(PATIENCE):  # the journal says it first
            while workshop.board.notices("build"):
                await anyio.sleep(0.01)


async def test_a_remote_that_is_away_puts_the_build_off_and_others_go_on(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "RESTS", (0.01, 0.05))
    away = Remote(workshop.root / "away")
    commit = away.commit({"main.sh": "#!/bin/sh\n"})
    workshop.repositories["away"] = workshop.watched("away", away)
    away.directory.rename(workshop.root / "hidden")
    waiting = await workshop.want(commit, repository="away")
    other = await workshop.want(workshop.remote.commit({"main.sh": "#!/bin/sh\n"}))
    async with workshop.running():
        await workshop.until(other, "built")
        with workshop.journal.events.bell("build.postponed") as postponed:
            assert await postponed.wait(PATIENCE)
        assert (await workshop.entry(waiting)).state in ("queued", "building")
        (workshop.root / "hidden").rename(away.directory)
        await workshop.until(waiting, "built")


async def test_a_build_whose_rest_ends_while_a_slot_looks_is_tried_again_at_once(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "RESTS", (1.0, 1.0))
    monkeypatch.setattr(builder, "LOOK_AGAIN", math.inf)
    next_of = builds.next_of

    def slow(connection: Any, repositories: Collection[str], resting: Collection[int]) -> builds.Entry | None:
        if resting:
            time.sleep(1.0)  # on a thread of the journal's, until what rests does so no more
        return next_of(connection, repositories, resting)

    monkeypatch.setattr(builds, "next_of", slow)
    flag = workshop.root / "space"
    workshop.script(f'test -e {flag} || {{ echo "write error: No space left on device"; exit 1; }}; {COPY}')
    build = await workshop.want(workshop.remote.commit({"main.sh": "#!/bin/sh\n"}))
    async with workshop.running():
        with workshop.journal.events.bell("build.postponed") as postponed:
            assert await postponed.wait(PATIENCE)
        flag.touch()
        await workshop.until(build, "built")


async def test_no_build_runs_while_the_host_measures(workshop: Workshop) -> None:
    build = await workshop.want(workshop.remote.commit({"main.sh": "#!/bin/sh\n"}))
    async with workshop.running():
        async with workshop.gate.measuring():
            with workshop.journal.events.bell("board.") as bell:
                while not any(notice.state == "waiting" for notice in workshop.board.notices("builder")):
                    await bell.wait(1)
            assert (await workshop.entry(build)).state == "queued"
        await workshop.until(build, "built")


async def test_slots_build_side_by_side(workshop: Workshop) -> None:
    workshop.choose(parallel=2)
    meet = workshop.root / "meet"
    meet.mkdir()
    # Each waits for the other, which one after the other never could.
    workshop.script(f'touch {meet}/$$; while test "$(ls {meet} | wc -l)" -lt 2; do sleep 0.01; done; {COPY}')
    commits = [workshop.remote.commit({"main.sh": f"#!/bin/sh\n# {number}\n"}) for number in range(2)]
    wanted = [await workshop.want(commit) for commit in commits]
    async with workshop.running():
        for build in wanted:
            await workshop.until(build, "built")


async def test_a_build_that_is_interrupted_is_made_anew(workshop: Workshop) -> None:
    flag = workshop.root / "go on"
    workshop.script(f'test -e "{flag}" || sleep 1000; {COPY}')
    build = await workshop.want(workshop.remote.commit({"main.sh": "#!/bin/sh\n"}))
    async with workshop.running():
        await workshop.until(build, "building")
        while not list((workshop.state / "build").glob("slot-0/*/output")):
            await anyio.sleep(0.01)
    assert (await workshop.entry(build)).state == "building"
    flag.touch()
    async with workshop.running():
        await workshop.until(build, "built")


async def test_the_cache_is_kept_within_its_size(workshop: Workshop) -> None:
    workshop.choose(cache_size=1500)
    workshop.script('head -c 1000 /dev/zero > "$2"')
    commits = [workshop.remote.commit({"number": str(number)}) for number in range(3)]
    entries = [await workshop.build(commit) for commit in commits]
    states = [(await workshop.entry(entry.id)).state for entry in entries]
    assert states == ["evicted", "evicted", "built"]
    assert [Path(entry.directory).exists() for entry in entries] == [False, False, True]


async def test_an_evicted_build_is_made_again_with_the_same_digest(workshop: Workshop) -> None:
    first = await workshop.build(workshop.remote.commit({"main.sh": "#!/bin/sh\n"}))
    await workshop.journal.write(lambda tx: builds.evict(tx, 0))
    again = await workshop.build(first.commit)
    assert again.id == first.id
    assert again.digest == first.digest
    assert Path(again.directory, again.program).exists()


async def test_a_start_puts_cache_and_journal_in_step(workshop: Workshop) -> None:
    kept, gone = [await workshop.build(workshop.remote.commit({"main.sh": f"#!/bin/sh\n# {n}\n"})) for n in range(2)]
    shutil.rmtree(gone.directory)
    unknown = Path(kept.directory).with_name("f" * 40)
    unknown.mkdir()
    leftover = workshop.state / "build/slot-7/engine/source"
    leftover.mkdir(parents=True)
    async with workshop.running():
        await workshop.until(gone.id, "evicted")
    assert Path(kept.directory).is_dir()
    assert not unknown.exists()
    assert not leftover.exists()


async def test_builds_of_a_repository_that_is_not_configured_wait(workshop: Workshop) -> None:
    stranger = await workshop.want("c" * 40, repository="stranger")
    await workshop.build(workshop.remote.commit({"main.sh": "#!/bin/sh\n"}))
    assert (await workshop.entry(stranger)).state == "queued"


async def test_a_result_is_kept_while_the_journal_cannot_be_written(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "JOURNAL_PAUSES", (0.01, 0.02))
    write, flag = workshop.journal.write, workshop.root / "full"
    workshop.script(f'{COPY}; echo >> {workshop.root}/runs; touch "{flag}"')
    build = await workshop.want(workshop.remote.commit({"main.sh": "#!/bin/sh\n"}))
    refusals = iter(range(3))

    async def fail(work: Callable[[store.Transaction], Any]) -> Any:
        if flag.exists() and next(refusals, None) is not None:
            raise errors.StoreError("the journal cannot be written: the disk is full")
        return await write(work)

    monkeypatch.setattr(workshop.journal, "write", fail)
    async with workshop.running():
        await workshop.until(build, "built")
    assert next(refusals, None) is None
    assert (workshop.root / "runs").read_text() == "\n"


@pytest.mark.parametrize(("point", "before"), [("build.before-commit", "building"), ("build.after-commit", "built")])
async def test_a_builder_that_is_killed_leaves_nothing_half_done(workshop: Workshop, point: str, before: str) -> None:
    commit = workshop.remote.commit({"main.sh": "#!/bin/sh\n"})
    build = await workshop.want(commit)
    killed = await anyio.run_process(
        [sys.executable, Path(__file__).with_name("one_builder.py"), workshop.root],
        env={**os.environ, "AIBENCHD_CRASH_AT": point},
        check=False,
        stderr=None,
    )
    assert killed.returncode == -signal.SIGKILL
    assert (await workshop.entry(build)).state == before
    entry = await workshop.build(commit)
    assert entry.state == "built"
    assert list((workshop.state / "builds").rglob(commit)) == [Path(entry.directory)]
    assert digests.of_tree(Path(entry.directory)) == entry.digest
    assert not list((workshop.state / "build/slot-0").iterdir())


async def test_a_builder_that_ends_leaves_no_notices(workshop: Workshop) -> None:
    await workshop.build(workshop.remote.commit({"main.sh": "#!/bin/sh\n"}))
    assert not workshop.board.notices()


@pytest.fixture
def another_user() -> str:
    if os.geteuid() != 0:
        pytest.skip("only root can have builds run as another user")
    return "nobody"


async def test_builds_may_run_as_another_user(another_user: str, journal: store.Store) -> None:
    # Not below tmp_path, which that user may not enter.
    async with anyio.TemporaryDirectory(prefix="aibenchd-") as name:
        root = Path(name)
        root.chmod(0o755)
        async with launching.Launcher(devices.RunSettings(user=another_user)) as launcher:
            workshop = Workshop(root, journal, launcher)
            entry = await workshop.build_script(
                'umask 077; touch "$1/in-tree"; mkdir -m 700 "$TMPDIR/private"; id -un > "$2"; '
                'mkdir "$(dirname "$2")/lib"; echo data > "$(dirname "$2")/lib/data"'
            )
            assert entry.state == "built", entry.reason
            program = Path(entry.directory, entry.program)
            assert program.read_text() == f"{another_user}\n"
            assert {path.owner() for path in (program, program.parent, program.parent / "lib/data")} == {"root"}
            assert not list((workshop.state / "build/slot-0").iterdir())
