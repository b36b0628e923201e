from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from aibenchd import errors, settings, yamlfile
from aibenchd.frameworks import base, generic
from aibenchd.specs import catalog, conditions, marks, schema

MODEL_FILE: dict[str, Any] = {
    "model": {
        "category": "CNN",
        "description": "made up",
        "files": {
            "init": {"filename": "init.pb", "location": "https://localhost/init.pb", "md5": "a" * 32},
            "predict": {"filename": "predict.pb", "location": "//nets/predict.pb", "sha256": "b" * 64},
        },
        "format": "caffe2",
        "kind": "deployment",
        "name": "net",
        "cooldown": 30,
        "repeat": 2,
        "platform_args": {"taskset": "c", "env": {"A": 1}},
        "preprocess": {"commands": ["mkdir -p {HOSTDIR}/in"]},
        "total_images": 500,
        "images_per_batch": "{total_images}/{repeat}",
    },
    "tests": [
        {
            "commands": ["{program} --net {files.predict} --iter {iter} --batch {images_per_batch}"],
            "identifier": "{ID}",
            "iter": 50,
            "metric": "delay",
            "warmup": 1,
        },
        {
            "arguments": "--input data",
            "identifier": "{ID}",
            "iter": 5,
            "metric": "accuracy",
            "input_files": {"images": {"filename": "images.pb", "location": "{HOSTDIR}/images.pb"}},
            "output_files": {"softmax": {"filename": "softmax.txt", "location": "{TGTDIR}/softmax.txt"}},
            "statistics": ["mean", "p99"],
            "cpu-list": "0-3",
        },
        {"identifier": "short", "iter": 5, "metric": "delay", "inputs": {"data": {"shapes": [[1, 3], [2, 3]], "type": "float"}}},
    ],
}

ODD_FORMS = """\
model: {name: net}
tests:
  - metric: delay
    commands: "{progam}"
    output_files:
    - filename: a
      golden: {filename: g, lcation: g}
    postprocess: ["true",
      "echo {files.lost}",
      "echo {itr}"]
"""

MODEL_YAML = """\
# written by hand
model: {name: net, format: generic, count: 3}
tests:
  - identifier: "y-{ID}"
    metric: delay
    iter: 3
    commands: ["{program} {count}"]
"""


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=2))
    return path


def changed(value: Any, path: list[Any], to: Any) -> Any:
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return value


def load(*paths: Path, **selection: Any) -> catalog.Catalog:
    chosen = tuple(settings.BenchmarkSelection(specification=path, **selection) for path in paths)
    return catalog.load(settings.Settings(benchmarks=chosen))


def faults(*paths: Path, **selection: Any) -> list[str]:
    with pytest.raises(errors.InvalidFileError) as caught:
        load(*paths, **selection)
    return [str(fault) for fault in caught.value.faults]


def test_a_model_file(tmp_path: Path) -> None:
    path = write(tmp_path / "net.json", MODEL_FILE)
    found = load(path)
    ((selection, benchmarks),) = found.entries
    assert [benchmark.identifier for benchmark in benchmarks] == ["0", "1", "short", "short-3"]
    assert found.benchmarks(selection) == benchmarks
    assert (list(found.seen), found.warnings, benchmarks[0].source) == ([path], (), str(path))


def test_a_selection_that_is_not_in_it_has_no_benchmarks(tmp_path: Path) -> None:
    found = load(write(tmp_path / "net.json", MODEL_FILE))
    assert found.benchmarks(settings.BenchmarkSelection(specification=tmp_path / "other.json")) == ()


def test_yaml_is_the_same_schema(tmp_path: Path) -> None:
    ((_, (benchmark,)),) = load(write(tmp_path / "net.yaml", MODEL_YAML)).entries
    assert (benchmark.identifier, benchmark.model["count"]) == ("y-0", 3)


