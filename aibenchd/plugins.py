"""Kinds of things, looked up by entry point. A kind is imported when a configuration names it, not before."""

from __future__ import annotations

import functools
import importlib.metadata

from aibenchd import errors


@functools.cache
def names(group: str) -> tuple[str, ...]:
    """The kinds that installed packages offer, such as ``names("devices")``; sorted."""
    return tuple(sorted({point.name for point in importlib.metadata.entry_points(group=f"aibenchd.{group}")}))


@functools.cache
def load(group: str, kind: str) -> type:
    """The class behind one kind, such as ``load("devices", "local")``.

    Raises:
        UnknownKindError: no installed package offers it, or the one that does cannot be imported.
    """
    points = importlib.metadata.entry_points(group=f"aibenchd.{group}", name=kind)
    if not points:
        raise errors.UnknownKindError(f"{kind!r} is none of the installed kinds of {group}: {', '.join(names(group)) or 'none'}")
    try:
        loaded: type = next(iter(points)).load()
    except Exception as error:  # another's module may raise anything
        raise errors.UnknownKindError(f"{kind!r} of {group} cannot be imported: {type(error).__name__}: {error}") from error
    return loaded
