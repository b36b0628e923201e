"""The coverage matrix as tables, the part of it that is asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import pydantic

from aibenchd.api import server

ROWS = 50  # models on one page
WHOLE = 2_000  # cells, up to which all are looked at to say how many are in each state
PLACES = ("framework", "device", "backend")
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


def named(cells: Sequence[server.Cell], asked: Asked) -> list[server.Cell]:
    """The configured cells of the model, device, framework and backend that are asked for."""
    wanted = [(name, getattr(asked, name)) for name in PLACES if getattr(asked, name) is not None]
    part = (asked.model or "").lower()
    return [cell for cell in cells if part in cell.row.lower() and all(getattr(cell, name) == value for name, value in wanted)]


def part(wanted: Sequence[server.Cell], asked: Asked) -> Sequence[server.Cell]:
    """What must be known to show one page: of a large matrix its rows alone, unless a state is asked for."""
    if asked.state is not None or len(wanted) <= WHOLE:
        return wanted
    rows = _page(sorted({cell.row for cell in wanted}), asked)
    return [cell for cell in wanted if cell.row in rows]


def matrix(cells: Sequence[Mapping[str, Any]], asked: Asked) -> dict[str, Any]:
    """Rows of models by columns of places, of the page that is asked for.

    ``counts`` has how many are in each state, ``found`` how many rows there are on all pages.
    """
    shown = [cell for cell in cells if asked.state in (None, cell["state"])]
    rows = sorted({cell["row"] for cell in shown})
    columns = sorted({cell["column"] for cell in shown if cell["state"] != "impossible" or asked.state == "impossible"})
    placed = {(cell["row"], cell["column"]): cell for cell in shown}
    on_page = rows if len(rows) <= ROWS else _page(rows, asked)
    return {
        "columns": columns,
        "rows": [(row, [placed.get((row, column)) for column in columns]) for row in on_page],
        "counts": _counts(cells),
        "page": asked.page,
        "found": len(rows),
    }


def choices(cells: Iterable[server.Cell]) -> dict[str, list[str]]:
    """What a matrix can be narrowed to."""
    found = {name: {getattr(cell, name) for cell in cells} for name in PLACES}
    return {name: sorted(values - {""}) for name, values in found.items()}


def _page(rows: Sequence[str], asked: Asked) -> Sequence[str]:
    return rows[(asked.page - 1) * ROWS : asked.page * ROWS]


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
