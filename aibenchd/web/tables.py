"""The coverage matrix as tables, the part of it that is asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import pydantic

ROWS = 50  # models on one page
ALL = ("measured", "running", "queued", "unplanned", "skipped", "inconclusive", "broken", "wrong", "impossible")


class Asked(pydantic.BaseModel):
    """Which part of the matrix. ``model`` is a part of a row's name; ``page`` counts from 1."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    device: str | None = None
    framework: str | None = None
    backend: str | None = None
    state: str | None = None
    page: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 1


def matrix(cells: Sequence[Mapping[str, Any]], asked: Asked) -> dict[str, Any]:
    """Rows of models by columns of places; ``counts`` of the states of all that is asked for, ``pages`` that it takes."""
    named = {name: getattr(asked, name) for name in ("device", "framework", "backend") if getattr(asked, name) is not None}
    wanted = [
        cell
        for cell in cells
        if all(cell[name] == value for name, value in named.items()) and (asked.model or "").lower() in cell["row"].lower()
    ]
    shown = [cell for cell in wanted if asked.state in (None, cell["state"])]
    rows = sorted({cell["row"] for cell in shown})
    on_page = rows[(asked.page - 1) * ROWS : asked.page * ROWS]
    columns = sorted({cell["column"] for cell in shown if cell["state"] != "impossible" or asked.state == "impossible"})
    placed = {(cell["row"], cell["column"]): cell for cell in shown}
    return {
        "columns": columns,
        "rows": [(row, [placed.get((row, column)) for column in columns]) for row in on_page],
        "counts": _counts(wanted),
        "page": asked.page,
        "pages": -(-len(rows) // ROWS),
        "choices": {name: sorted({cell[name] for cell in cells} - {""}) for name in ("device", "framework", "backend")},
    }


def relative(cell: Mapping[str, Any] | None, row: Iterable[Mapping[str, Any] | None]) -> float | None:
    """A cell's median over that of the fastest of its row, minus 1; None where they cannot be compared."""
    fastest = next((one for one in row if one and one["fastest"]), None)
    if not cell or not fastest or cell is fastest or cell["state"] != "measured" or not cell["measured"]:
        return None
    own, least = cell["measured"], fastest["measured"]
    if (own["key"], own["unit"]) != (least["key"], least["unit"]) or not least["median"]:
        return None
    ratio: float = own["median"] / least["median"] - 1
    return ratio


def _counts(cells: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    states = [cell["state"] for cell in cells]
    return {state: states.count(state) for state in dict.fromkeys((*ALL, *states)) if state in states}
