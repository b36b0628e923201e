from __future__ import annotations

from aibenchd import substitution


def test_values_are_replaced_at_any_depth_and_keys_are_not() -> None:
    value = {"{a}": ["{a} {b}", {"deep": "x{a}x"}], "number": 3, "nothing": None}
    assert substitution.replaced(value, {"a": "1"}) == {"{a}": ["1 {b}", {"deep": "x1x"}], "number": 3, "nothing": None}


def test_a_text_may_bring_in_a_name_that_comes_later() -> None:
    assert substitution.replaced("{a}", {"a": "<{b}>", "b": "2"}) == "<2>"


def test_what_is_given_is_not_changed() -> None:
    value = {"list": ["{a}"]}
    substitution.replaced(value, {"a": "1"})
    assert value == {"list": ["{a}"]}
