"""The build script of a framework and platform: which one it is, and in what environment it runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

import aibenchd.runners
from aibenchd import errors, model, settings
from aibenchd.build import slot
from aibenchd.store import builds

NAME = "build.sh"
META = "meta.json"
COMPILER_CACHES = ("/usr/lib/ccache", "/usr/lib64/ccache")  # where distributions keep compilers that go through ccache
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
META_LIMIT = 64 << 10  # bytes


@dataclass(frozen=True, slots=True)
class Script:
    """A build script, and what ``meta.json`` beside it says."""

    path: Path
    meta: model.JsonObject

    def argv(self, source: Path, program: Path) -> tuple[str, ...]:
        """How to run it: by its interpreter line where it is executable, else with ``sh``."""
        command = (str(self.path), str(source), str(program))
        return command if os.access(self.path, os.X_OK) else ("sh", *command)


OF_PROGRAMS = Script(Path(__file__).with_name("programs.sh"), {})  # of what needs no building: it says how that is laid out


def only_program(directory: Path, named: str) -> str:
    """The name of the only executable in a directory.

    Args:
        named: what people call the directory.

    Raises:
        CommandError: there is none, or several.
    """
    found = sorted(path.name for path in directory.iterdir() if path.is_file() and path.stat().st_mode & 0o111)
    if len(found) != 1:
        told = f"several executables ({', '.join(found[:5])}" + (", …)" if found[5:] else ")") if found else "no executable"
        raise errors.CommandError(f"{named}: has {told}; name the program in it, or call the main one <framework>_benchmark")
    return found[0]


def find(frameworks: Path, framework: str, platform: str) -> Script:
    """The script nearest to ``<frameworks>/<framework>/<platform>``, looked for upwards to the framework's own directory.

    Raises:
        BuildError: there is none, a name leads out of ``frameworks``, or its ``meta.json`` is no JSON object.
    """
    for name in (framework, platform):
        if not name or not all(part not in ("", ".", "..") for part in name.split("/")):
            raise errors.BuildError(f"{name!r} cannot name a framework or platform; use words such as pytorch or android/arm64")
    top = frameworks.absolute() / framework
    wanted = top / platform
    for directory in (wanted, *wanted.parents):
        if (directory / NAME).is_file():
            return Script(directory / NAME, _meta(directory / META))
        if directory == top:
            break
    there = platforms(frameworks, framework)
    advice = f"there are scripts for the platforms {', '.join(there)}: name one of these, or write one" if there else "write one"
    raise errors.BuildError(f"no build script: expected {wanted / NAME} or {top / NAME}; {advice}")


def platforms(frameworks: Path, framework: str) -> tuple[str, ...]:
    """Those that a framework has scripts of their own for, sorted."""
    top = frameworks.absolute() / framework
    return tuple(sorted(str(path.parent.relative_to(top)) for path in top.rglob(NAME) if path.parent != top))


def program_name(framework: str) -> str:
    """The file name of a framework's main program."""
    return f"{PurePosixPath(framework).name}_benchmark"


def environment(
    chosen: settings.BuildSettings, where: slot.Slot, compiler_cache: Path, time: datetime, copy: int
) -> dict[str, str]:
    """All variables that a build sees: few, and the same for every revision but for ``SOURCE_DATE_EPOCH``, its commit time.

    ``AIBENCHD_COPY`` is not 0 in a build that is made to tell what a revision does from what one build of it happens to do:
    a script may lay out its programs otherwise then. What the configuration names in ``builds.env`` wins. Where the copy is to
    have another memory layout, ``AIBENCHD_LAYOUT_SEED`` is its seed, and ``builds.layout`` is appended.
    """
    fixed = {
        "PATH": PATH,
        "HOME": str(where.home),
        "TMPDIR": str(where.temporary),
        "LC_ALL": "C",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(int(time.timestamp())),
        "AIBENCHD_RUNNERS": str(Path(aibenchd.runners.__file__).parent),
        "AIBENCHD_PYTHON": sys.executable,
        "AIBENCHD_COPY": str(copy),
    }
    variables = fixed | (_cached(compiler_cache) if chosen.compiler_cache else {}) | chosen.env
    seed = builds.layout_of(copy)
    return _laid_out(variables, chosen.layout, seed) if seed else variables


def _laid_out(variables: Mapping[str, str], layout: Mapping[str, str], seed: int) -> dict[str, str]:
    added = {name: f"{variables.get(name, '')} {text.replace('{seed}', str(seed))}".strip() for name, text in layout.items()}
    return {**variables, **added, "AIBENCHD_LAYOUT_SEED": str(seed)}


def _cached(directory: Path) -> dict[str, str]:
    wrappers = [path for path in COMPILER_CACHES if Path(path).is_dir()]
    return {"CCACHE_DIR": str(directory), "CCACHE_UMASK": "007", "PATH": ":".join((*wrappers, PATH))}


def _meta(path: Path) -> model.JsonObject:
    try:
        with path.open("rb") as file:
            text = file.read(META_LIMIT + 1)
        if len(text) > META_LIMIT:
            raise errors.BuildError(f"{path}: larger than {META_LIMIT} bytes; keep a few facts in it")
        meta = json.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise errors.BuildError(f"{path}: not to be read as JSON: {error}; correct or remove it") from error
    if not isinstance(meta, dict):
        raise errors.BuildError(f"{path}: expected a JSON object, found {type(meta).__name__}")
    return meta
