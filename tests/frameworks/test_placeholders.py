from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import errors, model, plugins
from aibenchd.frameworks import base, placeholders

PLACE = base.Place(
    target_directory="/dev/work/",
    host_directory="/host/00",
    build_directory="/dev/build",
    programs={"program": "/dev/build/bench", "convert": "/dev/build/convert"},
    files={"init": "/dev/init.pb", "predict": "/dev/predict.pb"},
    input_files={"images": "/dev/images.pb"},
    output_files={"softmax": "/dev/work/softmax.txt", "bare": "/dev/work/bare.txt"},
    host_files={"labels": "/here/labels.txt"},
    device_hash="cafe",
    backend="mkl",
    index=3,
)


def file(name: str) -> dict[str, str]:
    return {"filename": name, "location": f"http://localhost/{name}"}


def benchmark(*commands: str, whole: dict[str, Any] | None = None, **test: Any) -> model.Benchmark:
    files = {"init": file("init.pb"), "predict": file("predict.pb"), "lost": file("lost.pb")}
    fields = {"identifier": "i", "metric": "delay", "iter": 50, "warmup": 1, **test}
    if commands:
        fields["commands"] = list(commands)
    return model.Benchmark({"name": "net", "files": files, **(whole or {})}, fields, "f.json")


def composed(command: str, whole: dict[str, Any] | None = None, place: base.Place = PLACE, **test: Any) -> str:
    (found,) = placeholders.commands(benchmark(command, whole=whole, **test), place)
    return found


def test_a_published_command() -> None:
    command = (
        '{program} --net {files.predict} --init_net {files.init} --warmup {warmup} --iter {iter} --input "data"'
        ' --input_dims "1,3,224,224" --input_type float --run_individual true'
    )
    assert composed(command) == (
        '/dev/build/bench --net /dev/predict.pb --init_net /dev/init.pb --warmup 1 --iter 50 --input "data"'
        ' --input_dims "1,3,224,224" --input_type float --run_individual true'
    )


def test_awk_s_braces_survive_and_names_of_names_are_followed() -> None:
    command = """awk '(NR>{INDEX}*{per_batch}) {print > "{HOSTDIR}/labels_{INDEX}.txt"}' {HOSTDIR}/labels.txt"""
    assert composed(command, {"per_batch": "{total}/{repeat}", "total": 500, "repeat": 10}) == (
        """awk '(NR>3*500/10) {print > "/host/00/labels_3.txt"}' /host/00/labels.txt"""
    )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("{TGTDIR}x {HOSTDIR} {BUILDDIR} {DEVICEHASH}", "/dev/work/x /host/00 /dev/build cafe"),
        ("{convert} {backend}", "/dev/build/convert mkl"),
        ("{input_files.images} {output_files.softmax}", "/dev/images.pb /dev/work/softmax.txt"),
        ("{files.labels} {preprocess.files.labels} {files.init}", "/here/labels.txt /here/labels.txt /dev/init.pb"),
        ("{nobody} {files.nobody} {} { x } {a b} {model|x}", "{nobody} {files.nobody} {} { x } {a b} {model|x}"),
        ("{files} {inputs.data.shapes}", "{files} {inputs.data.shapes}"),
        ("{files.init.filename}", "init.pb"),
        ("{a.b} {deep.er}", "literal found"),
        ("{both}", "test"),
        ("{empty}|{yes}|{float}", "|True|4.5"),
        ("{path}", "/dev/work/out"),
        ("{output_files.bare}", "/dev/work/bare.txt"),
        ("{custom.file} {custom.file.filename}", "{custom.file} f"),
    ],
)
def test_where_names_are_looked_up(command: str, expected: str) -> None:
    whole = {"both": "model", "deep": {"er": "found"}, "path": "{TGTDIR}out", "custom": {"file": file("f")}}
    test = {
        "both": "test",
        "a.b": "literal",
        "a": {"b": "dotted"},
        "empty": "",
        "yes": True,
        "float": 4.5,
        "inputs": {"data": {"shapes": [[1]]}},
        "input_files": {"images": file("i")},
        "output_files": {"softmax": {"filename": "s", "location": "{TGTDIR}/s"}, "bare": {"filename": "bare.txt"}},
        "files": {"labels": file("l")},
        "preprocess": {"files": {"labels": file("l")}},
    }
    assert composed(command, whole, **test) == expected


def test_arguments_go_to_each_command_that_runs_the_program() -> None:
    place = dataclasses.replace(PLACE, extra_arguments="--run {iter}")
    found = placeholders.commands(benchmark("{program} a", "echo b", "x {program}", whole={"command_args": "--model"}), place)
    assert found == ("/dev/build/bench a --model --run 50", "echo b", "x /dev/build/bench --model --run 50")


