from __future__ import annotations

from typing import Any

import pytest

from aibenchd.specs import misspelt


def found(test: dict[str, Any], **whole: Any) -> list[tuple[str, str]]:
    document = {"model": {"name": "net", **whole}, "tests": [{"metric": "delay", "commands": ["{program} {itr}"], **test}]}
    return [(".".join(map(str, key_path)), message) for key_path, message in misspelt.keys(document)]


PROCESS_FILE = "model.postprocess.files.a.sha_256"


@pytest.mark.parametrize(
    ("test", "whole", "key", "meant"),
    [
        ({"tmeout": 5}, {}, "tests.0.tmeout", "timeout"),
        ({"platform_args": {"tasket": "f"}}, {}, "tests.0.platform_args.tasket", "taskset"),
        ({"output_files": {"a": {"filename": "a", "locaton": "b"}}}, {}, "tests.0.output_files.a.locaton", "location"),
        ({}, {"fils": {}}, "model.fils", "files"),
        ({}, {"files": {"a": {"filename": "a", "location": "a", "sha265": "0"}}}, "model.files.a.sha265", "sha256"),
        ({"cpu_list": "0"}, {}, "tests.0.cpu_list", "cpu-list"),
        ({"preprocess": {"comands": ["a"]}}, {}, "tests.0.preprocess.comands", "commands"),
        ({}, {"postprocess": {"files": {"a": {"filename": "a", "location": "a", "sha_256": "0"}}}}, PROCESS_FILE, "sha256"),
        (
            {"output_files": {"a": {"filename": "a", "golden": {"sha25": "b"}}}},
            {},
            "tests.0.output_files.a.golden.sha25",
            "sha256",
        ),
    ],
)
def test_a_key_next_to_a_known_one_is_told(test: dict[str, Any], whole: dict[str, Any], key: str, meant: str) -> None:
    ((where, message),) = found(test, **whole)
    assert where == key
    assert f"did you mean {meant!r}?" in message


def test_a_placeholder_and_a_word_of_ones_own_are_left_alone() -> None:
    assert found({"itr": 5, "batch": 3}, module="engine:net", images_per_batch=4) == []


def unknown(command: str, **test: Any) -> list[tuple[str, str]]:
    """What is said of a command: its key, and what may have been meant."""
    model = {"name": "net", "total_images": 5, "files": {"init": {"filename": "i", "location": "//i"}}}
    document = {"model": model, "tests": [{"metric": "delay", "commands": ["{program}", command], "batch": 3, **test}]}
    found = misspelt.names(document)
    return [(".".join(map(str, key_path)), message.rpartition("; did you mean ")[2]) for key_path, message in found]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("{progam} x", "{program}"),
        ("--iter {itr}", "{iter}"),
        ("--warmup {warm_up}", "{warmup}"),
        ("--out {TGDIR}/x", "{TGTDIR}"),
        ("--out {hostdir}/x", "{HOSTDIR}"),
        ("--backend={backnd}", "{backend}"),
        ("{index}", "{INDEX}"),
        ("{total_image}", "{total_images}"),
        ("{bacth}", "{batch}"),
        ("{file.init}", "{files.init}"),
        ("{platform_args.tasket}", "{platform_args.taskset}"),
    ],
)
def test_a_name_next_to_one_that_stands_for_something_is_told(written: str, meant: str) -> None:
    assert unknown(written, platform_args={"taskset": "f"}) == [("tests.0.commands.1", f"{meant}?")]


@pytest.mark.parametrize(
    "written",
    [
        "{program} {iter} {warmup} {identifier} {batch} {total_images} {files.init} {TGTDIR} {INDEX} {platform_args.taskset}",
        "awk '{print $1}' {HOSTDIR}/a | xargs -I{} echo {}",
        "{convert_image_to_tensor} {shards}",  # programs of the build
        "echo ${progam} ${itr}",  # the shell's
        "{files.inti}",  # told as a file that is not there
    ],
)
def test_other_names_in_braces_are_left_alone(written: str) -> None:
    assert unknown(written, platform_args={"taskset": "f"}) == []


def test_commands_around_a_test_are_read_too() -> None:
    file = {"labels": {"filename": "l", "location": "//l"}}
    process = {"commands": ["{preprocess.files.labels} {preproces.files.labels}"], "files": file}
    assert unknown("x", preprocess=process) == [("tests.0.preprocess.commands", "{preprocess.files.labels}?")]
    assert unknown("x", arguments="{itr}") == [("tests.0.arguments", "{iter}?")]


def test_commands_of_the_model_know_what_any_test_gives() -> None:
    process = {"command": "{batch} {bathc}"}
    tests = [{"metric": "delay"}, {"metric": "delay", "batch": 3}]
    found = list(misspelt.names({"model": {"name": "net", "command_args": "{itr}", "postprocess": process}, "tests": tests}))
    assert [key_path for key_path, _ in found] == [("model", "command_args"), ("model", "postprocess", "command")]
