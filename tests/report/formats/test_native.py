from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from aibenchd import model
from aibenchd.report.formats import native


def test_body_is_the_records_as_they_were_written(made: Callable[..., list[model.Record]]) -> None:
    records = made(2) + made(1, "samples")
    body = json.loads(native.Native("").body(records, ""))
    assert body == {"version": 1, "records": [record.payload for record in records]}


@pytest.mark.parametrize(
    ("reply", "taken"),
    [(b"", True), (b"ok", True), (b"[]", True), (b'{"accepted": 3}', True), (b'{"accepted": 2}', False), (b"[" * 100_000, True)],
)
def test_any_reply_acknowledges_but_another_count(made: Callable[..., list[model.Record]], reply: bytes, taken: bool) -> None:
    assert native.Native("").acknowledged(made(3), reply) is taken


def test_category_is_refused() -> None:
    with pytest.raises(ValueError, match="no categories"):
        native.Native("perf")
