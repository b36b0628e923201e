"""Whatever a configuration holds: faults that help, or settings. Never another exception."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from aibenchd import errors, settings, yamlfile

CONFIG = Path(__file__).parents[1] / "config" / "aibenchd.yaml"
BYTES = CONFIG.read_bytes()
LINES = [line for line in CONFIG.read_text().split("\n") if not re.match(r" *#", line)]
VALUE: dict[str, Any] = yamlfile.load(CONFIG).value
VALUE["sinks"].append(
    {"name": "far", "kind": "http", "url": "https://a/b", "token_file": "t", "headers": {"A": "b"}, "proxy": ""}
)
PATIENT = {"deadline": None, "suppress_health_check": list(hypothesis.HealthCheck)}

ODD = (
    *(
        "",
        " ",
        "-",
        "--upload-pack=x",
        "..",
        "/",
        "\U0001f600",
        "a" * 5000,
        "{ID}",
        "*",
        "\x7f",
        "null",
        "yes",
        "lab-host",
        "token",
    ),
    *("5s", "0s", "9" * 400 + "d", "1e999", "5GiB", "9" * 400 + "GiB", "local", "http", "git", "pinned", "faipep"),
    *("https://a:b@c/d", "http://[", "http://[::1", "https://x:99999/", "http://\u2100/", "a|b"),
)
odd_text = st.sampled_from(ODD)
noise = st.binary(max_size=6) | st.sampled_from(
    [b"\t", b"\n", b": ", b"- ", b"&a ", b"*a", b"!!x ", b"'", b'"', b"[", b"{", b"|\n", b"%", b"\0", b"\xc2\x85"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | odd_text
    | st.text(st.characters(codec="utf-8"), max_size=8)
)
values = scalars | st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3))
deep = st.integers(1, 200).map(lambda depth: json.loads("[" * depth + "]" * depth))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) in a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in ((value, key), *places(item))]


def mutate(draw: st.DrawFn, value: Any) -> None:
    """Change one thing somewhere in ``value``."""
    container, key = draw(st.sampled_from(places(value)))
    everything = [one for _, one in places(value) if isinstance(one, str)]
    change = draw(st.sampled_from(["replace", "drop", "rename", "nest", "repeat", "move"]))
    if change == "replace":
        container[key] = draw(values)
    elif change == "drop":
        del container[key]
    elif change == "nest":
        container[key] = draw(deep)
    elif change == "rename" and isinstance(container, dict):
        container[draw(st.sampled_from(everything) | odd_text)] = container.pop(key)
    elif change == "repeat" and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    else:
        other, where = draw(st.sampled_from(places(value)))
        container[key] = copy.deepcopy(other[where])


@st.composite
def configurations(draw: st.DrawFn) -> str:
    """The shipped configuration with one to four things changed, as JSON text, which is YAML too."""
    value = copy.deepcopy(VALUE)
    for _ in range(draw(st.integers(1, 4))):
        if not places(value):
            break
        mutate(draw, value)
    return json.dumps(value, indent=draw(st.sampled_from([None, 1])), ensure_ascii=draw(st.booleans()))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The shipped configuration's bytes, with pieces cut, doubled or overwritten."""
    data = BYTES
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 60)))
        middle = draw(noise | st.sampled_from([b"", data[start:end] * 2]))
        data = data[:start] + middle + data[end:]
    return data


@st.composite
def relined(draw: st.DrawFn) -> str:
    """The shipped configuration's lines, with some dropped, doubled, swapped or indented otherwise."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        one, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        change = draw(st.sampled_from(["drop", "double", "swap", "indent", "outdent"]))
        if change == "drop" and len(lines) > 1:
            del lines[one]
        elif change == "double":
            lines.insert(other, lines[one])
        elif change == "swap":
            lines[one], lines[other] = lines[other], lines[one]
        else:
            lines[one] = f"  {lines[one]}" if change == "indent" else lines[one][2:]
    return "\n".join(lines)


def judge(path: Path) -> None:
    """Load it: settings that are whole, or faults that help."""
    found = faults_of(path)
    assert found != []
    if found and parses(path):
        part, places = settings.without(yamlfile.load(path), found)
        assert {key: len(getattr(part, key)) for key in places} == {key: len(of_part) for key, of_part in places.items()}
    for fault in found or ():
        assert fault.file == str(path)
        assert fault.line > 0 or not parses(path)
        assert re.fullmatch(r"[^\n]{1,2000}", fault.message)
        assert "pydantic" not in fault.message


def faults_of(path: Path) -> list[errors.Fault] | None:
    """None where it is valid."""
    try:
        settings.load(path).model_dump_json()
    except errors.InvalidFileError as error:
        return error.faults
    return None


def parses(path: Path) -> bool:
    try:
        yamlfile.load(path)
    except errors.InvalidFileError:
        return False
    return True


@hypothesis.settings(max_examples=1100, **PATIENT)
@hypothesis.given(text=configurations())
def test_any_change_of_a_value_or_key(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    path.write_text(text, encoding="utf-8")
    judge(path)


@hypothesis.settings(max_examples=400, **PATIENT)
@hypothesis.given(data=damaged())
def test_any_damage_to_its_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(data)
    judge(path)


@hypothesis.settings(max_examples=400, **PATIENT)
@hypothesis.given(text=relined())
def test_any_disorder_of_its_lines(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "disordered.yaml"
    path.write_text(text)
    judge(path)


@hypothesis.settings(max_examples=200, **PATIENT)
@hypothesis.given(text=configurations(), name=st.sampled_from(["a.json", "a.yaml"]), cut=st.integers(0, 4000))
def test_any_file_that_ends_early(tmp_path_factory: pytest.TempPathFactory, text: str, name: str, cut: int) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_text(text[:cut], encoding="utf-8")
    judge(path)
