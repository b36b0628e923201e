"""A developer's desk: the real command line, with directories of its own in place of the user's."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAIT = 300.0  # seconds that a run may take on a machine that is busy
# Prints what it was built to say, drawn around a figure: see tests/support/lab.py for a whole engine.
PROGRAM = """#!/bin/sh
echo 'PyTorchObserver {"type": "NET", "metric": "latency", "unit": "us", "values": [812.0, 809.5, 811.2]}'
"""


@dataclass(frozen=True)
class Done:
    """A run that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What it printed, all of which is one object."""
        printed: dict[str, Any] = json.loads(self.out)
        return printed

    @property
    def only(self) -> dict[str, Any]:
        """Its only experiment."""
        (one,) = self.json["experiments"]
        return dict(one)


@dataclass
class Desk:
    directory: Path

    def environment(self, **more: str) -> dict[str, str]:
        own = {f"XDG_{kind.upper()}_HOME": str(self.directory / kind) for kind in ("config", "cache")}
        return {**os.environ, **own, "TERM": "xterm", "COLUMNS": "160", **more}

    def program(self, name: str, text: str = PROGRAM) -> str:
        """A program on it; its path."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def specification(self, **model: Any) -> str:
        """A model file for :data:`PROGRAM`; its path."""
        path = self.directory / "net.json"
        test = {"identifier": "net", "metric": "delay", "iter": 1, "commands": ["{program}"]}
        path.write_text(json.dumps({"model": {"name": "net", "format": "generic", **model}, "tests": [test]}))
        return str(path)

    def start(self, *words: str, **how: Any) -> subprocess.Popen[str]:
        """Begin a run."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command(words), **pipes, cwd=self.directory, env=self.environment(), **how)

    def run(self, *words: str) -> Done:
        """A run to its end, with no terminal."""
        with self.start(*words) as process:
            try:
                out, err = process.communicate(timeout=WAIT)
            except subprocess.TimeoutExpired:
                process.terminate()
                raise
        return Done(process.returncode, out, err)

    def on_terminal(self, *words: str, typed: str = "", **env: str) -> Done:
        """A run on a terminal of its own, on which somebody has typed; all that it showed is in ``out``."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.directory)
            os.execve(sys.executable, command(words), self.environment(**env))
        try:
            os.write(terminal, typed.encode())
            shown = _read(terminal)
        finally:
            os.close(terminal)
        _, status = os.waitpid(pid, 0)
        return Done(os.waitstatus_to_exitcode(status), shown, "")

    def processes(self) -> list[str]:
        """The command lines of all processes that name something on this desk."""
        found = []
        for pid in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if pid.name.isdecimal() and str(self.directory).encode() in (text := (pid / "cmdline").read_bytes()):
                    found.append(text.replace(b"\0", b" ").decode(errors="replace"))
        return found


def command(words: Sequence[str]) -> list[str]:
    """How the program is started."""
    return [sys.executable, "-m", "aibenchd", *words]


def _read(terminal: int) -> str:
    shown = b""
    while select.select([terminal], [], [], WAIT)[0]:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the other end is closed: how Linux tells it
            break
        if not piece:
            break
        shown += piece
    return shown.decode(errors="replace").replace("\r\n", "\n")
