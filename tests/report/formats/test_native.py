from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from aibenchd import model
from aibenchd.report import base
from aibenchd.report.formats import native

NATIVE = native.Native(base.FormatSettings(kind="native"))


def test_body_is_the_records_as_they_were_written(made: Callable[..., list[model.Record]]) -> None:
    records = made(2) + made(1, "samples")
    body = json.loads(NATIVE.body(records, ""))
    assert body == {"version": 1, "records": [record.payload for record in records]}


@pytest.mark.parametrize(
    ("reply", "taken"),
    [(b"", True), (b"ok", True), (b"[]", True), (b'{"accepted": 3}', True), (b'{"accepted": 2}', False), (b"[" * 100_000, True)],
)
def test_any_reply_acknowledges_but_another_count(made: Callable[..., list[model.Record]], reply: bytes, taken: bool) -> None:
    assert (NATIVE.answer(made(3), reply) is base.Answer.DONE) is taken


def test_category_is_refused() -> None:
    with pytest.raises(ValueError, match="no categories"):
        native.Native(base.FormatSettings(kind="native"), "perf")
