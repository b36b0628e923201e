from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aibenchd.specs import handwriting

KEYS = st.text(max_size=5)
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)


@given(VALUES, st.dictionaries(KEYS, SCALARS, min_size=1), st.sampled_from([None, 0, 1, 4]), st.booleans())
def test_a_key_in_any_json_is_that_key_and_nothing_else(
    value: Any, mapping: dict[str, Any], indent: int | None, escaped: bool
) -> None:
    text = json.dumps({"before": value, "here": [value, mapping], "after": value}, indent=indent, ensure_ascii=escaped)
    new = handwriting.with_key(text, is_json=True, key="digest", values={("here", 1): "0"})
    expected = {"before": value, "here": [value, {**mapping, "digest": "0"}], "after": value}
    assert new == json.dumps(expected, indent=indent, ensure_ascii=escaped)


def test_several_at_once() -> None:
    text = '[{"a": 1}, {"a": 2, "key": null}, {"a": 3}]'
    new = handwriting.with_key(text, is_json=True, key="key", values={(1,): "y", (0,): "x"})
    assert new == '[{"a": 1, "key": "x"}, {"a": 2, "key": "y"}, {"a": 3}]'
