from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd.specs import defaults


@pytest.mark.parametrize(
    "value",
    [
        {"--timeout": 300, "--env": {"A": "1", "B": "2"}},
        {"timeout": 300, "env": ["A=1", "B=2"]},
        {"--timeout": 300, "--env": '{"A": "1", "B": "2"}'},
    ],
)
def test_the_forms_of_a_mapping_of_flags(value: dict[str, Any]) -> None:
    assert defaults.of(value) == defaults.Defaults({}, {"timeout": 300, "env": {"A": "1", "B": "2"}})


@pytest.mark.parametrize(
    "value", ["--timeout=300 --env A=1 B=2 --log-output", ["--timeout", "300", "--env", "A=1", "B=2", "--log_output"]]
)
def test_the_forms_of_a_command_line(value: Any) -> None:
    assert defaults.of(value) == defaults.Defaults({}, {"timeout": "300", "env": {"A": "1", "B": "2"}, "log_output": True})


def test_a_string_map_is_kept_apart() -> None:
    assert defaults.of({"--string_map": '{"size": 3}', "--cooldown": 1}) == defaults.Defaults({"size": "3"}, {"cooldown": 1})


def test_what_means_nothing_here_is_named() -> None:
    unknown = defaults.of({"--time_out": 3, "--env": 7, "--monsoon_map": None}).unknown
    assert unknown.keys() == {"--time_out", "--env"}
    assert "did you mean 'timeout'?" in unknown["--time_out"]
    assert unknown["--env"] == "expected keys with values, found the number 7"


def test_what_a_person_chose_goes_first() -> None:
    found = defaults.of({"timeout": 3, "cooldown": 1, "command_args": "-x", "env": {"A": "1", "B": "2"}})
    assert found.beside({"timeout": 9.0, "command_args": "", "env": {"B": "3"}}) == {
        "cooldown": 1,
        "command_args": "-x",
        "env": {"A": "1"},
    }
    assert found.beside({}) == found.meta


WORDS = st.text(max_size=6) | st.sampled_from(["--env", "--timeout=3", "A=1", "{", '{"a":1}'])
FLAGS = st.sampled_from(["--env", "string_map", "--timeout", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FLAGS, inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_value_is_read_and_left_as_it_is(value: Any) -> None:
    before = copy.deepcopy(value)
    found = defaults.of(value)
    assert value == before
    assert found.meta.keys() <= set(defaults.FIELDS)
    assert all(isinstance(text, str) for text in found.string_map.values())