def test_a_benchmarks_file_brings_its_meta_and_names_files_from_where_it_lies(tmp_path: Path) -> None:
    write(tmp_path / "models/a/a.json", MODEL_FILE)
    write(tmp_path / "models/b.yaml", MODEL_YAML)
    members = ["../models/a/a.json", "../models/b.yaml"]
    group = write(tmp_path / "benchmarks/all.json", {"meta": {"group": "G", "format": "never"}, "benchmarks": members})
    found = load(group)
    ((_, benchmarks),) = found.entries
    assert [(one.name, one.identifier) for one in benchmarks][-1] == ("net", "y-0")
    assert {one.model["group"] for one in benchmarks} == {"G"}
    assert {one.model["format"] for one in benchmarks} == {"caffe2", "generic"}
    assert list(found.seen) == [group, tmp_path / "models/a/a.json", tmp_path / "models/b.yaml"]


def test_a_directory_is_all_model_files_below_it(tmp_path: Path) -> None:
    models = tmp_path / "models"
    b, a = write(models / "b.yaml", MODEL_YAML), write(models / "a" / "a.json", MODEL_FILE)
    others = {
        "group.json": {"benchmarks": ["b.yaml"]},
        "labels.json": ["cat"],
        "vocabulary.json": " " * (yamlfile.MAX_BYTES + 1),
        ".half-written.json": "{",
        ".git/config.json": "{",
        "readme.txt": "{",
    }
    for name, value in others.items():
        write(models / name, value)
    (models / "linked").symlink_to(models / "a")
    found = load(models)
    assert [one.source for _, benchmarks in found.entries for one in benchmarks] == [*[str(a)] * 4, str(b)]
    assert set(found.seen) == {models, models / "a", a, b, models / "group.json", models / "labels.json"}


def test_a_bad_file_below_a_directory_is_named(tmp_path: Path) -> None:
    bad = write(tmp_path / "models" / "bad.json", '{"model": ')
    assert faults(tmp_path / "models")[0].startswith(f"{bad}:1:")


def test_an_empty_directory_has_no_benchmarks_yet(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert (found.entries[0][1], list(found.seen)) == ((), [tmp_path])


@pytest.mark.parametrize(
    "change",
    [
        lambda directory: write(directory / "new.yaml", MODEL_YAML),
        lambda directory: write(directory / "net.json", changed(MODEL_FILE, ["model", "repeat"], 3)),
        lambda directory: (directory / "net.json").unlink(),
        lambda directory: (directory / "net.json").rename(directory / "other.json"),
        lambda directory: write(directory / "deep" / "new.yaml", MODEL_YAML),
    ],
)
def test_any_change_of_what_was_read_shows(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    directory = tmp_path / "models"
    write(directory / "net.json", MODEL_FILE)
    (directory / "deep").mkdir()
    found = load(directory)
    assert marks.now(found.seen) == found.seen
    change(directory)
    assert marks.now(found.seen) != found.seen


def test_also_what_is_bad_or_not_there_was_looked_at(tmp_path: Path) -> None:
    group = write(tmp_path / "all.json", {"benchmarks": ["bad.yaml", "missing.yaml"]})
    bad = write(tmp_path / "bad.yaml", "model: [")
    selection = settings.BenchmarkSelection(specification=group)
    found, faults = catalog.read(settings.Settings(benchmarks=(selection,)))
    assert len(faults) == 2
    assert set(found.seen) == {group, bad, tmp_path / "missing.yaml"}
    write(tmp_path / "missing.yaml", MODEL_YAML)
    assert marks.now(found.seen) != found.seen


def test_the_string_map_is_applied_before_the_file_is_judged(tmp_path: Path) -> None:
    value = changed(MODEL_FILE, ["tests", 0, "iter"], "{count}")
    path = write(tmp_path / "net.json", value)
    assert "iter" in faults(path)[0]
    ((_, benchmarks),) = load(path, string_map={"count": "7", "pep_extra_args": "--x"}).entries
    assert conditions.of(benchmarks[0], timeout=1.0).iterations == 7
    assert benchmarks[0].test["pep_extra_args"] == "--x"


def test_all_faults_of_all_files_at_once_with_their_places(tmp_path: Path) -> None:
    value = changed(MODEL_FILE, ["tests", 0, "metric"], "speed")
    one = write(tmp_path / "a.json", changed(value, ["model", "files", "init", "md5"], "short"))
    two = write(tmp_path / "b.yaml", "model: {name: x}\ntests:\n  - metric: delay\n    iter: much\n")
    found = faults(one, two, tmp_path / "c.json")
    text = one.read_text().splitlines()
    short, speed = (next(number for number, row in enumerate(text, 1) if word in row) for word in ('"short"', '"speed"'))
    assert [row.split(": ", 2)[:2] for row in found] == [
        [f"{one}:{short}:9", "model.files.init.md5"],
        [f"{one}:{speed}:7", "tests[0].metric"],
        [f"{two}:4:5", "tests[0].iter"],
        [str(tmp_path / "c.json"), "cannot be read"],
    ]
    assert "32 hexadecimal digits" in found[0]


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (["model", "name"], "../x", "a name without a slash"),
        (["model", "name"], "..", "does not leave its directory"),
        (["model", "files", "init", "filename"], "../../x", "does not leave its directory"),
        (["model", "files", "init", "filename"], "/etc/passwd", "does not leave its directory"),
        (["model", "files", "init", "md5"], None, "add sha256"),
        (["model", "platform_args", "taskset"], "cpu 3", "a hexadecimal mask"),
        (["tests", 1, "cpu-list"], "0..3", "a list of CPUs"),
        (["tests", 1, "statistics"], ["median"], "p0 to p100"),
        (["tests", 2, "inputs", "data", "type"], ["float"], "1 types, 2 shapes"),
        (["tests", 0, "commands"], None, "does not say what to run"),
        (["tests", 0, "commands"], [], "commands"),
        (["tests", 0, "metric"], "generic", "all must be"),
        (["tests", 2, "inputs", "more"], {"shapes": [[1]]}, "equally many shapes"),
        (["tests"], [], "one or more"),
        (["model", "files", "init"], "init.pb", "keys with values"),
    ],
)
def test_a_fault_says_what_was_expected(tmp_path: Path, path: list[Any], to: Any, said: str) -> None:
    assert said in faults(write(tmp_path / "net.json", changed(MODEL_FILE, path, to)))[0]


