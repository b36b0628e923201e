"""A place to run a build script in, as the builder does, on a machine that has only what is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import trees

import aibenchd.runners

FRAMEWORKS = Path(__file__).parents[2] / "specifications/frameworks"
RUNNERS = Path(aibenchd.runners.__file__).parent
TOOLS = ("sh", "cat", "cp", "find", "head", "dirname", "nproc", "chmod", "sed", "mkdir", "rm", "ls")  # of every machine


class Place:
    """A repository, where its program is to be, and a PATH on which only what is named can be found.

    Args:
        python: the interpreter that the scripts are told of.
    """

    def __init__(self, root: Path, python: str | Path = sys.executable) -> None:
        self.root, self.source, self.program = root, root / "a source", root / "an output/benchmark"
        self._python = python
        self.source.mkdir()
        self.program.parent.mkdir()
        (root / "bin").mkdir()
        for tool in TOOLS:
            (root / "bin" / tool).symlink_to(str(shutil.which(tool)))

    def write(self, files: Mapping[str, str], where: str = "a source") -> None:
        """Write files of the repository, or below another directory of the place."""
        trees.write(self.root / where, files)

    def build(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the script of a framework and platform, such as ``glow/host``."""
        path = {"PATH": str(self.root / "bin"), "AIBENCHD_RUNNERS": str(RUNNERS), "AIBENCHD_PYTHON": str(self._python)}
        command = [FRAMEWORKS / script / "build.sh", self.source, self.program]
        return subprocess.run(command, env=path | variables, capture_output=True, text=True, check=False)

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the program that was built."""
        path = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        return subprocess.run([self.program, *arguments], env=path, capture_output=True, text=True, check=False)
