from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import model
from aibenchd.specs import expand


def document(*tests: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": {"name": "net", "format": "caffe2", **fields}, "tests": list(tests)}


def a_test(**fields: Any) -> dict[str, Any]:
    return {"identifier": "{ID}", "metric": "delay", "iter": 5, **fields}


def identifiers(*tests: dict[str, Any]) -> list[str]:
    return [benchmark.identifier for benchmark in expand.benchmarks(document(*tests))]


def test_each_test_becomes_a_benchmark_with_its_number() -> None:
    assert identifiers(a_test(commands=["a"]), a_test(commands=["b"], identifier="x-{ID}")) == ["0", "x-1"]


def test_shapes_become_tests_in_order_and_count_for_the_number() -> None:
    inputs = {"data": {"shapes": [[1, 3], [2, 3]], "type": "float"}, "more": {"shapes": [[4], [5]], "type": "int"}}
    found = expand.benchmarks(document(a_test(commands=["a"]), a_test(inputs=inputs)))
    assert [benchmark.identifier for benchmark in found] == ["0", "1", "2"]
    assert [benchmark.test.get("inputs") for benchmark in found] == [
        None,
        {"data": {"shapes": [[1, 3]], "type": "float"}, "more": {"shapes": [[4]], "type": "int"}},
        {"data": {"shapes": [[2, 3]], "type": "float"}, "more": {"shapes": [[5]], "type": "int"}},
    ]


def test_arguments_and_command_become_commands() -> None:
    tests = (a_test(arguments="--iter {iter}", command="lost"), a_test(command="run it", commands=["lost"]))
    one, two = expand.benchmarks(document(*tests))
    assert one.test["commands"] == ["{program} --iter {iter}"]
    assert "arguments" not in one.test
    assert (two.test["commands"], two.test["command"]) == (["run it"], "run it")


def test_generic_tests_are_left_as_they_are() -> None:
    generic = a_test(
        metric="generic", warmup=1, commands=["a", "b"], command="x", arguments="y", inputs={"data": {"shapes": [[1], [2]]}}
    )
    (found,) = expand.benchmarks(document(generic))
    assert found.test == generic


def test_a_generic_test_may_give_one_command_all_the_same() -> None:
    (found,) = expand.benchmarks(document(a_test(metric="generic", command="x")))
    assert found.test["commands"] == ["x"]


def test_each_shape_has_the_type_at_its_place() -> None:
    inputs = {"data": {"shapes": [[1], [2]], "type": ["float", "int"]}, "more": {"shapes": [[3], [4]], "type": "int"}}
    found = expand.benchmarks(document(a_test(inputs=inputs)))
    assert [benchmark.test["inputs"] for benchmark in found] == [
        {"data": {"shapes": [[1]], "type": "float"}, "more": {"shapes": [[3]], "type": "int"}},
        {"data": {"shapes": [[2]], "type": "int"}, "more": {"shapes": [[4]], "type": "int"}},
    ]


@pytest.mark.parametrize("nameless", [{}, {"identifier": ""}])
def test_a_test_without_identifier_or_counts_takes_the_model_s_name_and_minus_one(nameless: dict[str, Any]) -> None:
    (found,) = expand.benchmarks(document({"metric": "delay", "commands": ["a"], **nameless}))
    assert (found.identifier, found.test["iter"], found.test["warmup"]) == ("net", -1, -1)


def test_equal_identifiers_are_told_apart() -> None:
    same = a_test(commands=["a"], identifier="a")
    assert identifiers(same, same, a_test(commands=["b"], identifier="a-1"), same) == ["a", "a-1-1", "a-1", "a-3"]


@given(st.lists(st.sampled_from(["a", "a-1", "a-2", "{ID}", "1", "a-{ID}"]), min_size=1, max_size=12))
def test_identifiers_always_differ_and_the_first_of_a_name_keeps_it(names: list[str]) -> None:
    found = identifiers(*(a_test(commands=["x"], identifier=name) for name in names))
    wanted = [name.replace("{ID}", str(index)) for index, name in enumerate(names)]
    assert len(set(found)) == len(names)
    assert all(found[wanted.index(name)] == name for name in wanted)


def test_meta_gives_way_to_the_model_and_the_first_meta_to_none() -> None:
    mine = document(a_test(commands=["a"]), group="mine", libraries=[1], files={"a": {"filename": "a"}})
    group, run = (
        {"group": "theirs", "kind": "theirs", "libraries": [2], "files": {"a": {"filename": "b", "md5": "x"}}},
        {"kind": "run's", "timeout": 9},
    )
    (found,) = expand.benchmarks(mine, metas=(group, run))
    assert found.model == {
        "name": "net",
        "format": "caffe2",
        "group": "mine",
        "kind": "theirs",
        "timeout": 9,
        "libraries": [1, 2],
        "files": {"a": {"filename": "a", "md5": "x"}},
    }


def test_extra_arguments_of_the_string_map_are_kept_for_the_command() -> None:
    (found,) = expand.benchmarks(document(a_test(commands=["a"])), pep_extra_args="--more")
    assert found.test["pep_extra_args"] == "--more"


JSON_OBJECTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), JSON_OBJECTS, max_size=3)