def test_what_holds_between_tests_is_told_at_the_test(tmp_path: Path) -> None:
    value = changed(MODEL_FILE, ["tests", 0, "commands"], None)
    path = write(tmp_path / "net.json", changed(value, ["tests", 0, "comands"], ["x"]))
    (fault,) = faults(path)
    assert ": tests[0]: does not say what to run" in fault
    assert fault.endswith("; 'comands' may be a misspelling of 'commands'")
    assert ":1:" not in fault
    (fault,) = faults(write(tmp_path / "net.json", changed(MODEL_FILE, ["tests", 0, "metric"], "generic")))
    assert ": tests[1].metric: where the first" in fault


def test_what_is_written_in_an_odd_form_is_told_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(ODD_FORMS)
    assert [row.removeprefix(f"{path}:").split(": ")[:2] for row in faults(path)] == [
        ["7:7", "tests[0].output_files[0].golden.location"]
    ]
    path.write_text(ODD_FORMS.replace("lcation", "location"))
    warnings = (str(warning) for warning in load(path).warnings)
    assert [row.removeprefix(f"{path}:").split(": ")[:2] for row in warnings] == [
        ["9:7", "tests[0].postprocess[1]"],
        ["4:5", "tests[0].commands"],
        ["10:7", "tests[0].postprocess[2]"],
    ]


def test_what_is_no_specification_says_so(tmp_path: Path) -> None:
    for value in ("[1, 2]", "{}", '"text"', "null"):
        assert "expected a model file (model, tests) or a benchmarks file" in faults(write(tmp_path / "x.json", value))[0]


@pytest.mark.parametrize("name", ["nowhere.json", "/etc/hostname", "", "."])
def test_a_member_that_is_not_there_is_a_fault_at_its_place(tmp_path: Path, name: str) -> None:
    group = write(tmp_path / "all.json", {"benchmarks": [name]})
    (fault,) = faults(group)
    assert fault.startswith(f"{group}:3:5: benchmarks[0]: there is no model file")


def test_a_file_named_twice_states_its_faults_once(tmp_path: Path) -> None:
    path = write(tmp_path / "net.json", changed(MODEL_FILE, ["model", "repeat"], 0))
    assert len(faults(path, path)) == 1


