"""One benchmark on one device over revisions as its page shows it. Pure."""

from __future__ import annotations

from aibenchd.store import paging
from aibenchd.web import charts


def shown(answer: paging.Item, min_effect: float) -> paging.Item:
    """What is made of a history, for its template: a group for each series, newest first in each."""
    history, series = answer["history"], answer["series"] or {"levels": [], "creep": None}
    metric = charts.main_metric(history)
    by_series: dict[tuple[str, str], list[paging.Item]] = {}
    for item in history:
        by_series.setdefault((item["repository"], item["backend"]), []).append(item)
    figures, unit = _figures(history, metric)
    for item, said in zip(history, figures, strict=True):
        item["shown"] = said
    subjects = {item["treatment"]: item["subject"] or "" for item in history}
    return {
        "metric": metric,
        "unit": unit,
        "groups": [
            {
                "name": " ".join(filter(None, (repository, backend))),
                "changes": charts.changes(items, min_effect),
                "times": charts.times(items, metric),
            }
            for (repository, backend), items in by_series.items()
        ],
        "levels": charts.levels(series["levels"], subjects) if len(series["levels"]) > 1 else None,
        "level_of": {one["commit"]: f"{one['ratio']:.3f}" for one in series["levels"]},
    }


def _figures(history: list[paging.Item], metric: str) -> tuple[list[str], str]:
    """The median of each, and the unit that all are in."""
    results = [next((one for one in item["results"] if one["metric"] == metric), None) for item in history]
    values = [None if one is None else (one["treatment"] or {}).get("p50") for one in results]
    return charts.aligned(values, next((one["unit"] for one in results if one), ""))