SHAPES = st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=4)
TESTS = st.builds(
    lambda metric, name, shapes, how: a_test(metric=metric, identifier=name, **how) | (
        {"inputs": {"data": {"shapes": shapes, "type": "float"}, "more": {"shapes": shapes}}} if shapes else {}
    ),
    st.sampled_from(["delay", "error", "power"]),
    st.sampled_from(["{ID}", "a", "a-{ID}"]),
    st.none() | SHAPES,
    st.sampled_from([{"commands": ["x", "y"]}, {"command": "x"}, {"arguments": "-x"}]),
)  # fmt: skip


@given(st.lists(TESTS, min_size=1, max_size=5), OBJECTS, st.booleans())
def test_there_are_as_many_benchmarks_as_shapes(tests: list[dict[str, Any]], meta: model.JsonObject, generic: bool) -> None:
    tests = [{**test, "metric": "generic"} for test in tests] if generic else tests
    given_one = document(*tests, a=1)
    before = copy.deepcopy((given_one, meta))
    found = expand.benchmarks(given_one, metas=(meta,))
    shapes = [len(test["inputs"]["data"]["shapes"]) if "inputs" in test else 1 for test in tests]
    assert len(found) == (len(tests) if generic else sum(shapes))
    assert (given_one, meta) == before
    assert len({benchmark.digest for benchmark in found}) == len(found)
    assert all(benchmark.model == expand.merged(given_one["model"], meta) for benchmark in found)
    assert all(benchmark.test["commands"] for benchmark in found)
    if not generic:
        spread = [shape for test in tests for shape in (test["inputs"]["data"]["shapes"] if "inputs" in test else [None])]
        assert [benchmark.test["inputs"]["data"]["shapes"] for benchmark in found if "inputs" in benchmark.test] == [
            [shape] for shape in spread if shape is not None
        ]


@given(OBJECTS)
def test_merging_what_is_there_already_changes_no_scalar_and_merging_nothing_nothing(mine: model.JsonObject) -> None:
    assert expand.merged(mine, {}) == expand.merged({}, mine) == mine
    again = expand.merged(mine, mine)
    assert all(again[key] == mine[key] for key in mine if not isinstance(mine[key], dict | list))


@given(OBJECTS, OBJECTS)
def test_merging_keeps_all_keys_and_changes_nothing_that_it_is_given(mine: model.JsonObject, other: model.JsonObject) -> None:
    before = copy.deepcopy((mine, other))
    found = expand.merged(mine, other)
    assert found.keys() == mine.keys() | other.keys()
    assert all(found[key] == mine[key] for key in mine if not isinstance(mine[key], dict | list))
    assert (mine, other) == before


@pytest.mark.parametrize("count", [1, 3])
def test_the_digest_tells_benchmarks_apart(count: int) -> None:
    found = expand.benchmarks(document(*[a_test(commands=["a"])] * count))
    assert len({benchmark.digest for benchmark in found}) == count
