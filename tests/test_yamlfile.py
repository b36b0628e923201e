"""YAML and JSON as plain values with positions."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import errors, yamlfile

README = Path(__file__).parents[1] / "README.md"
CONFIG = Path(__file__).parents[1] / "config" / "aibenchd.yaml"


def write(directory: Path, content: str | bytes, name: str = "file.yaml") -> Path:
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def faults(path: Path) -> list[errors.Fault]:
    with pytest.raises(errors.InvalidFileError) as caught:
        yamlfile.load(path)
    return caught.value.faults


def key_paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of all keys of all mappings in a value."""
    if isinstance(value, dict):
        return [inner for key, item in value.items() for inner in ((*path, key), *key_paths(item, (*path, key)))]
    if isinstance(value, list):
        return [inner for index, item in enumerate(value) for inner in key_paths(item, (*path, index))]
    return []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("yes", "yes"),
        ("off", "off"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-01-31", "2026-01-31"),
        ("12e", "12e"),
        ("0b11", "0b11"),
        ('"5"', "5"),
        ("'true'", "true"),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("=", "="),
    ],
)
def test_reads_scalars_by_the_core_schema_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    read = yamlfile.load(write(tmp_path, f"key: {text}")).value["key"]
    assert read == value
    assert type(read) is type(value)


def test_colons_within_words_are_no_keys_in_braces_either(tmp_path: Path) -> None:
    text = "a: {listen: 127.0.0.1:8080, url: http://host:80/x, own: [::1, b:c]}\nb: {c: 1}\n"
    value = yamlfile.load(write(tmp_path, text)).value
    assert value == {"a": {"listen": "127.0.0.1:8080", "url": "http://host:80/x", "own": ["::1", "b:c"]}, "b": {"c": 1}}


