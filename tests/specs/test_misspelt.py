from __future__ import annotations

from typing import Any

import pytest

from aibenchd.specs import misspelt


def found(test: dict[str, Any], **whole: Any) -> list[tuple[str, str]]:
    document = {"model": {"name": "net", **whole}, "tests": [{"metric": "delay", "commands": ["{program} {itr}"], **test}]}
    return [(".".join(map(str, key_path)), message) for key_path, message in misspelt.of(document)]


@pytest.mark.parametrize(
    ("test", "whole", "key", "meant"),
    [
        ({"tmeout": 5}, {}, "tests.0.tmeout", "timeout"),
        ({"platform_args": {"tasket": "f"}}, {}, "tests.0.platform_args.tasket", "taskset"),
        ({"output_files": {"a": {"filename": "a", "locaton": "b"}}}, {}, "tests.0.output_files.a.locaton", "location"),
        ({}, {"fils": {}}, "model.fils", "files"),
        ({}, {"files": {"a": {"filename": "a", "location": "a", "sha265": "0"}}}, "model.files.a.sha265", "sha256"),
        ({"cpu_list": "0"}, {}, "tests.0.cpu_list", "cpu-list"),
    ],
)
def test_a_key_next_to_a_known_one_is_told(test: dict[str, Any], whole: dict[str, Any], key: str, meant: str) -> None:
    ((where, message),) = found(test, **whole)
    assert where == key
    assert f"did you mean {meant!r}?" in message


def test_a_placeholder_and_a_word_of_ones_own_are_left_alone() -> None:
    assert found({"itr": 5, "batch": 3}, module="engine:net", images_per_batch=4) == []
