"""What is measured next halves what is in doubt, and is worth the build that it needs."""

from __future__ import annotations

from typing import Any

from aibenchd.plan import bisect, choice


def begun(**given: Any) -> bisect.Search:
    """32 commits, the last of which is 5 % slower than the first."""
    return bisect.Search(32, min_effect=0.02, **given).with_evidence(32, 0, [0.05, 0.049, 0.051] * 4)


def test_with_equal_prices_the_line_is_halved() -> None:
    (first,) = choice.next_measurements(begun(built=frozenset(range(33))))
    assert first.newer in (15, 16, 17)
    assert first.older == 0


def test_what_is_running_already_is_taken_as_told() -> None:
    search = begun(built=frozenset(range(33)))
    running = [bisect.Measurement(16, 0)] * 8
    (next_one,) = choice.next_measurements(search, pending=running)
    assert next_one.newer not in (15, 16, 17)


def test_a_commit_that_is_built_is_taken_before_a_better_one_that_is_not() -> None:
    (dear,) = choice.next_measurements(begun(built=frozenset({12}), build_price=200.0))
    (cheap,) = choice.next_measurements(begun(built=frozenset({12}), build_price=0.0))
    assert dear.newer == 12
    assert cheap.newer in (15, 16, 17)


def test_where_no_build_is_left_only_what_is_built_is_measured() -> None:
    blocks = choice.next_measurements(begun(built=frozenset({30}), max_builds=0), 6)
    assert {place for one in blocks for place in (one.newer, one.older)} <= {0, 30, 32}
