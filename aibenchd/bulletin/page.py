"""A report as HTML: one file that needs no other, no script and no network, and whose size is bounded.

What is written in it comes from commits, specifications and programs: all of it is escaped, secrets are masked, and characters
that HTML may not hold, or that turn text around, are replaced.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
import markupsafe

from aibenchd import redaction
from aibenchd.bulletin import contents
from aibenchd.store import paging
from aibenchd.web import render

PARTS = (
    ("findings", "Findings"),
    ("drifts", "Drifts"),
    ("measured", "Measured"),
    ("trouble", "Not decided"),
    ("devices", "Devices"),
    ("comparison", "Comparison"),
    ("commits", "Over commits"),
    ("experiments", "Experiments"),
)
PIECES = 64  # of a template, that are written at a time
CLEANED = 10_000  # texts that are kept
NO_BLOCKS = "identical"  # the verdict of what was not run
# Controls, marks of direction, halves of pairs, and what stands for no character.
REPLACED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def written(reader: contents.Reader, now: datetime) -> Iterator[str]:
    """All of the file, piece by piece."""
    listed = reader.experiments()
    facts = {**reader.summary(listed, now), "creep": reader.chosen.creep.enabled, "parts": PARTS}
    facts |= {"style": _style(), "totals": _totals(facts["devices"])}
    run = [item["id"] for item in listed if item["verdict"] != NO_BLOCKS]
    sections: Iterable[markupsafe.Markup] = (experiment(reader.experiment(number)) for number in run)
    if reader.limits.size is not None:
        sections = list(_fitting(sections, reader.limits.size - _size(_page(facts, run, ()))))
        run = run[: len(sections)]
    yield from _page(facts, run, sections)


def experiment(facts: Mapping[str, Any]) -> markupsafe.Markup:
    """One experiment with its pictures."""
    return markupsafe.Markup(environment().get_template("report_experiment.html").render(facts))  # noqa: S704  it escapes


@functools.cache
def environment() -> jinja2.Environment:
    """The dashboard's, in which all text is looked at before it is written."""
    made = render.environment().overlay(finalize=_shown)
    made.filters = {**made.filters, "truncate": _truncated}
    return made


@jinja2.pass_environment
def _truncated(environment: jinja2.Environment, text: str, length: int) -> str:
    """Looked at before it is cut: half of a secret is not known for one."""
    return jinja2.filters.do_truncate(environment, _cleaned(text), length)


def _shown(value: Any) -> Any:
    return _cleaned(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value


@functools.lru_cache(CLEANED)  # names and words come again and again
def _cleaned(text: str) -> str:
    return REPLACED.sub("\N{REPLACEMENT CHARACTER}", redaction.text(text))


def _page(facts: Mapping[str, Any], plotted: Sequence[int], sections: Iterable[markupsafe.Markup]) -> Iterator[str]:
    stream = environment().get_template("report.html").stream({**facts, "plotted": frozenset(plotted), "sections": sections})
    stream.enable_buffering(PIECES)
    return iter(stream)


def _fitting(sections: Iterable[markupsafe.Markup], room: int) -> Iterator[markupsafe.Markup]:
    """The first of them, that have room."""
    for section in sections:
        room -= _size([section])
        if room < 0:
            return
        yield section


def _size(pieces: Iterable[str]) -> int:
    return sum(len(piece.encode()) for piece in pieces)


def _style() -> markupsafe.Markup:
    return markupsafe.Markup((render.STATIC / "style.css").read_text(encoding="utf-8"))  # noqa: S704  it is ours


def _totals(devices: Iterable[paging.Item]) -> paging.Item:
    worked = [device["worked"] for device in devices if device["worked"]]
    trials = sum(sum(one.trials.values()) for one in worked)
    return {"trials": trials, "seconds": sum(one.seconds for one in worked)}
