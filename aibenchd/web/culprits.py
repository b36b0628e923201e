"""The commits that a finding may come from, as they are shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aibenchd.store import paging

LEAST_SHOWN = 0.005  # probability of a commit that is listed


def likely(found: Mapping[str, Any]) -> list[paging.Item]:
    """Commits by their probability, each with what it did where it is one of the culprits."""
    effects = {
        commit: {"estimate": one["effect"], "low": one["low"], "high": one["high"]}
        for one in found.get("culprits", ())
        if one.get("effect") is not None
        for commit in one["commits"]
    }
    within = {commit: one.get("within", ()) for one in found.get("culprits", ()) for commit in one["commits"]}
    shares = {commit: share for commit, share in (found.get("by_commit") or {}).items() if share >= LEAST_SHOWN}
    return [
        {"commit": commit, "probability": share, "effect": effects.get(commit), "within": within.get(commit, ())}
        for commit, share in sorted(shares.items(), key=lambda one: -one[1])
    ]