def test_a_key_given_twice_and_a_name_given_twice_are_warnings(tmp_path: Path) -> None:
    text = json.dumps(MODEL_FILE).replace('"warmup": 1', '"warmup": 1, "warmup": 2')
    one, two = write(tmp_path / "a.json", text), write(tmp_path / "b.json", MODEL_FILE)
    found = load(one, two)
    assert found.entries[0][1][0].test["warmup"] == 2
    assert "tests[0].warmup: is given twice" in str(found.warnings[0])
    assert sum("is the name of a benchmark of" in str(fault) for fault in found.warnings) == 4


def test_a_benchmarks_file_in_a_benchmarks_file_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "inner.json", {"benchmarks": ["net.json"]})
    (fault,) = faults(write(tmp_path / "all.json", {"benchmarks": ["inner.json"]}))
    assert "'inner.json' is a benchmarks file too, and they go one level deep" in fault


def test_the_metas_of_a_model_file_a_benchmarks_file_and_the_run(tmp_path: Path) -> None:
    own = {"model": {"name": "net"}, "meta": {"kind": "own"}, "tests": [{"metric": "delay", "commands": ["x"]}]}
    write(tmp_path / "net.json", own)
    group = {"meta": {"kind": "group's", "group": "group's"}, "benchmarks": ["net.json"]}
    run = {"kind": "run's", "group": "run's", "category": "run's", "libraries": ["//a.so"]}
    ((_, (benchmark,)),) = load(write(tmp_path / "all.json", group), meta=run).entries
    libraries = [{"location": "//a.so"}]
    assert benchmark.model == {
        "name": "net",
        "kind": "own",
        "group": "group's",
        "category": "run's",
        "libraries": libraries,
    }
    (fault,) = faults(tmp_path / "net.json", meta={"repeat": 0})
    assert fault.startswith(f"{tmp_path}/net.json:1:1: the selection's meta cannot be merged into the model: repeat: ")


def test_default_args_are_below_all_that_is_said_elsewhere(tmp_path: Path) -> None:
    own = {
        "model": {"name": "net", "env": {"A": "model's"}},
        "tests": [{"metric": "delay", "commands": ["{x} {y} {z}"]}],
        "default_args": {"--env": ["A=1", "B=2", "C=3"], "--cooldown": 5, "--timeout": 7, "string_map": {"x": "own", "y": "own"}},
    }
    write(tmp_path / "net.json", own)
    flags = {"cooldown": 9, "command_args": "-v", "string_map": {"x": "group's", "y": "group's", "z": "group's"}}
    group = write(tmp_path / "all.json", {"benchmarks": ["net.json"], "default_args": flags})
    ((_, (benchmark,)),) = load(group, string_map={"x": "run's"}, env={"C": "run's"}).entries
    assert benchmark.test["commands"] == ["run's own group's"]
    assert {key: benchmark.model[key] for key in ("env", "cooldown", "timeout", "command_args")} == {
        "env": {"A": "model's", "B": "2"},
        "cooldown": 5,
        "timeout": 7,
        "command_args": "-v",
    }
    chosen = settings.ExperimentOverrides(timeout="60s")
    ((_, (benchmark,)),) = load(group, experiment=chosen, command_args="-q").entries
    assert not {"timeout", "command_args"} & benchmark.model.keys()


def test_default_args_that_do_not_fit(tmp_path: Path) -> None:
    value = {**MODEL_FILE, "default_args": {"--remote": True}}
    found = load(write(tmp_path / "net.json", value))
    assert "default_args.--remote: is no flag that means something here" in str(found.warnings[0])
    (fault,) = faults(write(tmp_path / "net.json", {**MODEL_FILE, "default_args": {"--timeout": "soon"}}))
    assert "default_args: a default cannot be merged into the model: timeout: " in fault


