"""Where the files of a specification stand in it."""

from __future__ import annotations

from typing import Any

import pytest

from aibenchd.specs import places, schema

A, B = {"filename": "a", "location": "a"}, {"filename": "b", "location": "b"}
WHOLE = {
    "model": {"name": "net", "files": {"net": A, "golden": B}, "preprocess": {"files": {"x": A}}},
    "meta": {"files": [A, B]},
    "tests": [
        {
            "input_files": {"image": A},
            "files": {"labels": A},
            "output_files": {"out": {"filename": "o", "golden": A}, "raw": None},
        },
        {"input_files": {"image": B}, "files": None, "postprocess": {"files": {"script": B}}},
        {"input_files": {"image": {"filename": "c", "location": "{where}/c", "md5": "{md5}"}}, "preprocess": ["true"]},
    ],
}


@pytest.mark.parametrize(
    ("key", "file", "place"),
    [
        ("files.net", A, ("model", "files", "net")),
        ("files.golden", B, ("model", "files", "golden")),
        ("files.1", B, ("meta", "files", 1)),
        ("input_files.image", A, ("tests", 0, "input_files", "image")),
        ("input_files.image", B, ("tests", 1, "input_files", "image")),
        ("input_files.image", {"filename": "c", "location": "here/c"}, ("tests", 0, "input_files", "image")),
        ("host_files.labels", A, ("tests", 0, "files", "labels")),
        ("host_files.script", B, ("tests", 1, "postprocess", "files", "script")),
        ("golden.out", A, ("tests", 0, "output_files", "out", "golden")),
        ("files.of_another_file", A, ("model", "files", "of_another_file")),
    ],
)
def test_a_file_is_found_by_its_key_and_by_what_it_says(key: str, file: dict[str, Any], place: places.KeyPath) -> None:
    assert places.of(WHOLE, key, schema.File.model_validate(file)) == place


def test_every_file_of_a_specification_has_its_place() -> None:
    assert len(list(places.files(WHOLE))) == 11
