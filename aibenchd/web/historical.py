"""One benchmark on one device over revisions as its page shows it. Pure."""

from __future__ import annotations

from aibenchd.api import screen
from aibenchd.store import views
from aibenchd.web import charts


def shown(answer: views.Item, min_effect: float) -> views.Item:
    """What is made of a history, for its template: a group for each series, newest first in each."""
    history, series = answer["history"], answer["series"] or {"levels": [], "creep": None}
    metric = charts.main_metric(history)
    by_series: dict[tuple[str, str], list[views.Item]] = {}
    for item in history:
        by_series.setdefault((item["repository"], item["backend"]), []).append(item)
        item["shown"] = _figure(item, metric)
    subjects = {item["treatment"]: item["subject"] or "" for item in history}
    return {
        "metric": metric,
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


def _figure(item: views.Item, metric: str) -> str:
    for result in item["results"]:
        if result["metric"] == metric and "p50" in (result["treatment"] or {}):
            return screen.quantity(result["treatment"]["p50"], result["unit"])
    return ""