def test_odd_forms_are_accepted_and_composed(tmp_path: Path) -> None:
    value = {
        "model": {
            "name": "odd",
            "comment": "a model of no format, with files in a list",
            "files": [{"filename": "net.bin", "location": "//net.bin", "md5": None}],
            "env": {"A": 1},
            "platform_args": {"taskset": "c", "of_another_platform": {"x": 1}},
            "preprocess": {"commands": "echo {name}"},
        },
        "tests": [
            {"metric": "delay", "iter": "50", "commands": "{program} {files.0} {iter} {warmup}"},
            {"metric": "delay", "identifier": 7, "iter": -1, "inputs": {"data": {"shapes": [1, 3]}}, "arguments": "-x"},
        ],
    }
    ((_, benchmarks),) = load(write(tmp_path / "odd.json", value)).entries
    place = base.Place("/t/", "/h", "/b", {"program": "/b/p"}, files={"0": "/f/net.bin"})
    assert [generic.Generic().commands(one, place) for one in benchmarks] == [("/b/p /f/net.bin 50 -1",), ("/b/p -x",)]
    assert [one.identifier for one in benchmarks] == ["odd", "7"]
    how = conditions.of(benchmarks[0], timeout=1.0)
    assert (how.iterations, how.env, how.cpus) == (50, {"A": "1"}, (2, 3))


def test_where_a_contradiction_is(tmp_path: Path) -> None:
    path = write(tmp_path / "net.json", changed(MODEL_FILE, ["tests", 0, "command"], "{program}"))
    (warning,) = load(path).warnings
    line = next(number for number, row in enumerate(path.read_text().splitlines(), 1) if '"command"' in row)
    assert str(warning).startswith(f"{path}:{line}:7: tests[0].command: and commands say different things to run")


def test_files_without_a_digest_are_for_who_does_not_need_it(tmp_path: Path) -> None:
    path = write(tmp_path / "net.json", changed(MODEL_FILE, ["model", "files", "init", "md5"], None))
    chosen = settings.Settings(benchmarks=(settings.BenchmarkSelection(specification=path),))
    assert catalog.load(chosen, schema.UNPINNED).entries[0][1]
    assert "needs its digest" in faults(path)[0]


# ---------------------------------------------------------------- mutations


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, child in children for inner in _paths(child, (*path, key)))]


PATHS = [list(path) for path in _paths(MODEL_FILE) if path]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(
        ["", "{", "{ID}", "{program}", "{iter}", "generic", "../..", "\0", "0", "{images_per_batch}", "é", "x" * 3000]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["location", "shapes", "a", ""]), inner, max_size=2)
    ),
    max_leaves=6,
)
MUTATIONS = st.lists(st.tuples(st.sampled_from(PATHS), VALUES, st.booleans()), min_size=1, max_size=4)


def _mutated(mutations: list[tuple[list[Any], Any, bool]]) -> Any:
    value = copy.deepcopy(MODEL_FILE)
    for path, to, delete in mutations:
        inner: Any = value
        try:
            for key in path[:-1]:
                inner = inner[key]
            if delete:
                del inner[path[-1]]
            else:
                inner[path[-1]] = to
        except (LookupError, TypeError):
            continue  # an earlier mutation took this place away
    return value


def _faults_of_use(path: Path) -> list[str]:
    """Do with a specification all that the daemon does before it runs a program; what it had to say against it."""
    place = base.Place("/t/", "/h", "/b", {"program": "/b/p"}, files={"init": "/f/i", "predict": "/f/p"})
    said = []
    try:
        benchmarks = load(path).entries[0][1]
    except errors.InvalidFileError as error:
        return [str(fault) for fault in error.faults]
    for benchmark in benchmarks:
        assert benchmark.digest
        conditions.of(benchmark, timeout=1.0)
        try:
            assert generic.Generic().commands(benchmark, place)
        except errors.CommandError as error:
            said.append(str(error))
    return said


@given(MUTATIONS)
@hypothesis_settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_specification_runs_or_has_clear_faults(tmp_path: Path, mutations: list[tuple[list[Any], Any, bool]]) -> None:
    path = write(tmp_path / "net.json", _mutated(mutations))
    assert all(fault.startswith(f"{path}:") for fault in _faults_of_use(path))


def test_a_torn_specification_runs_or_has_clear_faults(tmp_path: Path) -> None:
    chance = random.Random(1)
    whole = json.dumps(MODEL_FILE, indent=1).encode()
    path = tmp_path / "net.json"
    for _ in range(200):
        start = chance.randrange(len(whole))
        path.write_bytes(whole[:start] + chance.randbytes(chance.randrange(4)) + whole[start + chance.randrange(1, 40) :])
        assert all(fault.startswith(f"{path}:") for fault in _faults_of_use(path))
