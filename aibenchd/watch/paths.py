"""Path filters: which of a commit's changed paths make it worth a measurement. Pure.

No library of globs fits: ``fnmatch`` lets ``*`` cross a slash, and gitignore's rules (pathspec, wcmatch) match a name
without a slash at any depth, which makes ``include: [setup.py]`` mean more than it says.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from aibenchd import settings

_TOKEN = re.compile(
    r"(?P<dirs>\*\*/)|(?P<all>\*\*)|(?P<star>\*)|(?P<one>\?)"
    r"|\[(?P<not>!?+)(?P<set>\]?[^]/]+|\])\]|(?P<plain>.)",
    re.DOTALL,
)


def touched(filters: settings.PathFilters, path: str) -> bool:
    """Whether ``path`` is included (all are, where nothing is) and not excluded."""
    included = not filters.include or _any(filters.include, path)
    return included and not _any(filters.exclude, path)


def filtering(filters: settings.PathFilters) -> bool:
    """Whether the filters let anything out at all."""
    return bool(filters.include or filters.exclude)


def matches(glob: str, path: str) -> bool:
    """Whether ``glob`` matches the whole of ``path``, which has slashes and begins at the repository's root.

    ``*`` and ``?`` stop at a slash, ``**`` does not, ``**/`` is any number of directories, none too; ``[abc]`` and
    ``[!abc]`` are one character. A glob that ends with a slash means all below that directory.
    """
    return _compiled(glob).fullmatch(path) is not None


def _any(globs: Iterable[str], path: str) -> bool:
    return any(matches(glob, path) for glob in globs)


@functools.lru_cache(1_000)
def _compiled(glob: str) -> re.Pattern[str]:
    whole = f"{glob}**" if glob.endswith("/") else glob
    return re.compile("".join(_translated(token) for token in _TOKEN.finditer(whole)), re.DOTALL)


def _translated(token: re.Match[str]) -> str:
    if token["set"] is not None:
        return _one_of(token["set"], negated=bool(token["not"]))
    wild = {"dirs": "(?:[^/]+/)*", "all": ".*", "star": "[^/]*", "one": "[^/]"}
    return wild.get(str(token.lastgroup)) or re.escape(token["plain"])


def _one_of(characters: str, *, negated: bool) -> str:
    ranges = re.findall("(.)-(.)|(.)", characters, re.DOTALL)
    listed = "".join(_range(low, high) if low else re.escape(single) for low, high, single in ranges)
    if negated:
        return f"[^/{listed}]"
    return f"[{listed}]" if listed else "(?!)"


def _range(low: str, high: str) -> str:
    return f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""
