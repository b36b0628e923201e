"""Submodules of a commit, each in a mirror of its own that is kept between check-outs.

``git submodule update`` would clone every one of them anew for every work tree, and need all their remotes each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from aibenchd import errors
from aibenchd.watch import mirror, process

log = structlog.get_logger()

Mirrors = Callable[[str], mirror.Mirror]


@dataclass(frozen=True, slots=True)
class Submodule:
    """One submodule of a commit; ``path`` as the tree has it, ``url`` as ``.gitmodules`` has it."""

    path: str
    url: str
    commit: str


async def check_out(parent: mirror.Mirror, commit: str, tree: Path, mirror_of: Mirrors) -> None:
    """Fill in the submodules of the work tree ``tree``, and theirs.

    Raises:
        RemoteUnreachableError, UnknownRevisionError: a submodule's commit cannot be had.
        HarnessError: ``.gitmodules`` cannot be read.
    """
    for submodule in await _of(parent, commit):
        url = resolved(submodule.url, parent.url)
        child = mirror_of(url)
        await child.obtain(submodule.commit)
        await child.add_tree(submodule.commit, tree / submodule.path)
        await check_out(child, submodule.commit, tree / submodule.path, mirror_of)


def resolved(url: str, base: str) -> str:
    """A submodule's URL; one that begins with ``./`` or ``../`` is relative to its parent's, by git's own rule.

    Raises:
        HarnessError: it climbs above its parent's host or root.
    """
    if not url.startswith(("./", "../")):
        return url
    start, left, separator = base.removesuffix("/"), url, "/"
    while left.startswith(("./", "../")):
        if left.startswith("../"):
            start, separator = _parent(start, url)
        left = left.split("/", 1)[1]
    return f"{start}{separator}{left}".removesuffix("/")


def directory_of(url: str) -> str:
    """The name of the directory that holds the mirror of ``url``."""
    return f"{hashlib.sha256(url.encode(errors='surrogateescape')).hexdigest()[:24]}.git"


def _parent(url: str, wanted: str) -> tuple[str, str]:
    """``url`` without its last component, and what stood before that: ``host:repository`` has a colon there."""
    match = re.fullmatch(r"(.+)([/:])[^/:]+|(/)[^/]+", url, re.DOTALL)
    if match is None or (match[1] is not None and match[1].endswith(":/")):
        raise errors.HarnessError(f"submodule URL {wanted!r} climbs above {url!r}; mend it in .gitmodules")
    return (match[1], match[2]) if match[1] is not None else ("", "/")


async def _of(parent: mirror.Mirror, commit: str) -> list[Submodule]:
    urls = await _urls(parent, commit)
    found: list[Submodule] = []
    if not urls:
        return found
    async with contextlib.aclosing(parent.git.fields("ls-tree", "-r", "-z", commit)) as entries:
        async for entry in entries:
            kind, _, name = entry.partition(b"\t")
            if not kind.startswith(b"160000 "):
                continue
            path = name.decode(errors="surrogateescape")
            if path in urls:
                found.append(Submodule(path, urls[path], kind.split()[2].decode()))
            else:
                log.warning("submodule without a URL in .gitmodules is left empty", path=path, commit=commit)
    return found


async def _urls(parent: mirror.Mirror, commit: str) -> dict[str, str]:
    """URL by path, of all submodules that ``.gitmodules`` lists and does not keep from being checked out."""
    if not await _has_file(parent, commit):
        return {}
    keys: dict[str, dict[str, str]] = {}
    pattern = r"^submodule\..*\.(path|url|update)$"
    listed = parent.git.fields("config", "--null", "--blob", f"{commit}:.gitmodules", "--get-regexp", pattern)
    try:
        async with contextlib.aclosing(listed) as entries:
            async for entry in entries:
                key, _, value = entry.decode(errors="surrogateescape").partition("\n")
                name, _, last = key.removeprefix("submodule.").rpartition(".")
                keys.setdefault(name, {})[last] = value
    except process.ProgramFailedError as error:
        if error.code != 1:  # 1: no key matches
            raise
    return {
        module["path"].removesuffix("/"): module["url"]
        for module in keys.values()
        if "path" in module and "url" in module and module.get("update") != "none"
    }


async def _has_file(parent: mirror.Mirror, commit: str) -> bool:
    with contextlib.suppress(process.ProgramFailedError):
        return await parent.git.says_yes("cat-file", "-e", f"{commit}:.gitmodules")
    return False
