"""A small lab: a git remote of an engine that takes as long as its commit says, a configuration, and the real daemon on it.

The engine is a shell script. It prints latencies drawn around a figure, so that a block takes milliseconds and its
truth is known; everything else is as in a real lab.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread

BENCH = """#!/bin/sh
exec awk -v seed="$(od -An -N3 -tu4 /dev/urandom)" 'BEGIN {{
    srand(seed)
    printf "PyTorchObserver {{\\"type\\": \\"NET\\", \\"metric\\": \\"latency\\", \\"unit\\": \\"us\\", \\"values\\": ["
    for (i = 0; i < 8; i++) printf "%s%.3f", i ? ", " : "", {latency} * (1 + 0.01 * (rand() - 0.5))
    print "]}}"
}}'
"""
BUILD = '#!/bin/sh\nset -e\ncp "$1/bench" "$2"\n'
BEGAN = datetime(2026, 3, 2, tzinfo=UTC)
WAIT = 60.0  # seconds without a word of the daemon's, after which a test waits no longer for what must come
AT_MOST = 10  # such waits, where the daemon goes on saying something


def specification(*identifiers: str) -> dict[str, Any]:
    """A model file with one test of each name."""
    tests = [{"identifier": name, "metric": "delay", "iter": 1, "commands": ["{program}"]} for name in identifiers]
    return {"model": {"name": "net", "format": "generic"}, "tests": tests}


@dataclass
class Lab:
    directory: Path
    configuration: dict[str, Any] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    @property
    def remote(self) -> Path:
        return self.directory / "remote"

    @property
    def socket(self) -> Path:
        return self.directory / "aibenchd.sock"

    @property
    def config(self) -> Path:
        return self.directory / "aibenchd.yaml"

    @property
    def journal(self) -> Path:
        return self.directory / "state" / "journal.db"

    def commit(self, subject: str, *, bench: str = "", latency: float = 100.0, build: str = BUILD) -> str:
        """Push one more revision; its id."""
        if not self.remote.exists():
            git(self.directory, "init", "-q", "-b", "main", str(self.remote))
        for name, text in (("bench", bench or BENCH.format(latency=latency)), ("build.sh", build), ("subject", subject)):
            (self.remote / name).write_text(text)
            (self.remote / name).chmod(0o755)
        git(self.remote, "add", "-A")
        time = (BEGAN + timedelta(hours=len(self.commits))).isoformat()
        git(self.remote, "commit", "-q", "-m", subject, "--date", time, env={"GIT_COMMITTER_DATE": time})
        self.commits.append(git(self.remote, "rev-parse", "HEAD").strip())
        return self.commits[-1]

    def configure(self, **sections: Any) -> None:
        """Write the configuration, with these sections in place of what was there."""
        self.configuration |= sections
        self.config.write_text(json.dumps(self.configuration, indent=1))

    def write_specification(self, name: str, content: dict[str, Any]) -> None:
        (self.directory / name).write_text(json.dumps(content))

    @contextlib.asynccontextmanager
    async def daemon(self, **env: str) -> AsyncIterator[anyio.abc.Process]:
        """The daemon, told to stop at the end unless it has ended."""
        with (self.directory / "daemon.log").open("ab") as log:
            process = await anyio.open_process(
                [sys.executable, "-m", "aibenchd", "serve", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,  # by which all that it starts is known
                env=os.environ | env,
            )
        try:
            yield process
        finally:
            with anyio.CancelScope(shield=True):
                await end(process)

    async def ctl(self, *arguments: str) -> Any:
        """What the client prints with --json; raises AssertionError with its words where it fails."""
        done = await anyio.run_process(
            [sys.executable, "-m", "aibenchd.api.client", "-s", str(self.socket), *arguments, "--json"], check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    async def ready(self) -> None:
        """Wait until the daemon answers."""
        with anyio.fail_after(WAIT):
            while True:
                with contextlib.suppress(OSError):
                    stream = await anyio.connect_unix(self.socket)
                    await stream.aclose()
                    return
                await anyio.sleep(0.01)

    async def until(self, query: str, wanted: Iterable[Any] = ((1,),), within: float = WAIT) -> None:
        """Wait until the journal answers ``query`` with these rows.

        It is given up ``within`` seconds after the daemon has last logged something; all of it takes as long as it takes.
        """
        rows, said = [tuple(row) for row in wanted], -1
        end = anyio.current_time() + AT_MOST * within
        with anyio.move_on_after(within) as scope:
            while await anyio.to_thread.run_sync(self.rows, query) != rows:
                if (says := self._log_size()) != said:
                    said = says
                    scope.deadline = min(end, anyio.current_time() + within)
                await anyio.sleep(0.02)
        assert not scope.cancelled_caught, f"{query}: {self.rows(query)}; {self.log()[-4000:]}"

    async def until_delivered(self) -> None:
        """Wait until each record that was written has arrived where it was to go."""
        await self.until("SELECT count(*) FROM outbox", [(0,)])

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the journal says; empty while it is not there yet."""
        if not self.journal.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True, timeout=10)) as connection:
            try:
                return [tuple(row) for row in connection.execute(query)]
            except sqlite3.OperationalError:
                return []

    def processes(self) -> list[str]:
        """The command lines of all processes that work below this lab's directory or name it."""
        found = {pid: _about(pid) for pid in Path("/proc").iterdir() if pid.name.isdecimal()}
        return [command for command, about in found.values() if str(self.directory) in about]

    async def until_alone(self) -> None:
        """Wait until no process of this lab is left; what a killed daemon ran ends by itself."""
        with anyio.move_on_after(WAIT) as scope:
            while await anyio.to_thread.run_sync(self.processes):
                await anyio.sleep(0.05)
        assert not scope.cancelled_caught, f"left: {self.processes()}"

    def _log_size(self) -> int:
        file = self.directory / "daemon.log"
        return file.stat().st_size if file.exists() else 0

    def log(self) -> str:
        return (self.directory / "daemon.log").read_text(errors="replace")


def make(directory: Path, sink: str = "") -> Lab:
    """A lab with one benchmark on this host; its engine has no revision yet."""
    made = Lab(directory)
    made.write_specification("net.json", specification("net"))
    made.configure(
        state_directory="state",
        repositories=[
            {"name": "engine", "url": str(made.remote), "framework": "generic", "poll_interval": "200ms", "backlog": 50}
        ],
        builds={"frameworks_directory": str(Path(__file__).parents[2] / "specifications" / "frameworks")},
        devices=[{"name": "host", "kind": "local"}],
        benchmarks=[{"specification": "net.json"}],
        experiment={"alpha": 0.001, "beta": 0.001, "min_effect": 0.02, "disturb_caches": False, "blocks": 2},
        verify={"enabled": False},  # the tests of what follows from verdicts turn these on
        creep={"enabled": False},
        selfcheck={"share": 0},
        sinks=[{"name": "receiver", "kind": "http", "url": sink}] if sink else [],
        status={"socket": "aibenchd.sock"},
    )
    return made


def _about(pid: Path) -> tuple[str, str]:
    """A process's command line, and that with its directory; empty where it is gone, or is a zombie."""
    try:
        command = (pid / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return command, f"{command} {(pid / 'cwd').readlink()}"
    except OSError:
        return "", ""


async def end(process: anyio.abc.Process) -> None:
    """Ask a daemon to stop; kill it where it does not."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with anyio.move_on_after(WAIT):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


def git(directory: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    identity = ("-c", "user.name=Engine", "-c", "user.email=engine@localhost")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True, env=os.environ | (env or {})
    ).stdout