def test_the_string_map_s_arguments_go_to_the_only_command() -> None:
    assert composed("a", {"command_args": "--x"}, pep_extra_args="--y") == "a --y"
    assert composed("{program}", {"command_args": "--x"}, pep_extra_args="--y {iter}") == "/dev/build/bench --x --y 50"
    assert placeholders.commands(benchmark("a", "b", pep_extra_args="--y"), PLACE) == ("a", "b")


def test_commands_around_a_repeat_know_the_same_names() -> None:
    found = placeholders.compose(
        ["{convert} {HOSTDIR}/{name} {input_files.images}"], benchmark(input_files={"images": file("i")}), PLACE
    )
    assert found == ("/dev/build/convert /host/00/net /dev/images.pb",)


def test_the_places_of_files_made_at_run_time() -> None:
    made = benchmark("x", input_files={"images": {"filename": "i", "location": "{HOSTDIR}/i"}})
    assert placeholders.settled(made, PLACE).test["input_files"] == {"images": {"filename": "i", "location": "/host/00/i"}}


@pytest.mark.parametrize("broken", [{}, {"commands": []}, {"commands": "x"}, {"command": "x"}])
def test_a_benchmark_without_commands_says_so(broken: dict[str, Any]) -> None:
    with pytest.raises(errors.CommandError, match=r"f\.json: i: does not say what to run"):
        placeholders.commands(benchmark(**broken), PLACE)


def test_a_file_that_lies_nowhere_is_an_error() -> None:
    with pytest.raises(errors.CommandError, match=r"\{files\.lost\} is a file that was not put anywhere"):
        composed("{files.lost}")


def test_names_in_a_circle_are_named() -> None:
    with pytest.raises(errors.CommandError, match=r"f\.json: i: x \{a\}: \{a\}, \{b\} stand for each other in a circle"):
        composed("x {a}", a="{b}", b="{a}")


@pytest.mark.parametrize("growing", [{"a": "{a}{a}"}, {"a": "{b}" * 4000, "b": "x" * 4000}, {"a": "x{a}"}])
def test_a_command_does_not_grow_without_bound(growing: dict[str, str]) -> None:
    with pytest.raises(errors.CommandError, match=r"grows beyond|in a circle"):
        composed("{a}", **growing)


NAMES = st.sampled_from(["a", "b", "c", "a.b", "program", "iter", "x"])
TEXTS = st.lists(st.text(max_size=3) | NAMES.map(lambda name: f"{{{name}}}"), max_size=5).map("".join)
LITERAL = st.text(max_size=20).filter(lambda text: not placeholders.PATTERN.search(text))


@given(TEXTS, st.dictionaries(st.sampled_from(["a", "b", "c"]), TEXTS, max_size=3))
def test_any_text_is_composed_or_refused(command: str, names: dict[str, str]) -> None:
    try:
        found = composed(command or "x", **names)
    except errors.CommandError as error:
        assert str(error).startswith("f.json: i: ")  # noqa: PT017  what may be raised, not what must be
    else:
        assert "{program}" not in found
        assert "{iter}" not in found
        assert composed(found, **names) == found


@given(LITERAL)
def test_text_without_names_stays_as_it_is(text: str) -> None:
    assert composed(text or "x") == (text or "x")


@given(st.lists(LITERAL | st.just("{iter}"), min_size=1, max_size=6))
def test_what_stands_between_names_survives(parts: list[str]) -> None:
    command = "\0".join(parts)  # so that no two parts make a name together
    assert composed(command) == command.replace("{iter}", "50")


@given(TEXTS, st.dictionaries(st.sampled_from(["a", "b", "TGTDIR"]), st.dictionaries(st.sampled_from("xy"), TEXTS), max_size=3))
def test_composing_changes_nothing_that_it_is_given(command: str, fields: dict[str, Any]) -> None:
    given_one = benchmark(command or "x", **fields)
    before = copy.deepcopy(given_one)
    with contextlib.suppress(errors.CommandError):
        placeholders.commands(given_one, PLACE)
    assert given_one == before


def test_the_frameworks_are_installed_and_compose_by_these_rules() -> None:
    for kind in ("generic", "pytorch"):
        framework = plugins.load("frameworks", kind)()
        assert isinstance(framework, base.Framework)
        assert framework.name == kind
        assert framework.commands(benchmark("{program} {iter}"), PLACE) == ("/dev/build/bench 50",)
