"""Answers as HTML. Everything that is shown is escaped; what is markup says so by its type."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
import markupsafe

from aibenchd.api import devices, experiments, findings, screen
from aibenchd.store import triage
from aibenchd.web import charts, tables

HERE = Path(__file__).parent
STATIC = HERE / "static"
SHORT = 9  # characters of a commit
MANY = 1e6  # to one
LARGEST = 700.0  # logarithm of a number that a float holds
HALF_WIDTH = 60  # of an interval that is drawn in a row, either side of no change
LEAST_SPREAD, MOST_SPREAD = 0.02, 0.5  # that the rows of a table are drawn to, as a ratio minus 1


def page(template: str, facts: Mapping[str, Any]) -> str:
    """The whole of a page."""
    return environment().get_template(template).render(facts)


@functools.cache
def environment() -> jinja2.Environment:
    """Made once; in its templates all text is escaped, and a name that nothing was given for is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ago": ago,
        "forest": forest,
        "json": embedded,
        "percent": percent,
        "quantity": screen.quantity,
        "figure": figure,
        "busy_for": devices.busy_for,
        "finds": finds,
        "left": experiments.left_of,
        "share": share,
        "signed": signed,
        "short": short,
        "size": screen.size,
        "spread": spread,
        "tally": screen.tally,
        "as_text": json.dumps,
        "done": done,
        "errors": errors_of,
        "odds": odds,
        "pretty": pretty,
        "quantity_of": quantity_of,
        "relative": tables.relative,
        "span_of": span_of,
        "when": when,
        "word": word,
        "doubted": experiments.doubted,
        "changed": experiments.changed,
        "part": part,
    }
    made.tests |= {"unmeasured": findings.is_unmeasured, "told": findings.is_told}
    made.globals |= {"static": static, "link": link}
    return made


@functools.cache
def static(name: str) -> str:
    """The address of a file that comes with the pages; another one where its bytes are others, so that it may be kept."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{digest}/{name}"


def link(path: str, **query: Any) -> str:
    """A path with those parameters that say something."""
    told = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(told)}" if told else path


def part(text: str) -> str:
    """Text as one part of a path."""
    return quote(text, safe="")


def ago(time: str | None) -> markupsafe.Markup | str:
    """How long ago it was, such as ``3m ago``; the script keeps it true."""
    if not time:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()
    markup = markupsafe.Markup('<time datetime="{0}" title="{1}" data-ago>{2} ago</time>')
    return markup.format(time, when(time), screen.span(max(seconds, 0)))


def when(time: str | None) -> str:
    """A time to the minute, UTC."""
    return "" if not time else datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def short(commit: str | None) -> str:
    """As much of a commit as tells it apart."""
    return (commit or "")[:SHORT]


def percent(ratio: float | None, digits: int = 1) -> str:
    """A ratio minus 1, with its sign: ``+2.1 %``."""
    if ratio is None:
        return ""
    return f"{signed(100 * ratio, digits)}\N{NO-BREAK SPACE}%"


def signed(number: float, digits: int = 1) -> str:
    """With its sign, where it is not nothing."""
    text = f"{number:+.{digits}f}"
    return text.lstrip("+-") if not float(text) else text.replace("-", "\N{MINUS SIGN}")


def finds(smallest: Iterable[float | None] | None) -> str:
    """The smallest change that is found on a device: of its quietest benchmark, and of its noisiest."""
    named = dict.fromkeys("none" if one is None else f"{100 * one:.1f}\N{NO-BREAK SPACE}%" for one in smallest or ())
    return " … ".join(named)


def share(ratio: float | None) -> str:
    """Of a whole: ``97 %``."""
    return "" if ratio is None else f"{100 * ratio:.0f}\N{NO-BREAK SPACE}%"


def word(item: Mapping[str, Any]) -> str:
    """How an experiment ended or stands."""
    return experiments.ended(item)


def quantity_of(value: float | None, unit: str, signed: bool = False) -> str:
    """A value in three digits and the unit that suits it."""
    if value is None:
        return ""
    text = screen.size(abs(value)) if unit == "B" else screen.quantity(abs(value), unit)
    sign = "\N{MINUS SIGN}" if value < 0 else "+" if signed and value > 0 else ""
    return sign + text.replace(" us", " \N{MICRO SIGN}s").replace(" ", "\N{NO-BREAK SPACE}")


def figure(measured: Mapping[str, Any]) -> dict[str, str]:
    """The ``median`` of a cell with its unit, and the ends of its interval in the same."""
    said, unit = charts.aligned([measured[name] for name in ("median", "low", "high")], measured["unit"])
    return {"median": f"{said[0]}\N{NO-BREAK SPACE}{unit}".rstrip(), "low": said[1], "high": said[2]}


def odds(evidence: float) -> str:
    """Of the logarithm of an e-value, in three digits."""
    value = math.exp(min(evidence, LARGEST))
    return f"{value:.1e}" if value >= MANY else f"{float(f'{value:.3g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def done(action: str) -> str:
    """What somebody made of a finding, as it is told."""
    return triage.DONE.get(action, action)


def errors_of(outputs: Iterable[Mapping[str, Any]]) -> str:
    """How far outputs are from what they should be."""
    return ", ".join(
        f"{one['type'].removeprefix('ERROR ')} {one['metric']} {value:.2g}"
        for one in outputs
        if (value := next((one["treatment"][name] for name in ("p50", "mean") if name in (one["treatment"] or {})), None))
        is not None
    )


def pretty(value: Any) -> str:
    """JSON for a person."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def span_of(items: Iterable[Mapping[str, Any]]) -> float:
    """As :func:`spread`, of changes in units."""
    ends = [abs(item[name]) for item in items for name in ("low", "high", "change") if item.get(name) is not None]
    return max(ends, default=1.0) or 1.0


def spread(items: Iterable[Mapping[str, Any]]) -> float:
    """What the intervals of a table are drawn to, so that its rows can be compared."""
    ends = (item.get(name) for item in items for name in ("low", "high", "estimate"))
    widest: float = max([LEAST_SPREAD, *(abs(end) for end in ends if end is not None)])
    return min(widest, MOST_SPREAD)


def forest(item: Mapping[str, Any], most: float) -> dict[str, float] | None:
    """Where a row's interval is drawn: ``low``, ``high`` and ``at`` from 0 to ``width``; None where there is none."""
    estimate, low, high = (item.get(name) for name in ("estimate", "low", "high"))
    if estimate is None:
        return None
    ends = {"low": estimate if low is None else low, "high": estimate if high is None else high, "at": estimate}
    placed = {name: round(HALF_WIDTH * (1 + max(-1.0, min(1.0, end / most))), 1) for name, end in ends.items()}
    return placed | {"width": 2 * HALF_WIDTH}


def embedded(value: Any) -> markupsafe.Markup:
    """Data that a script of ours reads; nothing in it can end the element that holds it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return markupsafe.Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704