@pytest.mark.parametrize("shown", re.findall(r"^```yaml\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL))
def test_what_the_readme_shows_is_read(tmp_path: Path, shown: str) -> None:
    assert yamlfile.load(write(tmp_path, shown)).value


def test_a_fault_behind_a_colon_within_a_word_has_its_own_place(tmp_path: Path) -> None:
    (fault,) = faults(write(tmp_path, "a: {listen: 127.0.0.1:8080}\nb: c: d\n"))
    assert (fault.line, fault.column) == (2, 5)
    assert "mapping values are not allowed" in fault.message


def test_a_yaml_1_1_directive_changes_no_value(tmp_path: Path) -> None:
    assert yamlfile.load(write(tmp_path, "%YAML 1.1\n---\nkey: [010, yes]")).value == {"key": [10, "yes"]}


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(value=plain, indent=st.sampled_from([None, 2, "\t"]), plainly=st.booleans())
def test_json_is_what_the_standard_library_reads(
    tmp_path_factory: pytest.TempPathFactory, value: object, indent: int | str | None, plainly: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=not plainly)
    if "\0" in json.dumps(value, ensure_ascii=False) or "\\u0000" in text:
        return
    path = write(tmp_path_factory.getbasetemp(), text, "value.json")
    document = yamlfile.load(path)
    assert document.value == json.loads(text)
    lines = text.split("\n")
    for key_path in key_paths(document.value):
        line, column = document.position(key_path)
        assert json.JSONDecoder().raw_decode(lines[line - 1][column - 1 :])[0] == key_path[-1]


@given(value=plain)
def test_json_text_in_a_yaml_file_reads_the_same(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    text = json.dumps(value)
    if "\\u0000" in text or "\\ud" in text:  # YAML has no surrogate pairs
        return
    assert yamlfile.load(write(tmp_path_factory.getbasetemp(), text)).value == json.loads(text)


BOARDS = """\
devices:
- &one
  name: b0
  env: {A: x, B: y}
- {<<: *one, name: b1}
- name: b2
  <<: [{cpus: [1], env: {}}, *one]
  tags: [<<]
"""


def test_a_mapping_takes_what_it_has_not_from_those_that_it_merges(tmp_path: Path) -> None:
    document = yamlfile.load(write(tmp_path, BOARDS))
    env = {"A": "x", "B": "y"}
    assert document.value == {
        "devices": [
            {"name": "b0", "env": env},
            {"name": "b1", "env": env},
            {"name": "b2", "cpus": [1], "env": {}, "tags": ["<<"]},
        ]
    }
    places = {("name",): (5, 14), ("env",): (5, 4), ("env", "A"): (5, 4)}
    assert {key: document.position(("devices", 1, *key)) for key in places} == places, "what is merged is at the <<"
    assert document.position(("devices", 2, "cpus", 0)) == (7, 3)
    assert document.position(("devices", 0, "env", "A")) == (4, 9)
    assert document.duplicates == ()
    quoted = {'"<<"': {"a": 1}}
    assert yamlfile.load(write(tmp_path, '"<<": {a: 1}')).value == {"<<": {"a": 1}}
    assert yamlfile.load(write(tmp_path, json.dumps(quoted), "file.json")).value == quoted


def test_what_cannot_be_merged_is_a_fault_at_its_place(tmp_path: Path) -> None:
    (fault,) = faults(write(tmp_path, "a: {b: 1,\n  <<: [{c: 2}, 5]}"))
    assert (fault.line, fault.column, fault.key) == (2, 3, 'a["<<"]')
    assert fault.message == "takes a mapping, such as *name of one that is marked &name, or a list of them"
    twice = yamlfile.load(write(tmp_path, "a: {<<: {b: 1},\n  <<: {c: 2}}"))
    ((line, key),) = [(fault.line, fault.key) for fault in twice.duplicates]
    assert (line, key) == (2, 'a["<<"]')


def test_what_merged_mappings_hold_is_counted_as_often_as_they_are_repeated(tmp_path: Path) -> None:
    rows = ["a0: &a0 {x: [" + "1, " * 1000 + "]}"]
    rows += [f"a{n}: &a{n} {{y: [{{<<: *a{n - 1}}}, {{<<: *a{n - 1}}}]}}" for n in range(1, 12)]
    (fault,) = faults(write(tmp_path, "\n".join(rows)))
    assert fault.message == "holds more than 500,000 values, aliases counted"


def test_every_key_of_the_shipped_configuration_stands_at_its_position() -> None:
    document = yamlfile.load(CONFIG)
    lines = CONFIG.read_text().split("\n")
    assert len(key_paths(document.value)) > 100
    for key_path in key_paths(document.value):
        line, column = document.position(key_path)
        assert lines[line - 1][column - 1 :].startswith(f"{key_path[-1]}:")


def test_positions_of_items_and_of_what_is_not_there(tmp_path: Path) -> None:
    document = yamlfile.load(write(tmp_path, "devices:\n  - name: a\n    cpus: [1,\n      2]\n"))
    assert document.position(("devices", 0, "cpus", 1)) == (4, 7)
    assert document.position(("devices", 0, "platform", "x")) == (2, 5)
    assert document.position(("devices", 7)) == (1, 1)
    assert document.position(()) == (1, 1)


def test_a_fault_names_file_place_and_key(tmp_path: Path) -> None:
    path = write(tmp_path, "a:\n  - b.c: 1\n")
    assert str(yamlfile.load(path).fault(("a", 0, "b.c"), "is odd")) == f'{path}:2:5: a[0]["b.c"]: is odd'


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    for content in ("", "# nothing\n", "---\n", "\ufeff"):
        document = yamlfile.load(write(tmp_path, content))
        assert document.value is None
        assert document.position(("a",)) == (1, 1) or content == "---\n"


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert yamlfile.load(write(tmp_path, "\ufeffa: 1")).value == {"a": 1}
    assert yamlfile.load(write(tmp_path, '\ufeff{"a": 1}', "file.json")).value == {"a": 1}


@pytest.mark.parametrize("name", ["file.yaml", "file.json"])
def test_a_key_given_twice_is_told_and_the_last_holds(tmp_path: Path, name: str) -> None:
    document = yamlfile.load(write(tmp_path, '{"tests": [{"iter": 50,\n "metric": "delay",\n "iter": 3}]}', name))
    assert document.value == {"tests": [{"iter": 3, "metric": "delay"}]}
    (fault,) = document.duplicates
    assert (fault.line, fault.column, fault.key) == (3, 2, "tests[0].iter")
    assert "first in line 1, column 13" in fault.message
    assert document.earlier == {("tests", 0, "iter"): 50}


def test_of_a_key_given_three_times_the_one_before_the_last_is_known(tmp_path: Path) -> None:
    document = yamlfile.load(write(tmp_path, '{"a": 1, "b": {"a": 2}, "a": [3], "a": 4}', "file.json"))
    assert (document.value, document.earlier) == ({"a": 4, "b": {"a": 2}}, {("a",): [3]})


def test_aliases_stand_for_what_they_name(tmp_path: Path) -> None:
    document = yamlfile.load(write(tmp_path, "a: &x [1, {b: 2}]\nc: *x\nd: &x 3\ne: *x\n"))
    assert document.value == {"a": [1, {"b": 2}], "c": [1, {"b": 2}], "d": 3, "e": 3}
    assert document.position(("c", 1, "b")) == (2, 1)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "name", "line", "column", "words"),
    [
        ("a: [1", "f.yaml", 2, 1, "did not find expected"),
        ("a: 1\n\tb: 2", "f.yaml", 2, 1, "tab character"),
        ("a: b: c", "f.yaml", 1, 5, "mapping values are not allowed"),
        ("a: *nothing", "f.yaml", 1, 4, "no &nothing ends before it"),
        ("a: &x [*x]", "f.yaml", 1, 8, "no &x ends before it"),
        ("a: 1\n---\nb: 2", "f.yaml", 3, 1, "second document"),
        ("a: !!python/object:os.system x", "f.yaml", 1, 4, "is a tag"),
        ("a: 1\nb: \x07", "f.yaml", 2, 4, "control character U+0007"),
        ("%YAML 3.0\n---\na: 1", "f.yaml", 1, 1, "incompatible"),
        ("a:\n  - .nan", "f.yaml", 2, 5, "not a finite number"),
        ("a: 1e999", "f.yaml", 1, 4, "not a finite number"),
        ("a: 99999999999999999999", "f.yaml", 1, 4, "at most 64 bits"),
        ("a: " + "9" * 5000, "f.yaml", 1, 4, "at most 64 bits"),
        ('a: "\\0"', "f.yaml", 1, 4, "null character"),
        ("x: 1\n5: 2", "f.yaml", 2, 1, "a key must be text, not 5; put quotes around it"),
        ("true: 2", "f.yaml", 1, 1, "a key must be text, not true"),
        ("? [a]\n: 2", "f.yaml", 1, 3, "a key must be text, not a list or mapping"),
        ("a: " + "[" * 200, "f.yaml", 1, 104, "deeper than 100 levels"),
        (BOMB, "f.yaml", 6, 40, "more than 500,000 values"),
        (b"a: 1\nb: \xff", "f.yaml", 2, 4, "byte 0xff"),
        ("{\n", "f.json", 2, 1, "Expecting property name"),
        ('{"a" 1}', "f.json", 1, 6, "Expecting ':' delimiter"),
        ('{"a": 1}\n{', "f.json", 2, 1, "Extra data"),
        ("", "f.json", 1, 1, "Expecting value"),
        ("{'a': 1}", "f.json", 1, 2, "double quotes"),
        ('{"a": [1,\n NaN]}', "f.json", 2, 2, "NaN is not a finite number"),
        ('{"a": -Infinity}', "f.json", 1, 7, "not a finite number"),
        ('{"a": 1e400}', "f.json", 1, 7, "not a finite number"),
        ('{"a": "\\ud800"}', "f.json", 1, 7, "surrogate"),
        ("[" * 200 + "]" * 200, "f.json", 1, 102, "deeper than 100 levels"),
        ("[" * 100_000, "f.json", 0, 0, "deeper than 100 levels"),
    ],
)
def test_what_cannot_be_read_is_one_fault_with_its_place(
    tmp_path: Path, content: str | bytes, name: str, line: int, column: int, words: str
) -> None:
    path = write(tmp_path, content, name)
    (fault,) = faults(path)
    assert words in fault.message
    assert (fault.file, fault.line, fault.column) == (str(path), line, column)


def test_faults_of_values_are_told_together(tmp_path: Path) -> None:
    found = faults(write(tmp_path, "a: .inf\n2: x\nb: [1, .nan]\n"))
    assert [(fault.line, fault.key) for fault in found] == [(1, "a"), (2, ""), (3, "b[1]")]


def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    large = write(tmp_path, b"#" * (yamlfile.MAX_BYTES + 1), "large.yaml")
    for path, words in (
        (tmp_path / "absent.yaml", "cannot be read: No such file or directory"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "pipe.yaml", "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (Path("nul\0l.yaml"), "cannot be read"),
        (large, "is larger than 8 MiB"),
    ):
        (fault,) = faults(path)
        assert words in fault.message
        assert fault.file == str(path)


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    assert yamlfile.load(write(tmp_path, "a: " + "x" * (yamlfile.MAX_BYTES - 3))).value["a"].endswith("x")
