"""What a specification says of files, judged: each fault with its place and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest

from aibenchd import faults, yamlfile
from aibenchd.specs import schema

DIGEST = "0" * 64


def reasons(tmp_path: Path, file: Any = None, output: Any = None) -> list[str]:
    """What is wrong with a file of a model, or with an output file of a test."""
    whole = {"name": "net", **({"files": {"a": file}} if file is not None else {})}
    test = {"metric": "error", "commands": ["x"], **({"output_files": {"o": output}} if output is not None else {})}
    path = tmp_path / "net.json"
    path.write_text(json.dumps({"model": whole, "tests": [test]}))
    document = yamlfile.load(path)
    try:
        schema.ModelFile.model_validate(document.value)
    except pydantic.ValidationError as error:
        return [
            str(fault).partition("net.json:1:")[2].partition(": ")[2] for fault in faults.of(error, document, schema.ModelFile)
        ]
    return []


@pytest.mark.parametrize(
    "file",
    [
        {"location": "net.pb"},
        {"location": ["https://example.org/net.pb", "net.pb"], "sha256": DIGEST},
        {"location": ["//net.pb", {"generator": ["make.py", 1, 0.5, "x"]}], "sha256": DIGEST},
        {"location": {"generator": ["below/make"]}, "sha256": DIGEST.upper().replace("0", "A")},
        {"location": "{HOSTDIR}/net.pb"},
        {"location": "net", "md5": "directory"},
        {"location": "https://example.org/net.pb", "md5": "0" * 32},
        {"location": "https://example.org/net.tar", "md5": "directory", "sha256": DIGEST},
    ],
)
def test_files_that_are_right(tmp_path: Path, file: dict[str, Any]) -> None:
    assert reasons(tmp_path, {"filename": "net", **file}) == []


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ({"location": []}, "model.files.a.location: expected a list of one or more, found a list"),
        ({"location": ""}, "model.files.a.location: expected text of 1 or more characters, found the text ''"),
        (
            {"location": [3]},
            "model.files.a.location[0]: expected an address or a path, or {generator: [program, argument, …]}, found the",
        ),
        ({"location": [{}], "sha256": DIGEST}, "model.files.a.location[0].generator: is required"),
        ({"loction": "a"}, "model.files.a.location: is required; 'loction' may be a misspelling of it"),
        (
            {"location": {"generator": "make.py"}, "sha256": DIGEST},
            "model.files.a.location.generator: expected a list, found the text 'make.py'; put brackets around it",
        ),
        (
            {"location": {"generator": ["../make.py"]}, "sha256": DIGEST},
            "model.files.a.location.generator: expected a name that does not leave its directory, found a list",
        ),
        (
            {"location": {"generator": ["/bin/sh"]}, "sha256": DIGEST},
            "model.files.a.location.generator: expected a name that does not leave its directory, found a list",
        ),
        ({"location": {"generator": []}, "sha256": DIGEST}, "model.files.a.location.generator: expected a list of one or more"),
        (
            {"location": {"generator": ["make.py"]}},
            "model.files.a: a file from a generator needs its sha256; 'aibenchd spec pin' writes it",
        ),
        (
            {"location": {"generator": ["make.py"]}, "md5": "0" * 32},
            "model.files.a: a file from a generator needs its sha256; 'aibenchd spec pin' writes it",
        ),
        ({"location": ["net", "https://example.org/net"]}, "model.files.a: a file from the network needs its digest"),
        ({"location": "https://example.org/net.tar", "md5": "directory"}, "model.files.a: a file from the network needs its"),
        ({"location": ["net", "{HOSTDIR}/net"]}, "model.files.a: a location with a placeholder is made at run time, and cannot"),
        ({"location": "net", "sha256": "abc"}, "model.files.a.sha256: expected 64 hexadecimal digits, found the text 'abc'"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, file: dict[str, Any], reason: str) -> None:
    (found,) = reasons(tmp_path, {"filename": "net", **file})
    assert found.startswith(reason)


def test_digests_that_are_yet_to_be_written(tmp_path: Path) -> None:
    file = {"filename": "net", "location": ["https://example.org/net", {"generator": ["make.py"]}]}
    assert schema.File.model_validate(file, context=schema.UNPINNED).digests == {}


GOLDEN = {"filename": "golden", "location": "golden"}


@pytest.mark.parametrize(
    ("output", "form", "limits"),
    [
        ({"filename": "o.npy"}, "npy", {}),
        ({"filename": "o.npy", "golden": GOLDEN}, "npy", {"max_relative": 1e-3}),
        ({"filename": "o.npy", "golden": GOLDEN, "tolerance": {"ulp": 4}}, "npy", {"ulp": 4.0}),
        ({"filename": "o.npy", "tolerance": {"cosine": 0}}, "npy", {"cosine": 0.0}),
        ({"filename": "o.raw", "golden": GOLDEN, "type": "float", "shape": [1, 10]}, "raw", {"max_relative": 1e-3}),
        ({"filename": "o.bin"}, "raw", {}),
        ({"filename": "o.txt"}, "text", {}),
        ({"filename": "o"}, "text", {}),
        ({"filename": "o.npy", "format": "raw", "type": "int64"}, "raw", {}),
    ],
)
def test_output_files_that_are_right(tmp_path: Path, output: dict[str, Any], form: str, limits: dict[str, float]) -> None:
    assert reasons(tmp_path, output=output) == []
    read = schema.OutputFile.model_validate(output)
    assert (read.form, read.limits) == (form, limits)


def test_types_go_by_one_name() -> None:
    names = {"float": "float32", "double": "float64", "int": "int32", "long": "int64", "half": "float16", "uint8": "uint8"}
    for given, name in names.items():
        assert schema.OutputFile.model_validate({"filename": "o.raw", "type": given}).type == name


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ({"filename": "o.npy", "type": "float32"}, "tests[0].output_files.o: a .npy file states its own type and shape"),
        ({"filename": "o.npy", "shape": [1]}, "tests[0].output_files.o: a .npy file states its own type and shape"),
        ({"filename": "o.raw", "golden": GOLDEN}, "tests[0].output_files.o: a raw file is bytes alone: add the type"),
        ({"filename": "o", "type": "complex"}, "tests[0].output_files.o.type: expected 'float16', 'float32'"),
        ({"filename": "o", "type": ["float"]}, "tests[0].output_files.o.type: expected 'float16', 'float32'"),
        ({"filename": "o", "shape": [-1]}, "tests[0].output_files.o.shape[0]: expected 0 or more, found the number -1"),
        ({"filename": "o", "format": "csv"}, "tests[0].output_files.o.format: expected 'npy', 'raw' or 'text'"),
        ({"filename": "o", "tolerance": {}}, "tests[0].output_files.o.tolerance: expected a largest value for one or more of"),
        (
            {"filename": "o", "tolerance": {"max_abs": 1}},
            "tests[0].output_files.o.tolerance.max_abs: expected 'max_absolute', 'max_relative', 'rmse', 'cosine', 'ulp' or"
            " 'top1_flips', found the text 'max_abs'",
        ),
        ({"filename": "o", "tolerance": {"rmse": -1}}, "tests[0].output_files.o.tolerance.rmse: expected 0.0 or more"),
        ({"filename": "o", "tolerance": {"rmse": "small"}}, "tests[0].output_files.o.tolerance.rmse: "),
        ({"filename": "o", "golden": "golden.txt"}, "tests[0].output_files.o.golden: expected keys with values"),
        (
            {"filename": "o", "golden": GOLDEN | {"location": "{HOSTDIR}/x"}},
            "tests[0].output_files.o: golden is fetched and verified; a location with a placeholder",
        ),
        (
            {"filename": "o", "golden": GOLDEN | {"location": "https://example.org/x"}},
            "tests[0].output_files.o.golden: a file from the network needs its digest",
        ),
    ],
)
def test_output_files_that_are_wrong(tmp_path: Path, output: dict[str, Any], reason: str) -> None:
    (found,) = reasons(tmp_path, output=output)
    assert found.startswith(reason)
