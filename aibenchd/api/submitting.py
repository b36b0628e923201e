"""``aibenchctl submit``: what a person builds at a desk, sent to the daemon."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from aibenchd.api import call, screen, sending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILES = (".json", ".yaml", ".yml")  # how a SPEC ends that must be a file


def submit(daemon: call.Daemon, spec: str, options: Mapping[str, Sequence[str]], status: screen.Status) -> bytes:
    """Have programs measured; the daemon's answer.

    Args:
        spec: a file, or the identifier of a benchmark that the daemon has.
        options: of the command line, by name.
        status: shows what is under way.

    Raises:
        Unfit: something that is named cannot be sent.
        call.Refused, call.Unreachable: the daemon will not, or does not answer.
    """
    programs = {arm: _program(options[arm][-1]) for arm in ("treatment", "control") if arm in options}
    if "treatment" not in programs:
        raise sending.Unfit("--treatment PROGRAM: which program is to be measured?")
    body: dict[str, Any] = {
        **{arm: {"name": options[arm][-1], "digest": program.digest} for arm, program in programs.items()},
        **{name: options[name][-1] for name in ("framework", "note", "priority", "blocks") if name in options},
        "devices": options.get("device", []),
        "backends": options.get("backend", []),
    }
    files = None
    if _is_file(spec):
        directory, name = _place(Path(spec), options.get("directory", [""])[-1])
        files = sending.Files(directory)
        files.name(name)
        body["specification"] = {"name": name, "string_map": dict(map(_set, options.get("set", [])))}
    elif {"set", "directory"} & options.keys():
        raise sending.Unfit("--set and --directory go with a file; what the daemon has is as its configuration says")
    else:
        body["benchmarks"] = [spec]
    return sending.submit(daemon, body, programs, files, status)


def _is_file(spec: str) -> bool:
    """Whether a file is meant.

    Raises:
        Unfit: one is, and is not there.
    """
    if Path(spec).is_dir():
        raise sending.Unfit(f"{spec}: is a directory; name a model file or a benchmarks file")
    if Path(spec).is_file():
        return True
    if "/" in spec or spec.endswith(FILES):
        raise sending.Unfit(f"{spec}: there is no such file")
    return False


def _place(spec: Path, directory: str) -> tuple[Path, str]:
    """The directory that a specification's files are sent from, and its own path below it."""
    found = Path(directory).resolve() if directory else spec.resolve().parent
    if not found.is_dir() or not spec.resolve().is_relative_to(found):
        raise sending.Unfit(f"--directory {directory}: is no directory that {spec} lies below")
    return found, spec.resolve().relative_to(found).as_posix()


def _program(named: str) -> sending.File | sending.Directory:
    path = Path(named)
    if not path.exists():
        raise sending.Unfit(f"{named}: there is no such program")
    if path.is_file() and not os.access(path, os.X_OK):
        raise sending.Unfit(f"{named}: is not executable; chmod +x it, or name the program")
    return sending.of(path)


def _set(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise sending.Unfit(f"--set KEY=VALUE: expected an equals sign after a name, not {text!r}")
    return key, value
